//! Power is lost, or a call fails, at every single change that a pool's life makes to its folder. Whatever was promised is there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    medium::{CUTS, Hooked, Remembering, State},
    support::{clustered, image_pair, one_thread, rows, spec},
};
use anchorite_index::{
    Cancel, ContentHash, Effort, Key, Pair, PairSink, PairStore, Parts, RowId, StoreError,
    pool::{Medium, MergePolicy, OpenOptions, Pool, PoolWriter, Verify, WriterOptions, verify},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 6;

/// What a generation holds: its watermark, and the content of every key.
type Contents = (Vec<u8>, BTreeMap<Key, ContentHash>);

fn contents(pool: &Pool) -> Contents {
    let all: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let records = pool.get(&all, Parts { picture: true, vectors: true }).unwrap();
    let found: BTreeMap<_, _> = records.into_iter().flatten().map(|record| (record.key, record.content)).collect();
    assert_eq!(found.len() as u64, pool.status().rows, "a key twice");
    (pool.progress().to_vec(), found)
}

fn pairs(from: usize, to: usize) -> Vec<Pair> {
    let vectors = clustered(to, DIM, 4, 2);
    let one = |n: usize| Pair {
        content: ContentHash([n as u8; 32]),
        picture: n.is_multiple_of(9).then(|| vec![3; 700]),
        text: n.is_multiple_of(7).then(|| vectors[0].clone()),
        ..image_pair(n, vectors[n].clone())
    };
    (from..to).map(one).collect()
}

fn options(medium: Arc<dyn Medium>) -> WriterOptions {
    WriterOptions { medium, merge: Some(MergePolicy { factor: 3, floor_rows: 20 }), ..one_thread() }
}

/// A whole life: filling, watermarks, replacing, deleting, joining by policy, compacting. `promised` hears of every generation
/// that was acknowledged, with what it holds.
fn live(dir: &Path, medium: Arc<dyn Medium>, promised: &mut dyn FnMut(&Pool)) -> Result<(), StoreError> {
    let go = Cancel::default();
    let mut writer = PoolWriter::open(dir, &spec(DIM), &options(medium))?;
    promised(writer.committed());
    writer.append(&pairs(0, 12))?;
    writer.commit_with(b"12", &go)?;
    promised(writer.committed());
    writer.append(&pairs(12, 20))?;
    writer.delete(&[pairs(3, 4)[0].key.clone(), pairs(14, 15)[0].key.clone()])?;
    writer.commit_with(b"20", &go)?;
    promised(writer.committed());
    let changed: Vec<Pair> = pairs(5, 9).into_iter().map(|pair| Pair { content: ContentHash([0xEE; 32]), ..pair }).collect();
    writer.upsert(&changed)?;
    writer.commit_with(b"changed", &go)?;
    promised(writer.committed());
    writer.commit_with(b"nothing but this", &go)?;
    promised(writer.committed());
    for n in 0..4 {
        writer.append(&pairs(20 + n * 3, 23 + n * 3))?;
        writer.commit(&go)?;
        promised(writer.committed());
    }
    let old: Vec<Key> = pairs(0, 10).into_iter().map(|pair| pair.key).collect();
    writer.delete(&old)?;
    writer.commit(&go)?;
    promised(writer.committed());
    writer.append(&pairs(40, 44))?;
    writer.compact(&go, &mut |_| {})?;
    promised(writer.committed());
    Ok(())
}

/// What each generation that was acknowledged held; those between are of a compaction and hold what the next one does.
type Promises = BTreeMap<u64, Contents>;

fn holds(promises: &Promises, pool: &Pool, at_least: u64, story: &str) {
    let generation = pool.status().generation;
    assert!(generation >= at_least, "{story}: generation {generation} after {at_least} was promised");
    // A commit that was under way may be there whole; then it is the next promise.
    let (_, expected) =
        promises.range(generation..).next().unwrap_or_else(|| panic!("{story}: generation {generation} was invented"));
    assert!(contents(pool) == *expected, "{story}: generation {generation} holds something else");
}

fn put(dir: &Path, image: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn check_image(state: &State, acknowledged: u64, promises: &Promises, (cut, seed): (crate::medium::Cut, u64), goes_on: bool) {
    let image = state.after(cut, &mut ChaCha8Rng::seed_from_u64(seed));
    let story = format!("{cut:?}, seed {seed}, generation {acknowledged} promised, {:?}", image.keys().collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &image);
    let options_full = OpenOptions { verify: Verify::Full, ..OpenOptions::default() };
    match Pool::open(dir.path(), &options_full) {
        Ok(pool) => {
            assert!(pool.damaged_manifests().is_empty(), "{story}");
            holds(promises, &pool, acknowledged, &story);
        }
        // Before the first promise there may be no pool yet.
        Err(error) => assert!(acknowledged == 0 && matches!(error, StoreError::NotAPool { .. }), "{story}: {error}"),
    }
    if goes_on {
        let mut writer = PoolWriter::open(dir.path(), &spec(DIM), &options(Arc::new(Remembering::default()))).unwrap();
        let rows = writer.committed().status().rows;
        writer.append(&pairs(60, 63)).unwrap();
        writer.commit(&Cancel::default()).unwrap();
        assert_eq!(writer.committed().status().rows, rows + 3, "{story}");
        assert!(verify(dir.path()).unwrap().is_sound(), "{story}");
    }
}

/// Images per state and cut: 4 here; a long run sets ANCHORITE_POWER_IMAGES.
fn seeds() -> u64 {
    std::env::var("ANCHORITE_POWER_IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// A life from a seed: filling, replacing, deleting, watermarks, compacting and reopening in any order. What is not committed when
/// the writer is reopened was never promised.
fn live_by(seed: u64, dir: &Path, medium: &Remembering, promised: &mut dyn FnMut(&Pool)) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let go = Cancel::default();
    let open = || PoolWriter::open(dir, &spec(DIM), &options(Arc::new(medium.clone()))).unwrap();
    let mut writer = open();
    promised(writer.committed());
    for step in 0..rng.random_range(6..16u8) {
        let (from, count) = (rng.random_range(0..50), rng.random_range(1..14));
        let some: Vec<Pair> =
            pairs(from, from + count).into_iter().map(|pair| Pair { content: ContentHash([step; 32]), ..pair }).collect();
        match rng.random_range(0..10) {
            0..4 => drop(writer.upsert(&some).unwrap()),
            4..6 => drop(writer.delete(&some.into_iter().map(|pair| pair.key).collect::<Vec<_>>()).unwrap()),
            6 => {
                writer.compact(&go, &mut |_| {}).unwrap();
                promised(writer.committed());
            }
            7 => {
                drop(writer);
                writer = open();
            }
            _ => {
                writer.commit_with(&[step], &go).unwrap();
                promised(writer.committed());
            }
        }
    }
    writer.commit(&go).unwrap();
    promised(writer.committed());
}

/// Every state of a life, and what it promised.
fn history_of(life: impl FnOnce(&Path, &Remembering, &mut dyn FnMut(&Pool))) -> (Vec<(State, u64)>, Promises) {
    let dir = tempfile::tempdir().unwrap();
    let medium = Remembering::recording();
    let mut promises = Promises::new();
    life(dir.path(), &medium, &mut |pool| {
        promises.insert(pool.status().generation, contents(pool));
        medium.acknowledge(pool.status().generation);
    });
    assert_eq!(medium.differs(dir.path()), [""; 0], "the medium lost something while power held");
    (medium.history(), promises)
}

#[test]
fn power_lost_at_any_change_in_any_way_costs_nothing_that_was_promised() {
    let (history, promises) = history_of(|dir, medium, promised| live(dir, Arc::new(medium.clone()), promised).unwrap());
    let mut images = 0usize;
    for (place, (state, acknowledged)) in history.iter().enumerate() {
        for cut in CUTS {
            for seed in 0..seeds() {
                let story = (cut, place as u64 * 1_000 + seed);
                check_image(state, *acknowledged, &promises, story, images.is_multiple_of(17));
                images += 1;
            }
        }
    }
    assert!(images >= 5_000, "{images} images of {} states", history.len());
}

/// Lives from seeds: 3 here; a long run sets ANCHORITE_POWER_LIVES.
fn lives() -> u64 {
    std::env::var("ANCHORITE_POWER_LIVES").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn power_lost_in_random_lives_costs_nothing_that_was_promised() {
    let mut images = 0usize;
    for life in 0..lives() {
        let (history, promises) = history_of(|dir, medium, promised| live_by(life, dir, medium, promised));
        for (place, (state, acknowledged)) in history.iter().enumerate() {
            for cut in CUTS {
                let story = (cut, life * 1_000_000 + place as u64);
                check_image(state, *acknowledged, &promises, story, images.is_multiple_of(17));
                images += 1;
            }
        }
    }
    println!("{images} images of {} random lives", lives());
}

fn count_changes() -> (usize, Promises) {
    let dir = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let hook = Hooked(Arc::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }));
    let mut promises = Promises::new();
    let mut note = |pool: &Pool| drop(promises.insert(pool.status().generation, contents(pool)));
    live(dir.path(), Arc::new(hook), &mut note).unwrap();
    (count.load(Ordering::SeqCst), promises)
}

#[test]
fn any_call_may_fail_once_or_for_good_and_nothing_promised_is_lost() {
    let (changes, promises) = count_changes();
    assert!(changes > 250, "{changes}");
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Interrupted, io::ErrorKind::Other];
    for at in 0..changes {
        for lasting in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let count = Arc::new(AtomicUsize::new(0));
            let kind = kinds[at % kinds.len()];
            let hook = Hooked(Arc::new(move |_, _| {
                let number = count.fetch_add(1, Ordering::SeqCst);
                if number == at || (lasting && number > at) { Err(kind.into()) } else { Ok(()) }
            }));
            let mut last = None;
            let lived = live(dir.path(), Arc::new(hook), &mut |pool| last = Some(pool.status().generation));
            let story = format!("change {at}, lasting {lasting}, {lived:?}");
            if let Err(error) = &lived {
                assert!(matches!(error, StoreError::Io { .. }), "{story}");
            }
            match (Pool::open(dir.path(), &OpenOptions::default()), last) {
                (Ok(pool), last) => holds(&promises, &pool, last.unwrap_or(0), &story),
                (Err(error), last) => assert!(last.is_none(), "{story}: {error}"),
            }
            let writer = PoolWriter::open(dir.path(), &spec(DIM), &options(Arc::new(Remembering::default())));
            assert!(writer.is_ok() && verify(dir.path()).unwrap().is_sound(), "{story}");
        }
    }
}

