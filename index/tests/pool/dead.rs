//! Dead rows in a graph: walked through, never answered, and recall does not suffer.

use std::{collections::HashSet, fs, path::Path};

use crate::support::{clustered, image_pair, one_thread, rows, spec, widened};
use anchorite_index::{
    Cancel, Effort, Key, Pair, PairSink, PairStore, StoreError,
    pool::{OpenOptions, Pool, PoolWriter, inspect, verify},
};

const DIM: usize = 24;

fn fill(dir: &Path, vectors: &[Vec<f32>]) -> PoolWriter {
    let mut writer = PoolWriter::open(dir, &spec(vectors[0].len()), &one_thread()).unwrap();
    let pairs: Vec<Pair> = vectors.iter().enumerate().map(|(n, v)| image_pair(n, v.clone())).collect();
    writer.append(&pairs).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    writer
}

fn bury(writer: &mut PoolWriter, doomed: impl Iterator<Item = usize>) -> HashSet<u64> {
    let doomed: Vec<usize> = doomed.collect();
    let keys: Vec<Key> = doomed.iter().map(|n| image_pair(*n, Vec::new()).key).collect();
    assert_eq!(writer.delete(&keys).unwrap(), doomed.len() as u64);
    writer.commit(&Cancel::default()).unwrap();
    doomed.into_iter().map(|n| n as u64).collect()
}

fn recall(pool: &Pool, queries: &[Vec<f32>], effort: Effort, dead: &HashSet<u64>) -> f64 {
    let mut found = 0;
    for query in queries {
        let exact = rows(pool, query, 10, Effort::Exact);
        let by_graph = rows(pool, query, 10, effort);
        assert!(exact.len() == 10 && by_graph.len() == 10);
        assert!(exact.iter().chain(&by_graph).all(|row| !dead.contains(row)));
        found += by_graph.iter().filter(|row| exact.contains(row)).count();
    }
    found as f64 / (queries.len() * 10) as f64
}

#[test]
fn recall_is_kept_whatever_share_is_dead_and_wherever_it_lies() {
    shares(&clustered(6_100, DIM, 60, 17));
}

#[test]
fn recall_is_kept_where_searches_look_at_sketches() {
    shares(&widened(&clustered(6_100, DIM, 60, 17), 256));
}

fn shares(all: &[Vec<f32>]) {
    let (queries, base) = all.split_at(100);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path(), base);
    let whole = recall(writer.committed(), queries, Effort::Fast, &HashSet::new());
    // Nine of ten, evenly.
    let mut dead = bury(&mut writer, (0..6_000).filter(|n| n % 10 < 5));
    let half = recall(writer.committed(), queries, Effort::Fast, &dead);
    dead.extend(bury(&mut writer, (0..6_000).filter(|n| (5..9).contains(&(n % 10)))));
    let tenth = recall(writer.committed(), queries, Effort::Fast, &dead);
    assert!(half >= whole - 0.02 && tenth >= whole - 0.02, "{whole} {half} {tenth}");
    assert!(verify(dir.path()).unwrap().is_sound());

    // A whole neighbourhood of every query.
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path(), base);
    let near: HashSet<u64> = queries[..20].iter().flat_map(|q| rows(writer.committed(), q, 150, Effort::Exact)).collect();
    let dead = bury(&mut writer, near.iter().map(|row| *row as usize));
    let hollow = recall(writer.committed(), &queries[..20], Effort::Fast, &dead);
    assert!(hollow >= whole - 0.02, "{whole} {hollow}");
}

#[test]
fn dead_rows_add_up_over_generations_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let base = clustered(300, DIM, 5, 3);
    let mut writer = fill(dir.path(), &base);
    for n in 0..6 {
        bury(&mut writer, (n * 10)..(n * 10 + 3));
    }
    let info = inspect(dir.path()).unwrap();
    assert_eq!((info.rows, info.dead_rows, info.generation), (282, 18, 7));
    assert_eq!((info.segment_list[0].rows, info.segment_list[0].dead_rows), (282, 18));
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files.iter().filter(|name| name.contains(".dead-")).count(), 2, "those of two generations: {files:?}");
    assert!(verify(dir.path()).unwrap().is_sound());
    drop(writer);
    let writer = PoolWriter::open(dir.path(), &spec(DIM), &one_thread()).unwrap();
    assert_eq!(writer.committed().status().rows, 282);
}

#[test]
fn a_reader_of_an_older_generation_still_sees_the_rows_that_died_since() {
    let dir = tempfile::tempdir().unwrap();
    let base = clustered(300, DIM, 5, 3);
    let mut writer = fill(dir.path(), &base);
    let before = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    for n in 0..3 {
        bury(&mut writer, n..n + 1);
    }
    assert_eq!(rows(&before, &base[1], 1, Effort::Exact), [1]);
    assert_ne!(rows(writer.committed(), &base[1], 1, Effort::Exact), [1]);
}

#[test]
fn another_encoder_is_told_by_the_names_of_both_models() {
    let dir = tempfile::tempdir().unwrap();
    let mut named = one_thread();
    named.model = "laion/one".into();
    let mut writer = PoolWriter::open(dir.path(), &spec(DIM), &named).unwrap();
    writer.append(&[image_pair(0, clustered(1, DIM, 1, 1).remove(0))]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    drop(writer);
    let pool = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    assert_eq!((pool.model(), inspect(dir.path()).unwrap().model.as_str()), (Some("laion/one"), "laion/one"));
    let mut other = spec(DIM);
    other.encoder = "ffff".into();
    named.model = "openai/two".into();
    let refused = PoolWriter::open(dir.path(), &other, &named).err().unwrap();
    assert!(matches!(refused, StoreError::SpecMismatch { .. }));
    let told = refused.to_string();
    assert!(["laion/one", "openai/two", "ffff", "tests"].iter().all(|part| told.contains(part)), "{told}");
}
