//! Random lives of a pool beside the plain list of what should be in it: equal after every commit, to the score and the tie.

use std::{path::Path, sync::Arc};

use crate::{
    medium::Hooked,
    support::{image_pair, one_thread, spec},
};
use anchorite_index::{
    Answer, Cancel, ContentHash, Effort, Filter, Key, Pair, PairSink, PairStore, Parts, Query, Record, RowId, Side,
    filter::Column,
    memory::MemoryStore,
    pool::{MergePolicy, OpenOptions, Pool, PoolWriter, Verify, WriterOptions},
};
use proptest::prelude::*;

const DIM: usize = 8;
const KEYS: usize = 40;

/// Unit vectors whose values f16 holds exactly, many of them equal: scores must be equal to the bit, and ties are common.
fn vector(seed: usize) -> Vec<f32> {
    let mut vector = vec![0.0; DIM];
    for place in 0..4 {
        let axis = (seed + place * (1 + seed % 2)) % DIM;
        vector[axis] = if seed >> place & 1 == 0 { 0.5 } else { -0.5 };
    }
    vector
}

fn pair(n: usize, version: u8) -> Pair {
    Pair {
        content: ContentHash([version; 32]),
        caption: Some(format!("{n} in version {version}")),
        text: (n + usize::from(version)).is_multiple_of(3).then(|| vector(n * 3)),
        picture: n.is_multiple_of(5).then(|| vec![version; 9]),
        ..image_pair(n, vector(n * 7 + usize::from(version)))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>, u8),
    Upsert(Vec<usize>, u8),
    Delete(Vec<usize>),
    DeleteWhere(String),
    Commit(u8),
    Compact,
    Reopen,
}

fn keys() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::btree_set(0..KEYS, 1..9).prop_map(|keys| keys.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (keys(), any::<u8>()).prop_map(|(keys, version)| Step::Append(keys, version)),
        3 => (keys(), 0..4u8).prop_map(|(keys, version)| Step::Upsert(keys, version)),
        2 => keys().prop_map(Step::Delete),
        1 => "[0-9]".prop_map(Step::DeleteWhere),
        4 => any::<u8>().prop_map(Step::Commit),
        1 => Just(Step::Compact),
        2 => Just(Step::Reopen),
    ]
}

fn open(dir: &Path) -> PoolWriter {
    let options = WriterOptions {
        segment_rows: 25,
        merge: Some(MergePolicy { factor: 3, floor_rows: 4 }),
        medium: Arc::new(Hooked(Arc::new(|_, _| Ok(())))),
        ..one_thread()
    };
    PoolWriter::open(dir, &spec(DIM), &options).unwrap()
}

/// Records without their row numbers, which are a generation's own.
fn contents(store: &dyn PairStore) -> Vec<Record> {
    let all: Vec<RowId> = (0..store.status().positions).map(RowId).collect();
    let records = store.get(&all, Parts { picture: true, vectors: true }).unwrap();
    records.into_iter().flatten().map(|record| Record { row: RowId(0), ..record }).collect()
}

fn answers(store: &dyn PairStore, effort: Effort) -> Vec<Vec<(Key, f32)>> {
    let query = |n: usize| Query::new(Side::Image, vector(n * 5 + 1), 7, effort);
    let found = store.search(&[0, 1, 2].map(query), &Cancel::default()).unwrap();
    let named = |answer: &Answer| {
        let rows: Vec<RowId> = answer.hits.iter().map(|hit| hit.row).collect();
        let records = store.get(&rows, Parts::default()).unwrap();
        records.into_iter().zip(&answer.hits).map(|(record, hit)| (record.unwrap().key, hit.score)).collect()
    };
    found.iter().map(named).collect()
}

fn same(pool: &Pool, model: &MemoryStore) {
    assert_eq!(contents(pool), contents(model));
    let (a, b) = (pool.status(), model.status());
    assert_eq!(
        (a.rows, a.image_rows, a.text_rows, pool.progress()),
        (b.rows, b.image_rows, b.text_rows, model.committed_progress())
    );
    assert_eq!(answers(pool, Effort::Exact), answers(model, Effort::Exact));
    assert_eq!(answers(pool, Effort::Fast), answers(model, Effort::Exact), "so few rows are compared one by one");
    let all: Vec<Key> = (0..KEYS).map(|n| pair(n, 0).key).collect();
    let there = |store: &dyn PairStore| store.find(&all).unwrap().iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(there(pool), there(model));
}

fn live(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut model = MemoryStore::new(spec(DIM));
    let mut writer = Some(open(dir.path()));
    let go = Cancel::default();
    for step in steps {
        let sink = writer.as_mut().unwrap();
        match step {
            Step::Append(keys, version) => {
                let batch: Vec<Pair> = keys.iter().map(|n| pair(*n, *version)).collect();
                assert_eq!(sink.append(&batch).is_ok(), model.append(&batch).is_ok());
            }
            Step::Upsert(keys, version) => {
                let batch: Vec<Pair> = keys.iter().map(|n| pair(*n, *version)).collect();
                assert_eq!(sink.upsert(&batch).unwrap(), model.upsert(&batch).unwrap());
            }
            Step::Delete(keys) => {
                let doomed: Vec<Key> = keys.iter().map(|n| pair(*n, 0).key).collect();
                assert_eq!(sink.delete(&doomed).unwrap(), model.delete(&doomed).unwrap());
            }
            Step::DeleteWhere(start) => {
                let filter = Filter::Prefix { field: Column::Caption, start: start.clone() };
                // Rows are gone or there alike; only a store without any pair may refuse or not.
                let deleted = sink.delete_where(&filter, &go).unwrap_or(0);
                assert_eq!(deleted, model.delete_where(&filter, &go).unwrap_or(0));
            }
            Step::Commit(mark) => {
                sink.commit_with(&[*mark], &go).unwrap();
                model.commit_with(&[*mark], &go).unwrap();
                same(sink.committed(), &model);
            }
            Step::Compact => {
                sink.compact(&go, &mut |_| {}).unwrap();
                model.commit(&go).unwrap();
                same(sink.committed(), &model);
                assert_eq!(sink.committed().status().rows, sink.committed().status().positions);
            }
            Step::Reopen => {
                // What was not committed is gone.
                drop(writer.take());
                model.roll_back();
                let options = OpenOptions { verify: Verify::Full, ..OpenOptions::default() };
                same(&Pool::open(dir.path(), &options).unwrap(), &model);
                writer = Some(open(dir.path()));
            }
        }
    }
}

/// Cases in CI: 256; a long run sets PROPTEST_CASES.
fn cases() -> ProptestConfig {
    let named = std::env::var("PROPTEST_CASES").is_ok();
    if named { ProptestConfig::default() } else { ProptestConfig::with_cases(256) }
}

/// Most steps of a life: 30 here; a long run sets ANCHORITE_MODEL_STEPS.
fn most_steps() -> usize {
    std::env::var("ANCHORITE_MODEL_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_pool_holds_what_a_plain_list_would(steps in prop::collection::vec(step(), 1..=most_steps())) {
        live(&steps);
    }
}
