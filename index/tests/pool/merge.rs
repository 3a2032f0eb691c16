//! Joining segments: what lives stays as it was, what is dead goes, and nobody notices but by speed and size.

use std::{fs, path::Path};

use crate::support::{clustered, image_pair, one_thread, rows, spec};
use anchorite_index::{
    Cancel, Effort, Key, Pair, PairSink, PairStore, Parts, Record, RowId, StoreError, Value,
    pool::{Compacting, MergePolicy, OpenOptions, Pool, PoolWriter, WriterOptions, inspect, verify},
};

const DIM: usize = 16;

fn rich(vectors: &[Vec<f32>]) -> Vec<Pair> {
    let one = |(n, vector): (usize, &Vec<f32>)| Pair {
        text: n.is_multiple_of(3).then(|| vectors[(n + 1) % vectors.len()].clone()),
        caption: n.is_multiple_of(2).then(|| format!("caption {n}")),
        picture: n.is_multiple_of(5).then(|| vec![n as u8; 30]),
        fields: [("n".to_owned(), Value::Int(n as i64))].into(),
        ..image_pair(n, vector.clone())
    };
    vectors.iter().enumerate().map(one).collect()
}

fn records(pool: &Pool) -> Vec<Record> {
    let all: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let found = pool.get(&all, Parts { picture: true, vectors: true }).unwrap();
    // Row numbers are a generation's own.
    found.into_iter().flatten().map(|record| Record { row: RowId(0), ..record }).collect()
}

fn options(merge: Option<MergePolicy>) -> WriterOptions {
    WriterOptions { merge, ..one_thread() }
}

/// Ten segments of 40 rows, a third of them dead.
fn in_pieces(dir: &Path, merge: Option<MergePolicy>) -> (PoolWriter, Vec<Pair>) {
    let pairs = rich(&clustered(400, DIM, 20, 5));
    let mut writer = PoolWriter::open(dir, &spec(DIM), &options(merge)).unwrap();
    for piece in pairs.chunks(40) {
        writer.append(piece).unwrap();
        writer.commit(&Cancel::default()).unwrap();
    }
    let doomed: Vec<Key> = pairs.iter().step_by(3).map(|pair| pair.key.clone()).collect();
    writer.delete(&doomed).unwrap();
    writer.commit_with(b"mark", &Cancel::default()).unwrap();
    (writer, pairs)
}

