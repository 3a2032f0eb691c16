//! Filters during search: recall is kept at every share of matching rows, wherever they lie.

use std::{collections::BTreeMap, sync::Arc};

use crate::support::{clustered, image_pair, one_thread, spec, widened};
use anchorite_index::{
    Cancel, Effort, Filter, Pair, PairSink, PairStore, Query, Side, Value,
    pool::{OpenOptions, Pool, PoolWriter},
};

const DIM: usize = 24;
const ROWS: usize = 12_000;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Each row has a number without order, and its rank along one direction of the space, both in thousandths.
fn pool(dir: &std::path::Path, base: &[Vec<f32>], direction: &[f32]) -> Pool {
    let mut order: Vec<usize> = (0..base.len()).collect();
    order.sort_by(|&a, &b| dot(&base[b], direction).total_cmp(&dot(&base[a], direction)));
    let mut along = vec![0; base.len()];
    order.iter().enumerate().for_each(|(rank, &row)| along[row] = rank * 1_000 / base.len());
    let pair = |(n, v): (usize, &Vec<f32>)| Pair {
        fields: BTreeMap::from([
            ("random".to_owned(), Value::Int((n * 7_919 % 1_000) as i64)),
            ("along".to_owned(), Value::Int(along[n] as i64)),
        ]),
        ..image_pair(n, v.clone())
    };
    let mut writer = PoolWriter::open(dir, &spec(direction.len()), &one_thread()).unwrap();
    writer.append(&base.iter().enumerate().map(pair).collect::<Vec<_>>()).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    Pool::open(dir, &OpenOptions::default()).unwrap()
}

fn recall(pool: &Pool, queries: &[Vec<f32>], field: &str, share: usize) -> f64 {
    let filter = Filter::from_json(&format!(r#"{{"range": {{"field": "{field}", "lt": {share}}}}}"#)).unwrap();
    let filter = Some(Arc::new(filter));
    let ask = |effort| {
        let query = |v: &Vec<f32>| Query {
            asked: Some(Side::Image),
            filter: filter.clone(),
            ..Query::new(Side::Image, v.clone(), 10, effort)
        };
        pool.search(&queries.iter().map(query).collect::<Vec<_>>(), &Cancel::default()).unwrap()
    };
    let (found, truth) = (ask(Effort::Normal), ask(Effort::Exact));
    assert!(found.iter().chain(&truth).all(|answer| answer.hits.len() == 10 && !answer.degraded));
    let shared = found.iter().zip(&truth).map(|(f, t)| f.hits.iter().filter(|hit| t.hits.contains(hit)).count());
    shared.sum::<usize>() as f64 / (queries.len() * 10) as f64
}

#[test]
fn recall_is_kept_whatever_share_matches_and_wherever_it_lies() {
    shares(&clustered(ROWS + 401, DIM, 120, 41));
}

#[test]
fn recall_is_kept_where_searches_look_at_sketches() {
    shares(&widened(&clustered(ROWS + 401, DIM, 120, 41), 256));
}

fn shares(all: &[Vec<f32>]) {
    let (direction, rest) = all.split_first().unwrap();
    let (queries, base) = rest.split_at(400);
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path(), base, direction);
    let mut queries = queries.to_vec();
    queries.sort_by(|a, b| dot(b, direction).total_cmp(&dot(a, direction)));
    for share in [990, 500, 250, 100, 10, 2] {
        for (kind, field, queries) in
            [("random", "random", &queries[..]), ("near", "along", &queries[..60]), ("far", "along", &queries[340..])]
        {
            let found = recall(&pool, queries, field, share);
            assert!(found >= 0.95, "{kind}, {share} in 1,000 match: {found}");
        }
    }
}
