//! The index against hnswlib, faiss, ScaNN, usearch and hnsw_rs: queries a second at equal recall, build, size, opening.
//!
//! All engines get the same vectors and are asked in interleaved rounds, one engine after the other at each beam width, so that
//! a busy minute hits all of them. Rates are queries per CPU-second of one thread (best of all rounds): on a shared machine
//! wall time says more about the neighbours. Rates at a given recall are interpolated between beam widths. A peer that cannot
//! be installed is named on stderr and left out.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout},
    time::{Duration, Instant},
};

use anchorite_index::{
    BuildParams, Builder, Cancel, Effort, Query, Refine, Side,
    pool::{OpenOptions, Pool, WriterOptions},
};
use anyhow::{Context, Result, ensure};
use hnsw_rs::prelude::{Distance, Hnsw};
use rayon::prelude::*;
use serde_json::{Value, json};

mod extra;
pub(crate) mod growth;

use crate::{
    clip_like::{DIM, World},
    demo::fill,
    figure::{Figure, Sheet},
    peers::Python,
    process,
};

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
    for entry in &mut engines {
        entry.built = entry.engine.build(&data).with_context(|| format!("build {}", entry.name))?;
        progress(&format!("{}: built in {:.1} s, {:.1} CPU-s", entry.name, entry.built.wall, entry.built.cpu));
    }
    rounds(&mut engines, &data)?;
    let about = format!("{n} x {DIM} CLIP-like, load average {}", process::load()?);
    build_figures(&engines, &about, &mut sheet);
    for (part, queries) in data.queries.iter().enumerate() {
        search_figures(&engines, part, &format!("{about}, {} {} queries, k = {K}", queries.count(), queries.name), &mut sheet);
    }
    extra::figures(&mut engines, &data, &about, &mut sheet)?;
    Ok(sheet.into_figures())
}

/// Queries of one modality and their exact answers.
struct Queries {
    name: &'static str,
    vectors: Vec<f32>,
    truth: Vec<Vec<u64>>,
}

impl Queries {
    fn count(&self) -> usize {
        self.truth.len()
    }

    /// Share of the exact `k` nearest that was found.
    fn recall(&self, found: &[Vec<u64>], k: usize) -> f64 {
        let shared = |(found, truth): (&Vec<u64>, &Vec<u64>)| found.iter().filter(|row| truth[..k].contains(row)).count();
        found.iter().zip(&self.truth).map(shared).sum::<usize>() as f64 / (self.truth.len() * k) as f64
    }
}

/// What every engine gets.
struct Data {
    folder: PathBuf,
    base: Vec<f32>,
    /// As many texts: the other side of the pairs, which some pools get.
    texts: Vec<f32>,
    queries: [Queries; 2],
}

impl Data {
    fn make(folder: &Path, n: usize, asked: usize) -> Result<Self> {
        Ok(Self { texts: World::new(SEED).texts(n, 4), ..Self::without_texts(folder, n, asked)? })
    }

    /// For pools of pictures alone.
    fn without_texts(folder: &Path, n: usize, asked: usize) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let world = World::new(SEED);
        let base = world.images(n, 1);
        let queries = [("image", world.images(asked, 2)), ("text", world.texts(asked, 3))].map(|(name, vectors)| {
            let truth = vectors.par_chunks_exact(DIM).map(|query| exact(&base, query)).collect();
            Queries { name, vectors, truth }
        });
        let parts = [("base", &base), ("image", &queries[0].vectors), ("text", &queries[1].vectors)];
        for (name, values) in parts {
            let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join(format!("{name}.f32")))?);
            values.iter().try_for_each(|v| file.write_all(&v.to_le_bytes()))?;
            file.flush()?;
        }
        Ok(Self { folder: folder.to_owned(), base, texts: Vec::new(), queries })
    }
}