#[test]
fn compacting_keeps_every_living_pair_to_the_bit_and_drops_the_dead() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, pairs) = in_pieces(dir.path(), None);
    let before = records(writer.committed());
    assert_eq!((inspect(dir.path()).unwrap().segments, before.len()), (10, 266));
    let reader = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    let mut reports: Vec<Compacting> = Vec::new();
    let done = writer.compact(&Cancel::default(), &mut |at| reports.push(at)).unwrap();
    assert_eq!((done.segments, done.dropped_rows), ([10, 1], 134));
    assert!(done.bytes[1] < done.bytes[0]);
    assert_eq!(reports.last(), Some(&Compacting { done: 266, total: 266 }));
    let pool = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
    assert_eq!((pool.status().rows, pool.status().positions, pool.progress()), (266, 266, b"mark".as_slice()));
    assert!(records(&pool) == before, "in the order they were in");
    assert!(verify(dir.path()).unwrap().is_sound());
    // The old files are gone, and a reader that has them open does not mind.
    let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".pairs")).count(), 1);
    assert!(records(&reader) == before);
    // A compact pool is left as it is.
    let again = writer.compact(&Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!((again.generation, again.segments), (done.generation, [1, 1]));
    // And goes on.
    writer.append(&[Pair { key: Key::new("new").unwrap(), ..pairs[0].clone() }]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    assert_eq!(writer.committed().status().rows, 267);
    let query = pairs[1].image.clone().unwrap();
    assert_eq!(rows(writer.committed(), &query, 1, Effort::Normal), [0]);
}

#[test]
fn segments_are_not_made_larger_than_allowed_and_empty_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, pairs) = in_pieces(dir.path(), None);
    drop(writer);
    let mut writer = PoolWriter::open(dir.path(), &spec(DIM), &WriterOptions { segment_rows: 100, ..options(None) }).unwrap();
    let doomed: Vec<Key> = pairs[40..80].iter().map(|pair| pair.key.clone()).collect();
    writer.delete(&doomed).unwrap();
    let done = writer.compact(&Cancel::default(), &mut |_| {}).unwrap();
    // 26 or 27 rows live in each of nine segments: three fit one.
    assert_eq!(done.segments, [10, 3]);
    assert_eq!(writer.committed().status().positions, writer.committed().status().rows);
    let all: Vec<Key> = pairs.iter().map(|pair| pair.key.clone()).collect();
    writer.delete(&all).unwrap();
    let done = writer.compact(&Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!((done.segments[1], writer.committed().status().positions), (0, 0));
    writer.append(&pairs[..3]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    assert_eq!(writer.committed().status().rows, 3);
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn a_cancelled_compaction_leaves_the_pool_as_it_was_and_can_be_done_later() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = in_pieces(dir.path(), None);
    let before = records(writer.committed());
    let cancel = Cancel::default();
    let raised = writer.compact(&cancel, &mut |at| {
        if at.done > 0 {
            cancel.cancel()
        }
    });
    assert!(matches!(raised, Err(StoreError::Cancelled)));
    assert!(records(&Pool::open(dir.path(), &OpenOptions::default()).unwrap()) == before);
    assert!(verify(dir.path()).unwrap().is_sound());
    assert_eq!(writer.compact(&Cancel::default(), &mut |_| {}).unwrap().segments[1], 1);
    assert!(records(writer.committed()) == before);
}

#[test]
fn commits_join_segments_as_the_policy_says_and_change_nothing_else() {
    let policy = MergePolicy { factor: 4, floor_rows: 50 };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (apart, _) = in_pieces(dirs[0].path(), None);
    let (joined, _) = in_pieces(dirs[1].path(), Some(policy));
    assert!(records(apart.committed()) == records(joined.committed()));
    let segments = inspect(dirs[1].path()).unwrap().segments;
    assert!(segments <= 4, "{segments}");
    assert_eq!(joined.committed().progress(), b"mark");
    assert!(verify(dirs[1].path()).unwrap().is_sound());
}

#[test]
fn replaced_and_deleted_rows_of_the_same_commit_are_not_joined_in() {
    let dir = tempfile::tempdir().unwrap();
    let policy = MergePolicy { factor: 2, floor_rows: 1_000 };
    let mut writer = PoolWriter::open(dir.path(), &spec(DIM), &options(Some(policy))).unwrap();
    let pairs = rich(&clustered(60, DIM, 4, 8));
    writer.append(&pairs[..40]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    let replaced: Vec<Pair> = pairs[..10]
        .iter()
        .map(|pair| Pair { content: anchorite_index::ContentHash([9; 32]), caption: Some("new".into()), ..pair.clone() })
        .collect();
    writer.upsert(&replaced).unwrap();
    writer.append(&pairs[40..]).unwrap();
    writer.delete(&[pairs[20].key.clone(), pairs[50].key.clone()]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    let info = inspect(dir.path()).unwrap();
    assert_eq!((info.segments, info.rows, info.dead_rows), (1, 58, 0));
    let keys: Vec<Key> = [0, 20, 50, 59].map(|n: usize| pairs[n].key.clone()).into();
    let found = writer.committed().find(&keys).unwrap();
    assert!(found[0].is_some() && found[1].is_none() && found[2].is_none() && found[3].is_some());
    let record = writer.committed().get(&[found[0].unwrap()], Parts::default()).unwrap().remove(0).unwrap();
    assert_eq!(record.caption.as_deref(), Some("new"));
}