#[test]
fn a_failed_call_latches_the_writer_and_leaves_its_readers_alone() {
    for action in ["create", "write", "sync", "rename", "protect"] {
        let dir = tempfile::tempdir().unwrap();
        let broken = Arc::new(AtomicUsize::new(0));
        let switch = Arc::clone(&broken);
        let hook = Hooked(Arc::new(move |what, _| {
            let fails = switch.load(Ordering::SeqCst) == 1 && what == action;
            if fails { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        }));
        let mut writer = PoolWriter::open(dir.path(), &spec(DIM), &options(Arc::new(hook))).unwrap();
        writer.append(&pairs(0, 12)).unwrap();
        writer.commit(&Cancel::default()).unwrap();
        let reader = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
        broken.store(1, Ordering::SeqCst);
        let failed = writer.append(&pairs(12, 30)).and_then(|()| writer.commit(&Cancel::default()));
        assert!(matches!(failed, Err(StoreError::Io { .. })), "{action}: {failed:?}");
        broken.store(0, Ordering::SeqCst);
        assert!(matches!(writer.append(&pairs(30, 31)), Err(StoreError::Latched)));
        assert!(matches!(writer.upsert(&pairs(30, 31)), Err(StoreError::Latched)));
        assert!(matches!(writer.delete(&[]), Err(StoreError::Latched)));
        assert!(matches!(writer.commit(&Cancel::default()), Err(StoreError::Latched)));
        assert!(matches!(writer.compact(&Cancel::default(), &mut |_| {}), Err(StoreError::Latched)));
        assert_eq!(rows(&reader, pairs(4, 5)[0].image.as_ref().unwrap(), 1, Effort::Exact), [4]);
        drop(writer);
        let writer = PoolWriter::open(dir.path(), &spec(DIM), &one_thread()).unwrap();
        assert_eq!(writer.committed().status().rows, 12);
    }
}
