//! Pools beyond memory, pools in many segments, and what a pool of 10^8 or 10^9 pairs would cost.
//!
//! ```text
//!   three sizes ──build, bytes, processor time a query──► cost.rs: a model ──► 10^8, 10^9
//!   the largest ──beyond.rs: a child in a memory group of a quarter of its bytes──► queries a second, major faults a query
//!   one size in 1, 2, 4 ... segments ──► what a segment costs a query
//! ```
//!
//! Processor time, not wall time, goes into the model: it is what a busy machine does not lengthen much.

pub(crate) mod beyond;
mod cost;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anchorite_index::{
    BuildParams, Builder, Cancel, Effort, PairStore, Precision, Query, Side,
    pool::{OpenOptions, Pool, WriterOptions},
};
use anyhow::{Context, Result};

use self::cost::{Beyond, Model, PLANS, Point, Points};
use crate::{
    clip_like::{DIM, World},
    demo::fill,
    figure::{Figure, Sheet},
    process::{process_cpu, thread_cpu},
};

const SEED: u64 = 11;
/// Questions per measurement.
const QUESTIONS: usize = 1_000;
/// Where the points that the model is fitted to are kept; a test fits them again.
const POINTS: &str = "benches/reference/scale.json";

/// How to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Small data.
    pub(crate) quick: bool,
    /// Rows of the largest pool, instead of 300,000.
    pub(crate) rows: Option<usize>,
    /// Keep the points for the model's test.
    pub(crate) write: bool,
}

/// Runs the benchmark.
///
/// # Errors
/// A pool that cannot be written or read, or a child that fails.
pub(crate) fn run(cache: &Path, options: Options) -> Result<Vec<Figure>> {
    let mut sheet = Sheet::default();
    let largest = options.rows.unwrap_or(if options.quick { 40_000 } else { 300_000 });
    let sizes = [largest / 8, largest / 3, largest];
    let cache = std::path::absolute(cache)?;
    let world = World::new(SEED);
    let vectors = world.images(largest, 1);
    let data = Data { cache: &cache, world: &world, vectors: &vectors };
    let mut points = Vec::new();
    for n in sizes {
        points.push(data.measure(n, Precision::Half, &mut sheet)?);
    }
    let small = data.measure(largest, Precision::SevenBit, &mut sheet)?;
    let mut beyond = Vec::new();
    for precision in [Precision::Half, Precision::SevenBit] {
        beyond.extend(beyond::measure(&data.dir(largest, precision), &mut sheet)?);
    }
    data.segments(sizes[0], &mut sheet)?;
    let points = Points { points, seven_bit_bytes_a_pair: small.bytes / small.rows, beyond };
    extrapolate(&points, &mut sheet);
    if options.write {
        fs::write(POINTS, format!("{}\n", serde_json::to_string_pretty(&points)?)).with_context(|| format!("write {POINTS}"))?;
    }
    Ok(sheet.into_figures())
}

/// Vectors, and where pools of them are kept.
struct Data<'a> {
    cache: &'a Path,
    world: &'a World,
    vectors: &'a [f32],
}

fn writer_options(precision: Precision) -> WriterOptions {
    let build = BuildParams { builder: Builder::Own, ..BuildParams::default() };
    WriterOptions { build, merge: None, precision: Some(precision), ..WriterOptions::default() }
}

/// What building took.
struct Built {
    seconds: f64,
    cpu_seconds: f64,
}

