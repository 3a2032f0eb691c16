//! The index against hnswlib, faiss, ScaNN, usearch and hnsw_rs: queries a second at equal recall, build, size, opening.
//!
//! All engines get the same vectors and are asked in interleaved rounds, one engine after the other at each beam width, so that
//! a busy minute hits all of them. Rates are queries per CPU-second of one thread (best of all rounds): on a shared machine
//! wall time says more about the neighbours. Rates at a given recall are interpolated between beam widths. A peer that cannot
//! be installed is named on stderr and left out.

use std::path::Path;

use anchorite_index::{BuildParams, Builder, Precision, Refine, pool::Access};
use anyhow::{Context, Result};

mod data;
mod dot;
mod engine;
mod extra;
mod figures;
pub(crate) mod growth;
mod hnsw_rs;
mod ours;
mod python;
mod rates;
pub(crate) mod real;
pub(crate) mod segments;

use data::Data;
use engine::{Entry, rounds};
use figures::{build_figures, search_figures};
use hnsw_rs::HnswRs;
use ours::{Ours, PAIRS, RESIDENT, SEVEN_BIT, Sides};
use python::PythonPeer;

use crate::figure::{Figure, Sheet};

const SEED: u64 = 7;
const K: usize = 10;
/// The other number of hits that is measured, and beams for it.
const MANY: usize = 100;
const MANY_EFS: [usize; 5] = [100, 128, 192, 256, 384];
const M: usize = 16;
const EF_CONSTRUCTION: usize = 100;
/// Threads that build, for every engine.
const BUILD_THREADS: usize = 2;
const ROUNDS: usize = 3;
/// Beam widths, or leaves for ScaNN.
const EFS: [usize; 14] = [10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
/// How many candidates ScaNN scores again; the best outcome counts.
const REORDER: [usize; 3] = [30, 60, 150];
/// An engine is not asked with wider beams once it finds this share.
const ENOUGH: f64 = 0.996;
const RECALLS: [f64; 3] = [0.95, 0.975, 0.99];
/// Peer, and what it needs from the package index.
const PEERS: [(&str, &str); 5] = [
    ("hnswlib", "hnswlib==0.8.0"),
    ("faiss-flat", "faiss-cpu==1.15.1"),
    ("faiss-sq8", "faiss-cpu==1.15.1"),
    ("usearch-f16", "usearch==2.26.6"),
    ("scann", "scann==1.4.2"),
];

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool, rows: Option<usize>) -> Result<Vec<Figure>> {
    let (n, asked) = if quick { (5_000, 200) } else { (rows.unwrap_or(100_000), 1_000) };
    let folder = std::path::absolute(cache)?.join(format!("index-{n}"));
    let data = Data::make(&folder, n, asked)?;
    let mut engines = engines(cache, &data)?;
    let mut sheet = Sheet::default();
    build_all(&mut engines, &data)?;
    rounds(&mut engines, &data)?;
    let about = data.about()?;
    compare(&engines, &data, &about, &mut sheet);
    extra::figures(&mut engines, &data, &about, &mut sheet)?;
    Ok(sheet.into_figures())
}

fn build_all(engines: &mut [Entry], data: &Data) -> Result<()> {
    for entry in engines {
        entry.built = entry.engine.build(data).with_context(|| format!("build {}", entry.name))?;
        progress(&format!("{}: built in {:.1} s, {:.1} CPU-s", entry.name, entry.built.wall, entry.built.cpu));
    }
    Ok(())
}

/// Every engine's costs and rates.
fn compare(engines: &[Entry], data: &Data, about: &str, sheet: &mut Sheet) {
    build_figures(engines, about, sheet);
    for (part, queries) in data.queries.iter().enumerate() {
        let about = format!("{about}, {} {} queries, k = {K}", queries.count(), queries.name);
        search_figures(engines, (part, queries), &about, sheet);
    }
}

#[expect(clippy::print_stderr, reason = "progress and single settings; the figures go to stdout")]
fn progress(line: &str) {
    eprintln!("{line}");
}

/// Every engine that can be had, ours first.
fn engines(cache: &Path, data: &Data) -> Result<Vec<Entry>> {
    let default = BuildParams { m: M, ef_construction: EF_CONSTRUCTION, ..BuildParams::default() };
    let other = if default.builder == Builder::Own { Builder::HnswRs } else { Builder::Own };
    let mut engines = Vec::new();
    for (name, build) in [
        ("anchorite".to_owned(), default),
        (format!("anchorite ({:?}, unrefined)", default.builder), BuildParams { refine: Refine::Off, ..default }),
        (format!("anchorite ({other:?})"), BuildParams { builder: other, ..default }),
        (PAIRS.to_owned(), default),
        (RESIDENT.to_owned(), default),
        (SEVEN_BIT.to_owned(), default),
    ] {
        let (built_as, build) = if name == RESIDENT { ("anchorite", None) } else { (name.as_str(), Some(build)) };
        let dir = data.folder.join(built_as.replace(|c: char| !c.is_alphanumeric(), "-"));
        let sides = if name == PAIRS { Sides::Both } else { Sides::Images };
        let access = if name == RESIDENT { Access::Resident } else { Access::System };
        let precision = if name == SEVEN_BIT { Precision::SevenBit } else { Precision::Half };
        engines.push(Entry::new(name, Ours { dir, build, sides, access, precision, pool: None }));
    }
    engines.extend(peers(cache, data));
    engines.push(Entry::new("hnsw_rs", HnswRs { index: None }));
    Ok(engines)
}

/// The Python peers that can be had.
fn peers(cache: &Path, data: &Data) -> Vec<Entry> {
    let start = |(peer, package)| match PythonPeer::start(cache, data, peer, package) {
        Ok(engine) => Some(Entry::new(peer, engine)),
        Err(error) => {
            progress(&format!("{peer} is left out: {error:#}"));
            None
        }
    };
    PEERS.into_iter().filter_map(start).collect()
}