/// The [`MANY`] rows of the largest dot product in f32, largest first.
fn exact(base: &[f32], query: &[f32]) -> Vec<u64> {
    let mut scored: Vec<(f32, u64)> = base.chunks_exact(DIM).map(|row| dot(row, query)).zip(0..).collect();
    let order = |a: &(f32, u64), b: &(f32, u64)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    scored.select_nth_unstable_by(MANY - 1, order);
    scored.truncate(MANY);
    scored.sort_unstable_by(order);
    // Not `into_iter`: collecting in place would keep the memory of all rows, 16 MB a query at a million.
    scored.iter().map(|&(_, row)| row).collect()
}

/// What a build cost.
#[derive(Clone, Debug, Default)]
struct BuildCost {
    wall: f64,
    cpu: f64,
    /// Bytes, 0 where the engine was not stored.
    disk: f64,
    /// Seconds, 0 where the engine was not stored.
    open: f64,
    version: String,
}

/// One measured setting.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    recall: f64,
    /// Queries per CPU-second.
    rate: f64,
}

trait Engine {
    fn build(&mut self, data: &Data) -> Result<BuildCost>;
    /// Rows per query, and the time all of them took.
    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)>;
    /// Seconds of each query asked alone; empty where a call costs more than a query.
    fn latencies(&mut self, _queries: &Queries, _asked: Asked) -> Result<Vec<f64>> {
        Ok(Vec::new())
    }
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    ef: usize,
    /// Candidates that ScaNN scores again.
    reorder: usize,
    k: usize,
    threads: usize,
}

/// What a search took.
#[derive(Clone, Copy, Debug)]
struct Spent {
    /// Processor time of all threads.
    cpu: Duration,
    wall: Duration,
}

impl Spent {
    /// Times `work`; with the clock of all threads, since an engine may use some that outlive it.
    fn on<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Self)> {
        let (start, before) = (Instant::now(), process::process_cpu());
        let out = work()?;
        Ok((out, Self { cpu: process::process_cpu() - before, wall: start.elapsed() }))
    }
}

/// An engine and what it reached.
struct Entry {
    name: String,
    engine: Box<dyn Engine>,
    built: BuildCost,
    /// Second settings to try beside the beam width.
    reorder: &'static [usize],
    /// By modality; best rate of all rounds per setting.
    points: [Vec<((usize, usize), Point)>; 2],
}

impl Entry {
    fn new(name: impl Into<String>, engine: impl Engine + 'static) -> Self {
        let (name, built) = (name.into(), BuildCost::default());
        let reorder: &[usize] = if name == "scann" { &REORDER } else { &[0] };
        Self { name, engine: Box::new(engine), built, reorder, points: Default::default() }
    }

    fn measure(&mut self, part: usize, queries: &Queries, ef: usize) -> Result<()> {
        for &reorder in self.reorder {
            let earlier = |(at, p): &&((usize, usize), Point)| at.1 == reorder && at.0 < ef && p.recall >= ENOUGH;
            if self.points[part].iter().any(|p| earlier(&p)) {
                continue;
            }
            let (found, spent) = self.engine.search(queries, Asked { ef, reorder, k: K, threads: 1 })?;
            let rate = queries.count() as f64 / spent.cpu.as_secs_f64().max(1e-9);
            let point = Point { recall: queries.recall(&found, K), rate };
            match self.points[part].iter_mut().find(|(at, _)| *at == (ef, reorder)) {
                Some((_, best)) => best.rate = best.rate.max(point.rate),
                None => self.points[part].push(((ef, reorder), point)),
            }
        }
        Ok(())
    }

    fn front(&self, part: usize) -> Vec<Point> {
        front(self.points[part].iter().map(|(_, point)| *point).collect())
    }
}

