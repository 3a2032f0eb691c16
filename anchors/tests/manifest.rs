//! A manifest is the same bytes for the same work, reads back, and is checked against pools by content; damage is told, never believed.

mod common;

use std::{fs, path::Path};

use anchorite_anchors::{
    Curated, Limits, Policy, Protected, Questions,
    manifest::{self, Header, ManifestError},
    policy::Select,
};
use anchorite_index::{
    Cancel, Key, Pair, PairSink as _, PairStore,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use arrow_array::{Array as _, cast::AsArray as _};
use common::*;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

fn policy() -> Policy {
    Policy { select: Select { k: Some(3), ..Select::default() }, validation: 0.3, ..Policy::default() }
}

fn work(rows: u32) -> (anchorite_index::memory::MemoryStore, Questions, Curated) {
    let folder = tempfile::tempdir().expect("set up");
    let file = parquet(folder.path(), "q.parquet", vec![pictures(&query_pictures(4)), texts("label", &["a", "b", "a", "b"])]);
    let asked = questions(&[file], &policy()).expect("set up");
    let store = store(&pool(rows));
    let curated = run(&store, &policy(), &asked).expect("set up");
    (store, asked, curated)
}

fn write(path: &Path) -> (anchorite_index::memory::MemoryStore, Questions, Curated) {
    let (store, asked, curated) = work(40);
    let header = Header::new(&store, &policy(), &asked, &Protected::default(), &curated);
    manifest::write(path, &header, &asked, &curated).expect("set up");
    (store, asked, curated)
}

#[test]
fn two_runs_are_equal_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.parquet"), folder.path().join("b.parquet"));
    write(&a);
    write(&b);
    assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "an unfinished file was left");
}

#[test]
fn a_manifest_names_the_index_that_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (asked, curated) = (Questions::default(), Curated::default());
    let index = |store: &dyn PairStore| Header::new(store, &policy(), &asked, &Protected::default(), &curated).pool.index;
    let dir = folder.path().join("pool");
    let spec = store(&[]).spec().clone();
    let fill = |pairs: &[Pair]| {
        let mut writer = PoolWriter::open(&dir, &spec, &WriterOptions::default()).unwrap();
        writer.append(pairs).unwrap();
        writer.commit(&Cancel::default()).unwrap();
    };
    let open = || Pool::open(&dir, &OpenOptions::default()).unwrap();
    let pairs = pool(6);
    fs::create_dir(&dir).unwrap();
    fill(&pairs[..5]);
    let first = index(&open()).expect("a pool on disk has files");
    assert_eq!((first.len(), index(&open())), (64, Some(first.clone())));
    fill(&pairs[5..]);
    assert_ne!(index(&open()), Some(first));
    assert_eq!(index(&store(&pairs)), None, "a store in memory has none");
}

#[test]
fn the_table_has_every_hit_with_its_reason_and_the_header_everything_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.parquet");
    let (store, asked, curated) = write(&path);
    let read = manifest::read(&path).unwrap();
    assert_eq!(read.anchors.len(), 12);
    assert_eq!(read.anchors.iter().map(|a| a.key.to_string()).collect::<Vec<_>>(), all_kept(&curated));
    let header = &read.header;
    assert_eq!(header.policy, policy());
    assert_eq!((header.search.as_str(), header.pool.generation, header.pool.rows), ("exact", 1, 40));
    assert_eq!(header.pool.encoder, store.spec().encoder);
    assert_eq!(header.queries.sha256, asked.hash());
    assert_eq!(header.report, curated.report);
    let file = fs::File::open(&path).unwrap();
    let batch = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().next().unwrap().unwrap();
    assert_eq!(batch.num_rows(), curated.entries.len());
    let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
    for (i, entry) in curated.entries.iter().enumerate() {
        assert_eq!(text("query").value(i), asked.list[entry.query.unwrap()].id);
        assert_eq!(text("class").value(i), ["a", "b"][entry.query.unwrap() % 2]);
        assert_eq!(text("direction").value(i), "image->image");
        assert_eq!(text("reason").is_null(i), entry.reason.is_none());
        assert_eq!(text("split").is_null(i), entry.reason.is_some());
        assert_eq!(batch.column_by_name("kept").unwrap().as_boolean().value(i), entry.reason.is_none());
    }
}

#[test]
fn a_pool_is_checked_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.parquet");
    let (store, ..) = write(&path);
    let read = manifest::read(&path).unwrap();
    let check = |pairs: &[Pair]| {
        let pool = common::store(pairs);
        manifest::verify(&read, &pool, &Limits { read_batch: 5, ..Limits::default() }, &Cancel::default()).unwrap()
    };
    let whole = manifest::verify(&read, &store, &Limits::default(), &Cancel::default()).unwrap();
    assert_eq!((whole.same, whole.moved, whole.coverage, whole.same_encoder), (12, 0, 1.0, true));
    let mut pairs = pool(40);
    pairs.reverse();
    assert_eq!(check(&pairs).same, 12);
    assert!(check(&pairs).moved > 0);
    let position = |key: &Key| pairs.iter().position(|p| p.key == *key).unwrap();
    let [renamed, changed, missing] = [0, 1, 2].map(|i| position(&read.anchors[i].key));
    pairs[renamed].key = Key::new("renamed").unwrap();
    pairs[changed].content.0[0] ^= 1;
    let gone = pairs.remove(missing);
    let found = check(&pairs);
    assert_eq!((found.same, found.renamed, found.changed, found.missing), (9, 1, 1, 1));
    assert!((found.coverage - 10.0 / 12.0).abs() < 1e-12);
    assert!(found.examples.contains(&gone.key));
    assert_eq!(found.examples.len(), 2);
}

#[test]
fn every_truncation_and_flips_of_single_bytes_are_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.parquet");
    write(&path);
    let whole = fs::read(&path).unwrap();
    let anchors = manifest::read(&path).unwrap().anchors;
    for len in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(manifest::read(&path).is_err(), "cut at {len}");
    }
    for at in (0..whole.len()).step_by(41) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        fs::write(&path, &bytes).unwrap();
        if let Ok(read) = manifest::read(&path) {
            let contents = |of: &[manifest::Named]| of.iter().map(|a| a.content).collect::<Vec<_>>();
            assert_eq!(contents(&read.anchors), contents(&anchors), "byte {at}");
        }
    }
}

#[test]
fn other_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let other = parquet(folder.path(), "other.parquet", vec![texts("key", &["a"])]);
    assert!(matches!(manifest::read(&other), Err(ManifestError::Corrupt { .. })));
    assert!(matches!(manifest::read(&folder.path().join("none")), Err(ManifestError::Io { action: "open", .. })));
    let (store, asked, curated) = work(40);
    let mut header = Header::new(&store, &policy(), &asked, &Protected::default(), &curated);
    header.format = 9;
    let newer = folder.path().join("newer.parquet");
    manifest::write(&newer, &header, &asked, &curated).unwrap();
    assert!(matches!(manifest::read(&newer), Err(ManifestError::Version { found: 9, .. })));
}

#[test]
fn a_failed_write_leaves_the_earlier_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("folder-in-the-way");
    fs::create_dir(&path).unwrap();
    let (store, asked, curated) = work(40);
    let header = Header::new(&store, &policy(), &asked, &Protected::default(), &curated);
    assert!(matches!(manifest::write(&path, &header, &asked, &curated), Err(ManifestError::Io { action: "rename", .. })));
    assert!(path.is_dir());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