impl Data<'_> {
    fn dir(&self, n: usize, precision: Precision) -> PathBuf {
        self.cache.join(format!("scale-{n}-{precision}.pool"))
    }

    fn build(&self, dir: &Path, n: usize, options: &WriterOptions) -> Result<Built> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        let (start, cpu) = (Instant::now(), process_cpu());
        fill(dir, DIM, &self.vectors[..n * DIM], &[], options)?;
        Ok(Built { seconds: start.elapsed().as_secs_f64(), cpu_seconds: (process_cpu() - cpu).as_secs_f64() })
    }

    /// One size as one segment.
    fn measure(&self, n: usize, precision: Precision, sheet: &mut Sheet) -> Result<Point> {
        let dir = self.dir(n, precision);
        let data = format!("{n} x {DIM} CLIP-like, one side, {precision}, own builder");
        let built = self.build(&dir, n, &writer_options(precision))?;
        let pool = Pool::open(&dir, &OpenOptions::default())?;
        let bytes = bytes(&pool) as f64;
        let asked = ask(&pool, self.world)?;
        let mut add = |what: &str, value, unit| sheet.add(Figure::new(what, value, unit, &data).seed(SEED));
        add("append, build and commit, wall, all cores", built.seconds, "s");
        add("append, build and commit, processor time", built.cpu_seconds, "s");
        add("bytes a pair", bytes / n as f64, "B");
        add("processor time a query, one thread, effort normal, in memory", asked * 1e6, "us");
        Ok(Point { rows: n as f64, bytes, build_cpu_seconds: built.cpu_seconds, query_cpu_seconds: asked })
    }

    /// The same rows in more and more segments.
    fn segments(&self, n: usize, sheet: &mut Sheet) -> Result<()> {
        let mut one = None;
        for count in [1, 2, 4, 8, 16, 32] {
            let dir = self.cache.join(format!("scale-{n}-in-{count}.pool"));
            let options = WriterOptions { segment_rows: n.div_ceil(count) as u64, ..writer_options(Precision::Half) };
            self.build(&dir, n, &options)?;
            let speed = 1.0 / ask(&Pool::open(&dir, &OpenOptions::default())?, self.world)?;
            let data = format!("{n} x {DIM} CLIP-like");
            let figure = Figure::new(format!("queries a second of processor time with {count} segments"), speed, "1/s", data);
            sheet.add(figure.against("one segment", *one.get_or_insert(speed)).seed(SEED));
            fs::remove_dir_all(&dir)?;
        }
        Ok(())
    }
}

fn bytes(pool: &Pool) -> u64 {
    pool.info().files.values().map(|size| size.bytes).sum()
}

fn questions(world: &World) -> Vec<Query> {
    let asked = world.images(QUESTIONS, 2);
    let query = |v: &[f32]| Query { asked: Some(Side::Image), ..Query::new(Side::Image, v.to_vec(), 10, Effort::Normal) };
    asked.chunks_exact(DIM).map(query).collect()
}

/// Processor seconds a query, one after another, after one pass that is not counted; the middle of three.
fn ask(pool: &Pool, world: &World) -> Result<f64> {
    let questions = questions(world);
    let pass = || -> Result<f64> {
        let start = thread_cpu();
        for question in &questions {
            pool.search(std::slice::from_ref(question), &Cancel::default())?;
        }
        Ok((thread_cpu() - start).as_secs_f64() / questions.len() as f64)
    };
    pass()?;
    let mut passes = [pass()?, pass()?, pass()?];
    passes.sort_by(f64::total_cmp);
    Ok(passes[1])
}

/// What the measured sizes say of sizes that were not measured.
fn extrapolate(points: &Points, sheet: &mut Sheet) {
    let model = Model::fit(points);
    let sizes: Vec<f64> = points.points.iter().map(|p| p.rows).collect();
    let data = format!("power law through {sizes:?} rows, one side");
    for (what, power) in [("building", model.build.power), ("a query", model.query.power)] {
        sheet.add(Figure::new(format!("exponent: processor time of {what}"), power, "", &data));
    }
    for plan in PLANS.map(|wanted| model.plan(wanted)) {
        let name = format!("{:.0e} pairs in {} segments, extrapolated", plan.wanted.pairs, plan.segments);
        let mut add = |what: &str, value, unit| sheet.add(Figure::new(format!("{name}: {what}"), value, unit, &data));
        add("bytes, f16", plan.bytes, "B");
        add("bytes, 7-bit", plan.seven_bit_bytes, "B");
        add("build, 16 cores", plan.build_hours, "h");
        add("queries a second, 16 cores, in memory", plan.queries_per_second, "1/s");
    }
}
