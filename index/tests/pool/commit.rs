//! What a commit promises: one writer, all or nothing, and the generation before it when something fails.

use std::{
    collections::BTreeSet,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    medium::Hooked,
    support::{clustered, image_pair, one_thread, rows, spec},
};
use anchorite_index::{
    BuildParams, Cancel, Effort, Pair, PairSink, PairStore, StoreError, Value,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions, inspect, verify},
};

const DIM: usize = 12;

fn pairs(from: usize, to: usize) -> Vec<Pair> {
    let vectors = clustered(to, DIM, 5, 1);
    let with_picture = |n: usize| Pair { picture: Some(vec![1; 40]), ..image_pair(n, vectors[n].clone()) };
    (from..to).map(with_picture).collect()
}

fn open(dir: &Path) -> Result<PoolWriter, StoreError> {
    PoolWriter::open(dir, &spec(DIM), &one_thread())
}

/// A pool with 30 rows in generation 1.
fn first_generation(dir: &Path) {
    let mut writer = open(dir).unwrap();
    writer.append(&pairs(0, 30)).unwrap();
    writer.set_progress(b"thirty").unwrap();
    assert_eq!(writer.commit(&Cancel::default()).unwrap(), 1);
}

/// Appends 20 rows and commits.
fn second_generation(dir: &Path, hook: Option<Hooked>) -> Result<u64, StoreError> {
    let mut options = one_thread();
    if let Some(hook) = hook {
        options.medium = Arc::new(hook);
    }
    let mut writer = PoolWriter::open(dir, &spec(DIM), &options)?;
    let written = writer.append(&pairs(30, 50)).and_then(|()| {
        writer.set_progress(b"fifty")?;
        writer.commit(&Cancel::default())
    });
    if written.is_err() {
        assert!(matches!(writer.append(&pairs(60, 61)), Err(StoreError::Latched)));
        assert!(matches!(writer.commit(&Cancel::default()), Err(StoreError::Latched)));
    }
    written
}

/// One of the two generations, complete, and a writer can go on.
fn check_after(dir: &Path, committed: bool) {
    let pool = Pool::open(dir, &OpenOptions::default()).unwrap();
    let status = pool.status();
    let progress: &[u8] = if committed { b"fifty" } else { b"thirty" };
    assert_eq!((status.rows, pool.progress()), (if committed { 50 } else { 30 }, progress));
    assert!(verify(dir).unwrap().is_sound());
    drop(pool);
    let mut writer = open(dir).unwrap();
    let from = if committed { 50 } else { 30 };
    writer.append(&pairs(from, 60)).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    assert_eq!(writer.committed().status().rows, 60);
    assert!(verify(dir).unwrap().is_sound());
    let query = &pairs(0, 1)[0].image.clone().unwrap();
    assert_eq!(rows(writer.committed(), query, 1, Effort::Normal), [0]);
}

/// Counts changes to the folder and runs `fail` from the `at`-th on.
fn at_change(at: usize, fail: impl Fn(usize) -> io::Result<()> + Send + Sync + 'static) -> (Hooked, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let hook = move |_: &'static str, _: &str| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        if number >= at { fail(number - at) } else { Ok(()) }
    };
    (Hooked(Arc::new(hook)), count)
}

fn changes_of_a_commit() -> usize {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    let (hook, count) = at_change(usize::MAX, |_| Ok(()));
    second_generation(dir.path(), Some(hook)).unwrap();
    count.load(Ordering::SeqCst)
}

#[test]
fn any_failed_change_leaves_a_complete_generation_and_latches_the_writer() {
    let changes = changes_of_a_commit();
    assert!(changes > 15, "{changes}");
    for at in 0..changes {
        for lasting in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            first_generation(dir.path());
            let full = move |after: usize| if after == 0 || lasting { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
            let (hook, _) = at_change(at, full);
            let written = second_generation(dir.path(), Some(hook));
            if let Err(error) = &written {
                assert!(matches!(error, StoreError::Io { .. }), "{error}");
            }
            // When the name of a manifest cannot be made durable and then not be taken back either, the commit is there whole.
            let stays = lasting && Pool::open(dir.path(), &OpenOptions::default()).unwrap().status().rows == 50;
            check_after(dir.path(), written.is_ok() || stays);
        }
    }
}

#[test]
fn a_writer_that_dies_at_any_change_leaves_a_complete_generation() {
    for at in 0..changes_of_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        first_generation(dir.path());
        let (hook, _) = at_change(at, |_| panic!("dies here"));
        assert!(catch_unwind(AssertUnwindSafe(|| second_generation(dir.path(), Some(hook)))).is_err());
        let committed = Pool::open(dir.path(), &OpenOptions::default()).unwrap().status().rows == 50;
        check_after(dir.path(), committed);
    }
}

#[test]
fn a_writer_that_dies_before_the_first_manifest_leaves_a_folder_that_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (hook, _) = at_change(2, |_| Err(io::ErrorKind::StorageFull.into()));
    assert!(PoolWriter::open(dir.path(), &spec(DIM), &WriterOptions { medium: Arc::new(hook), ..one_thread() }).is_err());
    first_generation(dir.path());
    check_after(dir.path(), false);
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let Err(StoreError::Locked { file, holder }) = open(dir.path()) else { panic!("two writers") };
    assert!(file.ends_with("LOCK"));
    assert_eq!(holder, format!("process {}", std::process::id()));
    drop(first);
    assert!(open(dir.path()).is_ok());
}