fn rounds(engines: &mut [Entry], data: &Data) -> Result<()> {
    for round in 0..ROUNDS {
        for (part, queries) in data.queries.iter().enumerate() {
            for ef in EFS {
                for entry in &mut *engines {
                    entry.measure(part, queries, ef).with_context(|| format!("search {}", entry.name))?;
                }
            }
        }
        progress(&format!("round {} of {ROUNDS} done", round + 1));
    }
    for entry in engines {
        for (part, queries) in data.queries.iter().enumerate() {
            for ((ef, reorder), point) in &entry.points[part] {
                let name = &entry.name;
                let setting = format!("{name} {} ef {ef} reorder {reorder}", queries.name);
                progress(&format!("{setting}: recall {:.4}, {:.0}/CPU-s", point.recall, point.rate));
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress and single settings; the figures go to stdout")]
fn progress(line: &str) {
    eprintln!("{line}");
}

/// Points that no other point beats in both, by rising recall.
fn front(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| b.recall.total_cmp(&a.recall).then(b.rate.total_cmp(&a.rate)));
    let mut kept: Vec<Point> = Vec::new();
    for point in points {
        if kept.last().is_none_or(|last| point.rate > last.rate) {
            kept.push(point);
        }
    }
    kept.reverse();
    kept
}

/// Rate at `recall`, on a line between its neighbours in logarithms of rate and of what is missed; `None` where it was not reached.
/// An engine that is above `recall` at its narrowest beam counts with that beam's rate.
fn rate_at(front: &[Point], recall: f64) -> Option<f64> {
    let above = front.iter().position(|p| p.recall >= recall)?;
    let right = front[above];
    let Some(left) = above.checked_sub(1).map(|i| front[i]) else { return Some(right.rate) };
    let missed = |r: f64| (1.0 - r).max(1e-6).ln();
    let share = (missed(recall) - missed(left.recall)) / (missed(right.recall) - missed(left.recall));
    Some((left.rate.ln() + share * (right.rate.ln() - left.rate.ln())).exp())
}

/// What the issue asks for: peer, recall, by modality.
fn goal(peer: &str, part: usize, recall: f64) -> Option<(f64, &'static str)> {
    let goals: &[(&str, usize, f64, f64, &'static str)] = &[
        ("hnswlib", 0, 0.95, 4.0, "at least 4.0x"),
        ("hnswlib", 0, 0.99, 4.0, "at least 4.0x"),
        ("hnswlib", 1, 0.95, 3.5, "at least 3.5x"),
        ("faiss-flat", 0, 0.95, 3.2, "at least 3.2x"),
        ("faiss-flat", 0, 0.99, 3.8, "at least 3.8x"),
        ("faiss-sq8", 0, 0.95, 2.8, "at least 2.8x"),
        ("scann", 0, 0.95, 1.6, "at least 1.6x"),
        ("scann", 0, 0.99, 1.15, "at least 1.15x"),
        ("scann", 1, 0.95, 1.25, "at least 1.25x"),
        ("usearch-f16", 0, 0.95, 6.0, "at least 6x"),
        ("usearch-f16", 0, 0.99, 5.5, "at least 5.5x"),
        ("hnsw_rs", 0, 0.95, 12.0, "at least 12x"),
        ("hnsw_rs", 0, 0.99, 12.0, "at least 12x"),
    ];
    let found = goals.iter().find(|g| g.0 == peer && g.1 == part && (g.2 - recall).abs() < 1e-9);
    found.map(|g| (g.3, g.4))
}

fn search_figures(engines: &[Entry], part: usize, about: &str, sheet: &mut Sheet) {
    for (own, peers) in pairings(engines) {
        for recall in RECALLS {
            let Some(rate) = rate_at(&own.front(part), recall) else { continue };
            for peer in &peers {
                let name = format!("{}: queries per CPU-second at recall {recall}", own.name);
                let figure = Figure::new(name, rate, "1/s", about).seed(SEED);
                let front = peer.front(part);
                let Some(theirs) = rate_at(&front, recall) else {
                    let cap = front.last().map_or(0.0, |p| p.recall);
                    let said = format!("{} (not reached, at most {cap:.3})", peer.name);
                    sheet.add(Figure { peer: Some(said), ..figure });
                    continue;
                };
                let figure = figure.against(&peer.name, theirs);
                match goal(&peer.name, part, recall) {
                    Some((least, words)) => sheet.add(figure.goal(words, rate / theirs >= least)),
                    None => sheet.add(figure),
                }
            }
        }
    }
}

fn is_ours(entry: &Entry) -> bool {
    entry.name.starts_with("anchorite")
}

/// Who is compared with whom: the default with every peer, other ways to build with the default.
fn pairings(engines: &[Entry]) -> Vec<(&Entry, Vec<&Entry>)> {
    let (ours, peers): (Vec<&Entry>, Vec<&Entry>) = engines.iter().partition(|e| is_ours(e));
    let Some((default, others)) = ours.split_first() else { return Vec::new() };
    let others = others.iter().map(|other| (*other, vec![*default]));
    [(*default, peers)].into_iter().chain(others).collect()
}

fn build_figures(engines: &[Entry], about: &str, sheet: &mut Sheet) {
    let about = format!("{about}, M = {M}, ef_construction = {EF_CONSTRUCTION}, {BUILD_THREADS} threads");
    let goals = [
        ("hnswlib", 0.35, "at most 0.35x"),
        ("faiss-flat", 0.35, "at most 0.35x"),
        ("faiss-sq8", 0.35, "at most 0.35x"),
        ("scann", 0.4, "at most 0.4x"),
        ("usearch-f16", 0.25, "at most 0.25x"),
        ("hnsw_rs", 0.15, "at most 0.15x"),
    ];
    for (own, peers) in pairings(engines) {
        // The pool of pairs builds two graphs, which no peer does.
        for peer in peers.into_iter().filter(|_| own.name != PAIRS) {
            let who = format!("{} {}", peer.name, peer.built.version);
            let add = |sheet: &mut Sheet, what: &str, unit, value: f64, theirs: f64, goal: Option<(f64, &'static str)>| {
                let figure = Figure::new(format!("{}: {what}", own.name), value, unit, &about).seed(SEED).against(&who, theirs);
                sheet.add(match goal {
                    Some((most, words)) => figure.goal(words, value <= theirs * most),
                    None => figure,
                });
            };
            let build = goals.iter().find(|g| g.0 == peer.name).map(|g| (g.1, g.2));
            add(sheet, "build, CPU time", "s", own.built.cpu, peer.built.cpu, build);
            add(sheet, "build, wall time", "s", own.built.wall, peer.built.wall, build);
            if peer.built.disk > 0.0 {
                let disk = (peer.name == "hnswlib").then_some((0.8, "at most 0.8x"));
                add(sheet, "vectors (7-bit and f16) and graph on disk", "bytes", own.built.disk, peer.built.disk, disk);
                add(sheet, "open", "s", own.built.open, peer.built.open, None);
            }
        }
    }
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
    ] {
        let dir = data.folder.join(name.replace(|c: char| !c.is_alphanumeric(), "-"));
        let sides = if name == PAIRS { Sides::Both } else { Sides::Images };
        engines.push(Entry::new(name, Ours { dir, build, sides, pool: None }));
    }
    for (peer, package) in PEERS {
        match PythonPeer::start(cache, data, peer, package) {
            Ok(engine) => engines.push(Entry::new(peer, engine)),
            Err(error) => progress(&format!("{peer} is left out: {error:#}")),
        }
    }
    engines.push(Entry::new("hnsw_rs", HnswRs { index: None }));
    Ok(engines)
}

/// Runs `work` on [`BUILD_THREADS`] threads and says what it took.
fn built<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<(T, BuildCost)> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(BUILD_THREADS).build()?;
    let (start, before) = (Instant::now(), process::process_cpu());
    let out = threads.install(work)?;
    let cpu = (process::process_cpu() - before).as_secs_f64();
    Ok((out, BuildCost { wall: start.elapsed().as_secs_f64(), cpu, ..BuildCost::default() }))
}

/// The pool whose pairs have texts too: its picture graph is made with them in mind. Building it makes two graphs.
const PAIRS: &str = "anchorite (pairs)";

/// What the pairs of a pool have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Images,
    Both,
}

/// A pool, asked with a raw beam width.
struct Ours {
    dir: PathBuf,
    build: BuildParams,
    sides: Sides,
    pool: Option<Pool>,
}

impl Engine for Ours {
    fn build(&mut self, data: &Data) -> Result<BuildCost> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        let options = WriterOptions { build: self.build, ..WriterOptions::default() };
        let texts: &[f32] = if self.sides == Sides::Both { &data.texts } else { &[] };
        let ((), cost) = built(|| fill(&self.dir, &data.base, texts, &options))?;
        let mut open = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            self.pool = Some(Pool::open(&self.dir, &OpenOptions::default())?);
            open = open.min(start.elapsed().as_secs_f64());
        }
        let mut disk = 0;
        for file in std::fs::read_dir(&self.dir)? {
            let file = file?;
            // Keys, captions and the rest of a row are what peers do not store.
            if file.file_name().to_string_lossy().contains(".image.") {
                disk += file.metadata()?.len();
            }
        }
        Ok(BuildCost { disk: disk as f64, open, version: env!("CARGO_PKG_VERSION").to_owned(), ..cost })
    }

    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)> {
        let pool = self.pool.as_ref().context("built first")?;
        let questions = self.questions(queries, asked.k);
        let run = questions.len().div_ceil(asked.threads);
        let threads = rayon::ThreadPoolBuilder::new().num_threads(asked.threads).build()?;
        let (answers, spent) = Spent::on(|| {
            let parts = || questions.par_chunks(run).map(|run| pool.search_ef_many(run, asked.ef, &Cancel::default()));
            Ok(threads.install(|| parts().collect::<Result<Vec<_>, _>>())?.concat())
        })?;
        Ok((answers.into_iter().map(|a| a.hits.into_iter().map(|h| h.row.0).collect()).collect(), spent))
    }

    fn latencies(&mut self, queries: &Queries, asked: Asked) -> Result<Vec<f64>> {
        let pool = self.pool.as_ref().context("built first")?;
        let one = |query: &Query| {
            let start = Instant::now();
            pool.search_ef(query, asked.ef, &Cancel::default())?;
            Ok(start.elapsed().as_secs_f64())
        };
        self.questions(queries, asked.k).iter().map(one).collect()
    }
}

