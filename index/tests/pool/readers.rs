//! Readers beside a writer that fills, deletes, joins and compacts: everything a reader sees is of one generation.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    medium::Hooked,
    support::{clustered, image_pair, one_thread, spec},
};
use anchorite_index::{
    Cancel, Effort, Key, Pair, PairSink, PairStore, Parts, Query, RowId, Side,
    pool::{MergePolicy, OpenOptions, Pool, PoolWriter, WriterOptions},
};

const DIM: usize = 10;

/// Keys in row order, and those of an exact answer.
type Seen = (Vec<Key>, Vec<Key>);

fn look(pool: &Pool, query: &[f32]) -> Seen {
    let keys = |rows: &[RowId]| -> Vec<Key> {
        pool.get(rows, Parts::default()).unwrap().into_iter().flatten().map(|record| record.key).collect()
    };
    let all: Vec<RowId> = (0..pool.status().positions).map(RowId).collect();
    let asked = Query::new(Side::Image, query.to_vec(), 9, Effort::Exact);
    let hits: Vec<RowId> = pool.search(&[asked], &Cancel::default()).unwrap()[0].hits.iter().map(|hit| hit.row).collect();
    (keys(&all), keys(&hits))
}

/// Commits beside the readers: 60 here; a long run sets ANCHORITE_COMMITS.
fn commits() -> usize {
    std::env::var("ANCHORITE_COMMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

#[test]
fn every_answer_is_of_exactly_one_generation() {
    let dir = tempfile::tempdir().unwrap();
    let commits = commits();
    let vectors = clustered(20 + 6 * commits, DIM, 12, 3);
    let pairs: Vec<Pair> = vectors.iter().enumerate().map(|(n, v)| image_pair(n, v.clone())).collect();
    let options = WriterOptions {
        merge: Some(MergePolicy { factor: 3, floor_rows: 8 }),
        medium: Arc::new(Hooked(Arc::new(|_, _| Ok(())))),
        ..one_thread()
    };
    let mut writer = PoolWriter::open(dir.path(), &spec(DIM), &options).unwrap();
    writer.append(&pairs[..20]).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    let promised = Mutex::new(BTreeMap::from([(1, look(writer.committed(), &vectors[0]))]));
    let seen: Mutex<Vec<(u64, Seen)>> = Mutex::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Raise(&done);
            for n in 0..commits {
                writer.append(&pairs[20 + n * 6..26 + n * 6]).unwrap();
                let doomed: Vec<Key> = (0..3).map(|m| pairs[(n * 13 + m * 5) % (20 + n * 6)].key.clone()).collect();
                writer.delete(&doomed).unwrap();
                writer.commit(&Cancel::default()).unwrap();
                if n % 20 == 19 {
                    writer.compact(&Cancel::default(), &mut |_| {}).unwrap();
                }
                let generation = writer.committed().status().generation;
                promised.lock().unwrap().insert(generation, look(writer.committed(), &vectors[0]));
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut held = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
                let mut first = look(&held, &vectors[0]);
                let mut last = 0;
                while !done.load(Ordering::SeqCst) {
                    let pool = Pool::open(dir.path(), &OpenOptions::default()).unwrap();
                    let generation = pool.status().generation;
                    assert!(generation >= last && pool.damaged_manifests().is_empty());
                    last = generation;
                    let now = look(&pool, &vectors[0]);
                    seen.lock().unwrap().push((generation, now.clone()));
                    // One that was opened a while ago has not changed, though its files may be gone.
                    assert!(look(&held, &vectors[0]) == first);
                    (held, first) = (pool, now);
                }
            });
        }
    });
    let (promised, seen) = (promised.into_inner().unwrap(), seen.into_inner().unwrap());
    assert!(promised.len() == commits + 1 && !seen.is_empty());
    for (generation, seen) in seen {
        // Generations within a compaction hold what the one after it does, in the same order.
        let (_, expected) = promised.range(generation..).next().unwrap();
        assert!(seen == *expected, "generation {generation}");
    }
}

/// Raises a flag when dropped, also by a panic, so that nobody waits for ever.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