#[test]
fn a_pool_stays_with_its_encoder() {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    let mut other = spec(DIM);
    other.encoder = "another".into();
    let refused = PoolWriter::open(dir.path(), &other, &one_thread()).err().unwrap();
    assert!(matches!(refused, StoreError::SpecMismatch { .. }), "{refused}");
    let refused = PoolWriter::open(dir.path(), &spec(DIM + 1), &one_thread()).err().unwrap();
    assert!(matches!(refused, StoreError::SpecMismatch { pool_dim: DIM, .. }), "{refused}");
}

#[test]
fn a_folder_with_other_things_is_not_taken_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("holiday.jpg"), b"x").unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert!(matches!(&refused, StoreError::NotAPool { found, .. } if found == "holiday.jpg"), "{refused}");
    let refused = Pool::open(dir.path(), &OpenOptions::default()).err().unwrap();
    assert!(matches!(refused, StoreError::NotAPool { .. }), "{refused}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(Pool::open(dir.path().join("absent"), &OpenOptions::default()), Err(StoreError::Io { .. })));
}

#[test]
fn two_generations_stay_and_what_no_manifest_names_goes() {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    let kept = dir.path().join("notes.txt");
    fs::write(&kept, b"mine").unwrap();
    for name in ["seg-00000000000000ff.pairs", "manifest-0000000000000007.tmp", "seg-00000000000000ff.image.graph"] {
        fs::write(dir.path().join(name), b"left behind").unwrap();
    }
    assert_eq!(second_generation(dir.path(), None).unwrap(), 2);
    let names: BTreeSet<String> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(kept.exists() && !names.iter().any(|n| n.contains("ff.") || n.ends_with(".tmp")), "{names:?}");
    let manifests = names.iter().filter(|n| n.starts_with("manifest-")).count();
    assert_eq!(manifests, 2);
}

#[test]
fn a_reader_keeps_its_generation_while_later_ones_come() {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    let reader = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    let query = pairs(40, 41)[0].image.clone().unwrap();
    let before = rows(&reader, &query, 30, Effort::Exact);
    second_generation(dir.path(), None).unwrap();
    let mut writer = open(dir.path()).unwrap();
    writer.append(&pairs(50, 60)).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    assert_eq!(rows(&reader, &query, 30, Effort::Exact), before);
    assert_eq!(reader.status().generation, 1);
    assert_eq!(Pool::open(dir.path(), &OpenOptions::default()).unwrap().status().generation, 3);
}

#[test]
fn a_reader_can_open_at_any_moment_of_a_writers_work() {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut writer = open(dir.path()).unwrap();
            for n in 0..60usize {
                writer.set_progress(&n.to_string().into_bytes()).unwrap();
                if n.is_multiple_of(10) {
                    writer.append(&pairs(30 + n, 32 + n)).unwrap();
                }
                writer.commit(&Cancel::default()).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut last = 0;
        while !done.load(Ordering::SeqCst) && !writing.is_finished() {
            let pool = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
            let status = pool.status();
            assert!(status.generation >= last && pool.damaged_manifests().is_empty());
            // Generation 2 has the watermark 0 and two rows more than generation 1; each tenth after it two more again.
            let commits = status.generation - 1;
            assert_eq!(status.rows, 30 + 2 * commits.div_ceil(10));
            last = status.generation;
        }
        writing.join().unwrap();
    });
    assert_eq!(Pool::open(dir.path(), &OpenOptions::default()).unwrap().status().generation, 61);
}

#[test]
fn a_watermark_alone_is_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    let mut writer = open(dir.path()).unwrap();
    assert_eq!(writer.progress(), b"thirty");
    writer.set_progress(b"rejects only").unwrap();
    assert_eq!(writer.commit(&Cancel::default()).unwrap(), 2);
    assert_eq!(writer.commit(&Cancel::default()).unwrap(), 2);
    assert_eq!(Pool::open(dir.path(), &OpenOptions::default()).unwrap().progress(), b"rejects only");
}

#[test]
fn a_damaged_newest_manifest_is_told_and_a_writer_refuses_to_go_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    first_generation(dir.path());
    second_generation(dir.path(), None).unwrap();
    let newest = dir.path().join("manifest-0000000000000002");
    let mut bytes = fs::read(&newest).unwrap();
    bytes[40] ^= 1;
    fs::write(&newest, &bytes).unwrap();
    let pool = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    assert_eq!((pool.status().generation, pool.damaged_manifests().len()), (1, 1));
    let info = inspect(dir.path()).unwrap();
    assert!(info.damaged_manifests[0].contains("manifest-0000000000000002"), "{info:?}");
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt { .. })));
    assert!(!verify(dir.path()).unwrap().is_sound());
}

#[test]
fn what_is_over_a_limit_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path()).unwrap();
    let good = pairs(0, 1).remove(0);
    let long = Pair { caption: Some("x".repeat((1 << 20) + 1)), ..good.clone() };
    assert!(matches!(writer.append(&[long]), Err(StoreError::TooLarge { what: "caption", .. })));
    let long = Pair { fields: [("f".repeat(256), Value::Int(1))].into(), ..good.clone() };
    assert!(matches!(writer.append(&[long]), Err(StoreError::TooLarge { what: "field name", .. })));
    let odd = Pair { fields: [("f".into(), Value::Float(f64::NAN))].into(), ..good.clone() };
    assert!(matches!(writer.append(&[odd]), Err(StoreError::FieldNotFinite { .. })));
    writer.append(&[good]).unwrap();
    let bad = WriterOptions { build: BuildParams { m: 1, ..BuildParams::default() }, ..WriterOptions::default() };
    assert!(matches!(PoolWriter::open(dir.path(), &spec(DIM), &bad), Err(StoreError::Parameter { name: "m", .. })));
}
