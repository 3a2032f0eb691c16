//! Filtered search: recall@10 and latency at each selectivity, with filters that know nothing of the query, and with filters whose
//! pairs lie around the query or away from it.
//!
//! Every pair has a random number and its place in the order along one direction of the space. A filter on the former is
//! independent of any query. A filter on the latter picks a region; queries are the tenth that point into it most (near) or least
//! (far). The truth is the exact search with the same filter. Times are CPU time of this thread, since the machine may be busy.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anchorite_index::{
    Cancel, ContentHash, Effort, Filter, Key, Pair, PairSink, PairStore, Query, RowId, Side, SourceRef, Spec, Value,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    clip_like::{DIM, World},
    figure::{Figure, Sheet},
    process,
};

const SEED: u64 = 7;
const K: usize = 10;
/// Matching pairs in 1,000.
const SHARES: [usize; 7] = [990, 500, 200, 100, 30, 10, 1];
/// Those that the goal is stated for.
const STATED: [usize; 4] = [500, 100, 10, 1];
/// Values of each field.
const STEPS: usize = 1_000;

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let (n, asked) = if quick { (20_000, 2_000) } else { (100_000, 5_000) };
    let world = World::new(SEED);
    let base = world.images(n, 1);
    let direction = &world.images(1, 9);
    let dir = std::path::absolute(cache)?.join(format!("filters-{n}"));
    let pool = pool(&dir, &base, direction)?;
    let mut sheet = Sheet::default();
    for (name, vectors) in [("image", world.images(asked, 2)), ("text", world.texts(asked, 3))] {
        let questions = questions(&vectors, direction);
        for (kind, field, questions) in
            [("random", "random", &questions.any), ("near", "along", &questions.near), ("far", "along", &questions.far)]
        {
            for share in SHARES {
                let data = format!("{n} x {DIM} CLIP-like, {name} queries, {kind} filter, {} queries", questions.len());
                measure(&pool, (field, share), questions, &data, &mut sheet)?;
            }
        }
    }
    Ok(sheet.into_figures())
}

struct Questions {
    any: Vec<Vec<f32>>,
    near: Vec<Vec<f32>>,
    far: Vec<Vec<f32>>,
}

fn questions(vectors: &[f32], direction: &[f32]) -> Questions {
    let mut all: Vec<Vec<f32>> = vectors.chunks_exact(DIM).map(<[f32]>::to_vec).collect();
    let tenth = all.len() / 10;
    let any = all[..tenth].to_vec();
    all.sort_by(|a, b| dot(b, direction).total_cmp(&dot(a, direction)));
    Questions { any, near: all[..tenth].to_vec(), far: all[all.len() - tenth..].to_vec() }
}

/// The pool, made once.
fn pool(dir: &Path, base: &[f32], direction: &[f32]) -> Result<Pool> {
    if let Ok(pool) = Pool::open(dir, &OpenOptions::default())
        && pool.status().rows == (base.len() / DIM) as u64
    {
        return Ok(pool);
    }
    let n = base.len() / DIM;
    let mut order: Vec<usize> = (0..n).collect();
    let along: Vec<f32> = base.chunks_exact(DIM).map(|row| dot(row, direction)).collect();
    order.sort_by(|&a, &b| along[b].total_cmp(&along[a]));
    let mut place = vec![0; n];
    order.iter().enumerate().for_each(|(rank, &row)| place[row] = rank * STEPS / n);
    let spec = Spec { encoder: "benches".to_owned(), dim: DIM };
    std::fs::create_dir_all(dir)?;
    let mut writer = PoolWriter::open(dir, &spec, &WriterOptions::default())?;
    for (row, vector) in base.chunks_exact(DIM).enumerate() {
        writer.append(&[pair(row, vector, place[row])?])?;
    }
    writer.commit(&Cancel::default())?;
    Ok(Pool::open(dir, &OpenOptions::default())?)
}

fn pair(row: usize, vector: &[f32], place: usize) -> Result<Pair> {
    // Fibonacci hashing: every value as often as any other, in no order.
    let random = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let random = (random * STEPS as u64) >> 32;
    let fields = [("random", random as i64), ("along", place as i64), ("width", (row % 4_000) as i64)];
    Ok(Pair {
        key: Key::new(format!("row-{row}"))?,
        source: SourceRef { file: "clip-like".to_owned(), row: row as u64 },
        content: ContentHash([0; 32]),
        image: Some(vector.to_vec()),
        text: None,
        caption: Some(format!("the caption of row {row}, about as long as captions are")),
        fields: BTreeMap::from(fields.map(|(name, value)| (name.to_owned(), Value::Int(value)))),
        picture: None,
    })
}

fn measure(pool: &Pool, (field, share): (&str, usize), questions: &[Vec<f32>], data: &str, sheet: &mut Sheet) -> Result<()> {
    let filter: Filter = json!({ "range": { "field": field, "lt": share } }).try_into()?;
    let filter = Arc::new(filter);
    let start = Instant::now();
    let (truth, exact) = ask(pool, questions, &filter, Effort::Exact)?;
    let first = start.elapsed();
    let percent = share as f64 / 10.0;
    for effort in [Effort::Fast, Effort::Normal, Effort::High] {
        let (found, took) = ask(pool, questions, &filter, effort)?;
        let name = format!("recall@10, {effort:?}, {percent} % of pairs match");
        let recall = Figure::new(name, overlap(&found, &truth), "", data).against("exact", 1.0);
        let met = recall.value >= 0.95;
        sheet.add(if effort == Effort::Normal && STATED.contains(&share) { recall.goal("0.95", met) } else { recall });
        let name = format!("CPU time a query, {effort:?}, {percent} % of pairs match");
        sheet.add(Figure::new(name, micros(took, questions.len()), "us", data).against("exact", micros(exact, questions.len())));
    }
    let _ = first;
    Ok(())
}

fn micros(took: Duration, questions: usize) -> f64 {
    took.as_secs_f64() * 1e6 / questions as f64
}

/// The rows found for each question, asked one at a time on this thread, and the CPU time of the best of three rounds.
fn ask(pool: &Pool, questions: &[Vec<f32>], filter: &Arc<Filter>, effort: Effort) -> Result<(Vec<Vec<RowId>>, Duration)> {
    let cancel = Cancel::default();
    let query = |v: &Vec<f32>| Query { filter: Some(Arc::clone(filter)), ..Query::new(Side::Image, v.clone(), K, effort) };
    let queries: Vec<Query> = questions.iter().map(query).collect();
    // Evaluates the filter, which is kept.
    pool.search(&queries[..1], &cancel)?;
    let mut rows = Vec::new();
    let mut best = Duration::MAX;
    for _ in 0..if effort == Effort::Exact { 1 } else { 3 } {
        rows.clear();
        let before = process::process_cpu();
        for query in &queries {
            let answer = pool.search(std::slice::from_ref(query), &cancel)?.pop().context("one query has one answer")?;
            rows.push(answer.hits.iter().map(|h| h.row).collect());
        }
        best = best.min(process::process_cpu() - before);
    }
    Ok((rows, best))
}

fn overlap(found: &[Vec<RowId>], exact: &[Vec<RowId>]) -> f64 {
    let shared = found.iter().zip(exact).map(|(f, e)| f.iter().filter(|row| e.contains(row)).count()).sum::<usize>();
    shared as f64 / exact.iter().map(Vec::len).sum::<usize>().max(1) as f64
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
