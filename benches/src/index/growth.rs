//! Queries a second as a pool grows, beside hnswlib on the same rows.
//!
//! ```text
//!   each size: the same world, more rows ──both engines, interleaved──► rate at equal recall ──line through logarithms──► exponent
//!   the largest size: more peers, and what building, storing and opening cost
//! ```

use std::path::Path;

use anchorite_index::{BuildParams, Precision, pool::Access};
use anyhow::{Result, ensure};

use super::{
    EF_CONSTRUCTION, M, PEERS, SEED, build_all, compare,
    data::Data,
    engine::{Entry, rounds},
    ours::{Ours, RESIDENT, Sides},
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

/// The part without peers: our two ways to read the same pools.
const OWN: &str = "own";

/// All figures of this benchmark, or those of the part [`OWN`].
pub(crate) fn run(cache: &Path, quick: bool, part: Option<&str>) -> Result<Vec<Figure>> {
    ensure!(part.is_none_or(|part| part == OWN), "growth has one part: {OWN}");
    let (every, at_largest) = if part.is_some() { (&[][..], &[][..]) } else { (EVERY_SIZE, LARGEST) };
    let (sizes, asked) = if quick { (QUICK_SIZES, 200) } else { (SIZES, 1_000) };
    let folder = std::path::absolute(cache)?;
    let mut sheet = Sheet::default();
    // By engine, recall and modality: logarithms of rows and rate.
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for n in sizes {
        let data = Data::without_texts(&folder.join(format!("growth-{n}")), n, asked)?;
        let largest = n == sizes[sizes.len() - 1];
        let mut engines = engines(cache, &data, if largest { at_largest } else { every })?;
        build_all(&mut engines, &data)?;
        rounds(&mut engines, &data)?;
        grown(&engines, &data, &mut sheet, &mut lines)?;
        if largest && part.is_none() {
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

/// Ours first, then the named ones of [`PEERS`], then ours in memory of its own: pages of a mapped file are small.
fn engines(cache: &Path, data: &Data, named: &[&str]) -> Result<Vec<Entry>> {
    let peers = PEERS.iter().filter(|(name, _)| named.contains(name));
    let started = peers.map(|&(name, package)| Ok(Entry::new(name, PythonPeer::start(cache, data, name, package)?)));
    let build = BuildParams { m: M, ef_construction: EF_CONSTRUCTION, ..BuildParams::default() };
    let own = |name, build, access| std::iter::once(Ok(ours(data, name, build, access)));
    // The peer that all sizes have comes second: it is what `grown` compares with.
    own("anchorite", Some(build), Access::System).chain(started).chain(own(RESIDENT, None, Access::Resident)).collect()
}

fn ours(data: &Data, name: &str, build: Option<BuildParams>, access: Access) -> Entry {
    let dir = data.folder.join("anchorite");
    Entry::new(name, Ours { dir, build, sides: Sides::Images, access, precision: Precision::Half, pool: None })
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
            if let [Some(own), Some(peer), _, ..] = rates[..] {
                let name = format!("queries per CPU-second at recall {recall}, {} queries", queries.name);
                sheet.add(Figure::new(name, own, "1/s", &about).seed(SEED).against("hnswlib", peer));
            }
            if let (Some(own), Some(Some(resident))) = (rates[0], rates.last()) {
                let name = format!("{RESIDENT}: queries per CPU-second at recall {recall}, {} queries", queries.name);
                sheet.add(Figure::new(name, *resident, "1/s", &about).seed(SEED).against("anchorite", own));
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
