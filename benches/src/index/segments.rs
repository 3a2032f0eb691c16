//! What many segments cost: the same rows in one, eight and sixteen, asked at each effort.
//!
//! Rows lie in order of arrival, so that each segment holds a sample of all: the common case of a pool that grew.

use anchorite_index::{
    Cancel, Effort, PairStore, Query, Side,
    pool::{OpenOptions, Pool, WriterOptions},
};
use anyhow::Result;
use std::path::Path;

use super::{
    K, SEED,
    data::{Data, Queries},
    engine::Spent,
};
use crate::{
    demo::fill,
    figure::{Figure, Sheet},
};

const ROWS: usize = 100_000;
const QUICK_ROWS: usize = 20_000;
/// Segments; one is what the others are compared with. 8 is what a class holds before it is joined; a pool of 100,000 rows that came in
/// small commits has up to 16.
const COUNTS: [usize; 3] = [1, 8, 16];
/// Rounds over all pools and efforts; the best counts.
const ROUNDS: usize = 5;

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let (n, asked) = if quick { (QUICK_ROWS, 200) } else { (ROWS, 1_000) };
    let data = Data::without_texts(&std::path::absolute(cache)?.join(format!("segments-{n}")), n, asked)?;
    let pools = COUNTS.iter().map(|&count| pool(&data, count)).collect::<Result<Vec<_>>>()?;
    let mut sheet = Sheet::default();
    for (queries, side) in data.queries.iter().zip([Side::Image, Side::Text]) {
        for effort in [Effort::Fast, Effort::Normal, Effort::High] {
            figures(&pools, queries, (side, effort), &data.about()?, &mut sheet)?;
        }
    }
    drop(pools);
    std::fs::remove_dir_all(&data.folder)?;
    Ok(sheet.into_figures())
}

fn pool(data: &Data, count: usize) -> Result<Pool> {
    let dir = data.folder.join(format!("in-{count}"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let options = WriterOptions { segment_rows: data.rows().div_ceil(count) as u64, merge: None, ..WriterOptions::default() };
    fill(&dir, data.dim, &data.base, &[], &options)?;
    Ok(Pool::open(&dir, &OpenOptions::default())?)
}

fn figures(pools: &[Pool], queries: &Queries, asked: (Side, Effort), about: &str, sheet: &mut Sheet) -> Result<()> {
    // Recall and best rate, by pool; the pools in turns.
    let mut reached = vec![(0.0, 0f64); pools.len()];
    for _ in 0..ROUNDS {
        for (pool, reached) in pools.iter().zip(&mut reached) {
            let (recall, rate) = ask(pool, queries, asked)?;
            *reached = (recall, reached.1.max(rate));
        }
    }
    let about = format!("{about}, {} {} queries, k = {K}", queries.count(), queries.name);
    for (count, reached_by) in COUNTS.iter().zip(&reached).skip(1) {
        let what = format!("{:?}, {count} segments", asked.1);
        let recall = Figure::new(format!("recall@10, {what}"), reached_by.0, "", &about);
        sheet.add(recall.against("one segment", reached[0].0).seed(SEED));
        let rate = Figure::new(format!("queries per CPU-second, {what}"), reached_by.1, "1/s", &about);
        sheet.add(rate.against("one segment", reached[0].1).seed(SEED));
    }
    Ok(())
}

/// Recall and queries per CPU-second of one thread.
fn ask(pool: &Pool, queries: &Queries, (side, effort): (Side, Effort)) -> Result<(f64, f64)> {
    let query = |v: &[f32]| Query { asked: Some(side), ..Query::new(Side::Image, v.to_vec(), K, effort) };
    let questions: Vec<Query> = queries.each().map(query).collect();
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let (answers, spent) = Spent::on(|| Ok(alone.install(|| pool.search(&questions, &Cancel::default()))?))?;
    let found: Vec<Vec<u64>> = answers.into_iter().map(|a| a.hits.into_iter().map(|h| h.row.0).collect()).collect();
    Ok((queries.recall(&found, K), queries.count() as f64 / spent.cpu.as_secs_f64().max(1e-9)))
}
