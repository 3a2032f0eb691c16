//! Queries a second as a pool grows, beside hnswlib on the same rows.
//!
//! ```text
//!   each size: the same world, more rows ──both engines, interleaved──► rate at equal recall ──line through logarithms──► exponent
//!   the largest size: more peers, and what building, storing and opening cost
//! ```

use std::path::Path;

use anyhow::Result;

use super::{
    EF_CONSTRUCTION, M, PEERS, SEED, build_all, compare,
    data::Data,
    engine::{Entry, rounds},
    ours::{Ours, Sides},
    python::PythonPeer,
    rates::rate_at,
};
use crate::{
    clip_like::DIM,
    figure::{Figure, Sheet},
};

/// Rows. A million is what one segment holds at most.
const SIZES: [usize; 3] = [100_000, 300_000, 1_000_000];
const QUICK_SIZES: [usize; 3] = [2_000, 4_000, 8_000];
/// Of the peers, those that the smaller sizes are compared with, and those that join at the largest: what memory of 24 GiB holds at once.
const EVERY_SIZE: &[&str] = &["hnswlib"];
const LARGEST: &[&str] = &["hnswlib", "faiss-flat", "scann"];
/// Recalls that rates are compared at.
const RECALLS: [f64; 2] = [0.95, 0.99];

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let (sizes, asked) = if quick { (QUICK_SIZES, 200) } else { (SIZES, 1_000) };
    let folder = std::path::absolute(cache)?;
    let mut sheet = Sheet::default();
    // By engine, recall and modality: logarithms of rows and rate.
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for n in sizes {
        let data = Data::without_texts(&folder.join(format!("growth-{n}")), n, asked)?;
        let largest = n == sizes[sizes.len() - 1];
        let mut engines = engines(cache, &data, if largest { LARGEST } else { EVERY_SIZE })?;
        build_all(&mut engines, &data)?;
        rounds(&mut engines, &data)?;
        grown(&engines, &data, &mut sheet, &mut lines)?;
        if largest {
            compare(&engines, &data, &data.about()?, &mut sheet);
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

fn ours(data: &Data) -> Entry {
    let build = anchorite_index::BuildParams { m: M, ef_construction: EF_CONSTRUCTION, ..Default::default() };
    Entry::new("anchorite", Ours { dir: data.folder.join("anchorite"), build, sides: Sides::Images, pool: None })
}

/// Rates of both engines at each recall; also as points of lines, by name.
fn grown(engines: &[Entry], data: &Data, sheet: &mut Sheet, lines: &mut Vec<(String, Vec<(f64, f64)>)>) -> Result<()> {
    let n = data.rows();
    let about = data.about()?;
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