impl Ours {
    fn questions(&self, queries: &Queries, k: usize) -> Vec<Query> {
        let ask = |v: &[f32]| Query::new(Side::Image, v.to_vec(), k, Effort::Normal);
        queries.vectors.chunks_exact(DIM).map(ask).collect()
    }
}

/// hnsw_rs with its own containers and its own search, and the fastest distance it can be given.
struct HnswRs {
    index: Option<Hnsw<'static, f32, OneMinusDot>>,
}

impl Engine for HnswRs {
    fn build(&mut self, data: &Data) -> Result<BuildCost> {
        let items: Vec<(&[f32], usize)> = data.base.chunks_exact(DIM).zip(0..).collect();
        let (index, cost) = built(|| {
            let mut index = Hnsw::new(M, items.len(), 16, EF_CONSTRUCTION, OneMinusDot);
            index.parallel_insert_slice(&items);
            index.set_searching_mode(true);
            Ok(index)
        })?;
        self.index = Some(index);
        Ok(BuildCost { version: "0.3.5".to_owned(), ..cost })
    }

    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)> {
        let index = self.index.as_ref().context("built first")?;
        let threads = rayon::ThreadPoolBuilder::new().num_threads(asked.threads).build()?;
        let all = || queries.vectors.par_chunks_exact(DIM).map(|q| index.search(q, asked.k, asked.ef)).collect::<Vec<_>>();
        let (found, spent) = Spent::on(|| Ok(threads.install(all)))?;
        Ok((found.into_iter().map(|hits| hits.into_iter().map(|h| h.d_id as u64).collect()).collect(), spent))
    }
}

