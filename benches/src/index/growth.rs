//! Queries a second as a pool grows, beside hnswlib on the same rows, and what many segments cost.
//!
//! ```text
//!   each size: the same world, more rows ──both engines, interleaved──► rate at equal recall ──line through logarithms──► exponent
//!   the largest size: more peers, and what building, storing and opening cost
//!   one size: the same rows in one and in eight segments, asked at an effort ──► recall and rate of each
//! ```

use std::path::Path;

use anchorite_index::{
    Cancel, Effort, PairStore, Query, Side,
    pool::{OpenOptions, Pool, WriterOptions},
};
use anyhow::{Context, Result};

use super::{
    Data, EF_CONSTRUCTION, Entry, K, M, Ours, PEERS, PythonPeer, Queries, ROUNDS, SEED, Sides, Spent, build_figures, progress,
    rate_at, rounds, search_figures,
};
use crate::{
    clip_like::DIM,
    demo::fill,
    figure::{Figure, Sheet},
    process,
};

/// Rows. A million is what one segment holds at most.
const SIZES: [usize; 3] = [100_000, 300_000, 1_000_000];
const QUICK_SIZES: [usize; 3] = [2_000, 4_000, 8_000];
/// Of the peers, those that the smaller sizes are compared with, and those that join at the largest: what memory of 24 GiB holds at once.
const EVERY_SIZE: &[&str] = &["hnswlib"];
const LARGEST: &[&str] = &["hnswlib", "faiss-flat", "scann"];
/// Recalls that rates are compared at.
const RECALLS: [f64; 2] = [0.95, 0.99];
/// Segments that the rows of one are spread over.
const SEGMENTS: usize = 8;

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let (sizes, asked) = if quick { (QUICK_SIZES, 200) } else { (SIZES, 1_000) };
    let folder = std::path::absolute(cache)?;
    let mut sheet = Sheet::default();
    // By engine, recall and modality: logarithms of rows and rate.
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for n in sizes {
        let data = Data::without_texts(&folder.join(format!("growth-{n}")), n, asked)?;
        if n == sizes[0] {
            segments(&data, &mut sheet)?;
        }
        let largest = n == sizes[sizes.len() - 1];
        let mut engines = engines(cache, &data, if largest { LARGEST } else { EVERY_SIZE })?;
        for entry in &mut engines {
            entry.built = entry.engine.build(&data).with_context(|| format!("build {}", entry.name))?;
            progress(&format!("{n} rows, {}: built in {:.1} s", entry.name, entry.built.wall));
        }
        rounds(&mut engines, &data)?;
        compare(&engines, &data, &mut sheet, &mut lines)?;
        if largest {
            wide_figures(&engines, &data, &mut sheet)?;
        }
        drop(engines);
        std::fs::remove_dir_all(&data.folder)?;
    }
    for (name, points) in &lines {
        let about = format!("{} to {} x {DIM} CLIP-like", sizes[0], sizes[sizes.len() - 1]);
        if let Some(slope) = slope(points) {
            sheet.add(Figure::new(format!("{name}: exponent of queries per CPU-second over rows"), slope, "", about).seed(SEED));
        }
    }
    Ok(sheet.into_figures())
}

/// Ours first, then the named ones of [`PEERS`].
fn engines(cache: &Path, data: &Data, named: &[&str]) -> Result<Vec<Entry>> {
    let peers = PEERS.iter().filter(|(name, _)| named.contains(name));
    let started = peers.map(|&(name, package)| Ok(Entry::new(name, PythonPeer::start(cache, data, name, package)?)));
    std::iter::once(Ok(ours(data))).chain(started).collect()
}

/// Every engine's rates and costs, by the goals of the smaller benchmark.
fn wide_figures(engines: &[Entry], data: &Data, sheet: &mut Sheet) -> Result<()> {
    let about = format!("{} x {DIM} CLIP-like, load average {}", data.base.len() / DIM, process::load()?);
    build_figures(engines, &about, sheet);
    for (part, queries) in data.queries.iter().enumerate() {
        search_figures(engines, part, &format!("{about}, {} {} queries, k = {K}", queries.count(), queries.name), sheet);
    }
    Ok(())
}

fn ours(data: &Data) -> Entry {
    let build = anchorite_index::BuildParams { m: M, ef_construction: EF_CONSTRUCTION, ..Default::default() };
    Entry::new("anchorite", Ours { dir: data.folder.join("anchorite"), build, sides: Sides::Images, pool: None })
}

