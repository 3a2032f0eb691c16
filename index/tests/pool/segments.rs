//! A pool of several segments finds what one segment finds, whether rows are spread over them or each holds a region of its own.

use crate::support::{clustered, image_pair, one_thread, spec, widened};
use anchorite_index::{
    Cancel, Effort, PairSink, PairStore, Query, Side,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};

const SEGMENTS: usize = 6;
const ROWS: usize = 2_000;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn pool(dir: &std::path::Path, rows: &[Vec<f32>]) -> Pool {
    let options = WriterOptions { merge: None, segment_rows: ROWS as u64, ..one_thread() };
    let mut writer = PoolWriter::open(dir, &spec(rows[0].len()), &options).unwrap();
    writer.append(&rows.iter().enumerate().map(|(n, v)| image_pair(n, v.clone())).collect::<Vec<_>>()).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    Pool::open(dir, &OpenOptions::default()).unwrap()
}

fn recall(pool: &Pool, queries: &[Vec<f32>], effort: Effort, k: usize) -> f64 {
    let ask = |effort| {
        let query = |v: &Vec<f32>| Query { asked: Some(Side::Image), ..Query::new(Side::Image, v.clone(), k, effort) };
        pool.search(&queries.iter().map(query).collect::<Vec<_>>(), &Cancel::default()).unwrap()
    };
    let (found, truth) = (ask(effort), ask(Effort::Exact));
    assert!(found.iter().all(|answer| answer.hits.len() == k && !answer.degraded));
    let once = |hits: &[anchorite_index::Hit]| hits.windows(2).all(|pair| pair[0].row != pair[1].row);
    assert!(found.iter().all(|answer| once(&answer.hits)), "no hit comes twice");
    let shared = found.iter().zip(&truth).map(|(f, t)| f.hits.iter().filter(|hit| t.hits.contains(hit)).count());
    shared.sum::<usize>() as f64 / (queries.len() * k) as f64
}

fn keeps_its_promises(dim: usize) {
    let all = widened(&clustered(SEGMENTS * ROWS + 200, 24, 150, 53), dim);
    let (queries, rows) = all.split_at(200);
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| dot(b, &queries[0]).total_cmp(&dot(a, &queries[0])));
    for (kind, rows) in [("spread", rows), ("by region", &sorted)] {
        let dir = tempfile::tempdir().unwrap();
        let pool = pool(dir.path(), rows);
        for (effort, promise) in [(Effort::Fast, 0.90), (Effort::Normal, 0.98), (Effort::High, 0.995)] {
            for k in [10, 60] {
                let found = recall(&pool, queries, effort, k);
                assert!(found >= promise - 0.01, "{kind}, {effort:?}, {k} hits: {found}");
            }
        }
    }
}

#[test]
fn every_effort_keeps_its_promise_over_many_segments_by_their_graphs() {
    keeps_its_promises(24);
}

#[test]
fn every_effort_keeps_its_promise_over_many_segments_by_their_sketches() {
    keeps_its_promises(256);
}