/// `1 - dot`, never below zero, which hnsw_rs asserts.
#[derive(Clone, Copy, Default)]
struct OneMinusDot;

impl Distance<f32> for OneMinusDot {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}

#[expect(unsafe_code, reason = "a distance kernel compiled for AVX2, so that the peer is not held back by its distance")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: both features were found.
        return unsafe { dot_avx2(a, b) };
    }
    lanes(a, b, |x, y, sum| x * y + sum)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, f32::mul_add)
}

/// Sums in 32 lanes, which the compiler puts into vector registers; lengths are multiples of 32.
#[inline(always)]
fn lanes(a: &[f32], b: &[f32], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; 32];
    for (a, b) in a.chunks_exact(32).zip(b.chunks_exact(32)) {
        for i in 0..32 {
            sums[i] = step(a[i], b[i], sums[i]);
        }
    }
    sums.iter().sum()
}

/// A peer in a Python process of its own.
struct PythonPeer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl PythonPeer {
    fn start(cache: &Path, data: &Data, peer: &str, package: &str) -> Result<Self> {
        let library = package.split("==").next().context("a requirement names a package")?;
        let python = Python::with(cache, &format!("index-{library}"), &["numpy", package])?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/peers_index.py");
        let folder = data.folder.to_str().context("the cache folder's name is not UTF-8")?;
        let mut child = python.start(&script, &[peer, folder, &DIM.to_string(), &BUILD_THREADS.to_string()])?;
        let requests = child.stdin.take().context("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, requests, answers })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the peer's process ended; its message is above");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for PythonPeer {
    fn drop(&mut self) {
        // It is of no use any more; an error here means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(said: &Value, name: &str) -> Result<f64> {
    said[name].as_f64().with_context(|| format!("the peer's answer has no {name}"))
}

impl Engine for PythonPeer {
    fn build(&mut self, _data: &Data) -> Result<BuildCost> {
        let said = self.ask(&json!({ "do": "build" }))?;
        let of = |name| number(&said, name);
        let version = said["version"].as_str().unwrap_or_default().to_owned();
        Ok(BuildCost { wall: of("wall")?, cpu: of("cpu")?, disk: of("disk")?, open: of("open")?, version })
    }

    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)> {
        let Asked { ef, reorder, k, threads } = asked;
        let request = json!({
            "do": "search", "queries": queries.name, "ef": ef, "reorder": reorder, "k": k, "threads": threads
        });
        let said = self.ask(&request)?;
        let spent = |name| Ok::<_, anyhow::Error>(Duration::from_secs_f64(number(&said, name)?));
        let spent = Spent { cpu: spent("cpu")?, wall: spent("wall")? };
        let rows = said["found"].as_array().context("found")?.iter();
        // A peer that finds fewer than k pads with -1.
        let ids = |row: &Value| row.as_array().map(|ids| ids.iter().filter_map(Value::as_u64).collect()).unwrap_or_default();
        Ok((rows.map(ids).collect(), spent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(all: &[(f64, f64)]) -> Vec<Point> {
        all.iter().map(|&(recall, rate)| Point { recall, rate }).collect()
    }

    #[test]
    fn a_setting_that_another_beats_in_both_is_left_out() {
        let front = front(points(&[(0.9, 100.0), (0.8, 90.0), (0.99, 50.0), (0.95, 50.0)]));
        assert_eq!(front, points(&[(0.9, 100.0), (0.99, 50.0)]));
    }

    #[test]
    fn rates_between_settings_are_interpolated_and_beyond_them_absent() {
        let front = points(&[(0.9, 1_000.0), (0.99, 100.0)]);
        let between = rate_at(&front, 1.0 - 0.1f64.powf(1.5)).unwrap();
        assert!((between - 316.2).abs() < 0.1, "{between}");
        assert_eq!(rate_at(&front, 0.8), Some(1_000.0));
        assert_eq!(rate_at(&front, 0.995), None);
    }

    #[test]
    fn the_exact_answer_begins_with_the_row_itself() {
        let world = World::new(3);
        let base = world.images(300, 1);
        let own = &base[17 * DIM..18 * DIM];
        let found = exact(&base, own);
        assert_eq!(found.len(), MANY);
        assert_eq!(found[0], 17);
    }
}