/// Rates of both engines at each recall; also as points of lines, by name.
fn compare(engines: &[Entry], data: &Data, sheet: &mut Sheet, lines: &mut Vec<(String, Vec<(f64, f64)>)>) -> Result<()> {
    let n = data.base.len() / DIM;
    let about = format!("{n} x {DIM} CLIP-like, load average {}", process::load()?);
    for (part, queries) in data.queries.iter().enumerate() {
        for recall in RECALLS {
            let rates: Vec<Option<f64>> = engines.iter().map(|entry| rate_at(&entry.front(part), recall)).collect();
            for (entry, rate) in engines.iter().zip(&rates) {
                let Some(rate) = rate else { continue };
                let name = format!("{}, {} queries at recall {recall}", entry.name, queries.name);
                let point = ((n as f64).ln(), rate.ln());
                match lines.iter_mut().find(|line| line.0 == name) {
                    Some((_, points)) => points.push(point),
                    None => lines.push((name, vec![point])),
                }
            }
            if let [Some(own), Some(peer)] = rates[..2] {
                let name = format!("queries per CPU-second at recall {recall}, {} queries", queries.name);
                sheet.add(Figure::new(name, own, "1/s", &about).seed(SEED).against("hnswlib", peer));
            }
        }
    }
    Ok(())
}

/// Of the line nearest to the points; none through fewer than two.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    (points.len() > 1).then(|| points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread)
}

/// The same rows in one segment and in [`SEGMENTS`], in order of arrival.
fn segments(data: &Data, sheet: &mut Sheet) -> Result<()> {
    let n = data.base.len() / DIM;
    let pools = [1, SEGMENTS].map(|count| -> Result<Pool> {
        let dir = data.folder.join(format!("in-{count}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let options = WriterOptions { segment_rows: n.div_ceil(count) as u64, merge: None, ..WriterOptions::default() };
        fill(&dir, &data.base, &[], &options)?;
        Ok(Pool::open(&dir, &OpenOptions::default())?)
    });
    let [one, many] = pools;
    let (one, many) = (one?, many?);
    for (queries, side) in data.queries.iter().zip([Side::Image, Side::Text]) {
        for effort in [Effort::Fast, Effort::Normal, Effort::High] {
            let mut best = [0f64; 2];
            let mut recalls = [0f64; 2];
            for _ in 0..ROUNDS {
                for ((pool, best), recall) in [&one, &many].into_iter().zip(&mut best).zip(&mut recalls) {
                    let (share, rate) = ask(pool, queries, (side, effort))?;
                    (*recall, *best) = (share, best.max(rate));
                }
            }
            let about = format!("{n} x {DIM} CLIP-like, {} queries", queries.name);
            let what = format!("{effort:?}, {SEGMENTS} segments");
            let recall = Figure::new(format!("recall@10, {what}"), recalls[1], "", &about);
            sheet.add(recall.against("one segment", recalls[0]).seed(SEED));
            let rate = Figure::new(format!("queries per CPU-second, {what}"), best[1], "1/s", about);
            sheet.add(rate.against("one segment", best[0]).seed(SEED));
        }
    }
    Ok(())
}

/// Recall and queries per CPU-second of one thread.
fn ask(pool: &Pool, queries: &Queries, (side, effort): (Side, Effort)) -> Result<(f64, f64)> {
    let query = |v: &[f32]| Query { asked: Some(side), ..Query::new(Side::Image, v.to_vec(), K, effort) };
    let questions: Vec<Query> = queries.vectors.chunks_exact(DIM).map(query).collect();
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let (answers, spent) = Spent::on(|| Ok(alone.install(|| pool.search(&questions, &Cancel::default()))?))?;
    let found: Vec<Vec<u64>> = answers.into_iter().map(|a| a.hits.into_iter().map(|h| h.row.0).collect()).collect();
    Ok((queries.recall(&found, K), queries.count() as f64 / spent.cpu.as_secs_f64().max(1e-9)))
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_rate_that_halves_with_ten_times_the_rows_has_its_exponent() {
        let points: Vec<(f64, f64)> = (0..3).map(|i| (10f64.powi(i).ln(), 0.5f64.powi(i).ln())).collect();
        assert!((slope(&points).unwrap() + 2f64.log10()).abs() < 1e-12);
        assert_eq!(slope(&points[..1]), None);
    }
}
