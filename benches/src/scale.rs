//! Pools beyond memory, pools in many segments, and what a pool of 10^8 or 10^9 pairs would cost.
//!
//! ```text
//!   three sizes ──build, bytes, queries a second──► power laws ──► 10^8, 10^9
//!   the largest ──child in a memory group of a quarter of its bytes──► queries a second, major faults a query
//!   one size in 1, 2, 4 ... segments ──► what a segment costs a query
//! ```

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anchorite_index::{
    BuildParams, Builder, Cancel, Effort, PairStore, Query, Side,
    pool::{Memory, OpenOptions, Pool, WriterOptions},
};
use anyhow::{Context, Result, bail};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::{
    clip_like::{DIM, World},
    demo::fill,
    figure::{Figure, Sheet},
};

const SEED: u64 = 11;
/// Questions per measurement.
const QUESTIONS: usize = 1_000;
/// Memory allowed, as a part of the pool's bytes.
const PART: u64 = 4;
/// Least memory that the child runs in: its program, its questions, its threads. A quick run's pool is not four times that.
const LEAST: u64 = 32 << 20;

/// Runs the benchmark.
///
/// # Errors
/// A pool that cannot be written or read, or a child that fails.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let mut sheet = Sheet::default();
    let sizes = if quick { [10_000, 20_000, 40_000] } else { [100_000, 200_000, 400_000] };
    let cache = std::path::absolute(cache)?;
    let world = World::new(SEED);
    let mut points = Vec::new();
    for n in sizes {
        points.push(measure(&cache, &world, n, &mut sheet)?);
    }
    segments(&cache, &world, sizes[0], &mut sheet)?;
    beyond_memory(&pool_dir(&cache, sizes[2]), &mut sheet)?;
    extrapolate(&points, &mut sheet);
    Ok(sheet.into_figures())
}

fn pool_dir(cache: &Path, n: usize) -> PathBuf {
    cache.join(format!("scale-{n}.pool"))
}

fn options() -> WriterOptions {
    let build = BuildParams { builder: Builder::Own, ..BuildParams::default() };
    WriterOptions { build, merge: None, ..WriterOptions::default() }
}

/// What one size costs.
struct Point {
    rows: f64,
    bytes: f64,
    build_seconds: f64,
    queries_per_second: f64,
}

fn build(dir: &Path, world: &World, n: usize, options: &WriterOptions) -> Result<f64> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    let vectors = world.images(n, 1);
    let start = Instant::now();
    fill(dir, &vectors, &[], options)?;
    Ok(start.elapsed().as_secs_f64())
}

fn measure(cache: &Path, world: &World, n: usize, sheet: &mut Sheet) -> Result<Point> {
    let dir = pool_dir(cache, n);
    let data = format!("{n} x {DIM} CLIP-like, one side, own builder");
    let build_seconds = build(&dir, world, n, &options())?;
    let pool = Pool::open(&dir, &OpenOptions::default())?;
    let bytes: u64 = pool.info().files.values().map(|size| size.bytes).sum();
    let queries_per_second = ask(&pool, world)?;
    sheet.add(Figure::new("append, build and commit, all cores", build_seconds, "s", &data).seed(SEED));
    sheet.add(Figure::new("bytes a pair", bytes as f64 / n as f64, "B", &data).seed(SEED));
    sheet.add(Figure::new("queries a second, one thread, effort normal, in memory", queries_per_second, "1/s", &data).seed(SEED));
    Ok(Point { rows: n as f64, bytes: bytes as f64, build_seconds, queries_per_second })
}

fn questions(world: &World) -> Vec<Query> {
    let asked = world.images(QUESTIONS, 2);
    let query = |v: &[f32]| Query { asked: Some(Side::Image), ..Query::new(Side::Image, v.to_vec(), 10, Effort::Normal) };
    asked.chunks_exact(DIM).map(query).collect()
}

/// Queries a second, one after another, after one pass that is not counted.
fn ask(pool: &Pool, world: &World) -> Result<f64> {
    let questions = questions(world);
    let pass = || -> Result<f64> {
        let start = Instant::now();
        for question in &questions {
            pool.search(std::slice::from_ref(question), &Cancel::default())?;
        }
        Ok(questions.len() as f64 / start.elapsed().as_secs_f64())
    };
    pass()?;
    let mut passes = [pass()?, pass()?, pass()?];
    passes.sort_by(f64::total_cmp);
    Ok(passes[1])
}

/// The same rows in more and more segments.
fn segments(cache: &Path, world: &World, n: usize, sheet: &mut Sheet) -> Result<()> {
    let mut one = None;
    for count in [1, 2, 4, 8, 16, 32] {
        let dir = cache.join(format!("scale-{n}-in-{count}.pool"));
        build(&dir, world, n, &WriterOptions { segment_rows: n.div_ceil(count) as u64, ..options() })?;
        let speed = ask(&Pool::open(&dir, &OpenOptions::default())?, world)?;
        let figure =
            Figure::new(format!("queries a second with {count} segments"), speed, "1/s", format!("{n} x {DIM} CLIP-like"));
        sheet.add(figure.against("one segment", *one.get_or_insert(speed)).seed(SEED));
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    queries_per_second: f64,
    faults_per_query: f64,
    memory: Memory,
}

/// A group of processes with a memory limit, below this process's own; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// Version 2 of the kernel's control groups where they are, version 1 else.
    fn new(bytes: u64) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let (root, limit) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            ("/sys/fs/cgroup", "memory.max")
        } else {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        };
        let found = own.lines().find_map(|line| {
            let (kinds, path) = line.split_once(':')?.1.split_once(':')?;
            (kinds == "memory" || (kinds.is_empty() && limit == "memory.max")).then(|| path.to_owned())
        });
        let found = found.context("this process is in no memory group")?;
        let dir = Path::new(root).join(found.trim_start_matches('/')).join(format!("anchorite-scale-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("create the memory group {}", dir.display()))?;
        let group = Self(dir);
        fs::write(group.0.join(limit), bytes.to_string()).context("set the memory limit")?;
        Ok(group)
    }

    fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group that stays empty costs nothing; there is nobody to tell.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Asks a pool of four times the memory there is for it.
fn beyond_memory(dir: &Path, sheet: &mut Sheet) -> Result<()> {
    let pool = Pool::open(dir, &OpenOptions::default())?;
    let bytes: u64 = pool.info().files.values().map(|size| size.bytes).sum();
    let rows = pool.status().rows;
    drop(pool);
    let limit = (bytes / PART).max(LEAST);
    let data = format!("{rows} x {DIM} CLIP-like, pool of {bytes} B");
    let part = format!("{:.2} of it", limit as f64 / bytes as f64);
    for (name, allowed) in [(part.as_str(), Some(limit)), ("all of it", None)] {
        forget(dir)?;
        let group = match allowed.map(Group::new).transpose() {
            Ok(group) => group,
            Err(error) => {
                // Without a group there is no limit on mapped files: say so rather than measure something else.
                sheet.add(Figure::new(format!("not measured, no memory group: {error:#}"), f64::NAN, "", &data));
                return Ok(());
            }
        };
        let told = child(dir, group.as_ref())?;
        let figure = |what: &str, value, unit| Figure::new(format!("{what}, memory for {name}"), value, unit, &data).seed(SEED);
        sheet.add(figure("queries a second, one thread, cold", told.queries_per_second, "1/s"));
        sheet.add(figure("major faults a query", told.faults_per_query, ""));
        sheet.add(figure("anonymous memory at the end", told.memory.anonymous as f64, "B"));
        sheet.add(figure("file-backed memory at the end", told.memory.file_backed as f64, "B"));
    }
    Ok(())
}

/// Has the system drop what it holds of the pool's files.
fn forget(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let file = fs::File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn child(dir: &Path, group: Option<&Group>) -> Result<Told> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["scale", "--scale-child"]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(group) = group {
        fs::write(group.procs(), child.id().to_string()).context("put the child into the memory group")?;
    }
    // It waits for this line, so that it opens nothing before it is in its group.
    child.stdin.take().context("a pipe")?.write_all(b"go\n")?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("the child ended with {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child: waits to be told, then asks and prints what it took.
///
/// # Errors
/// A pool that cannot be read.
#[expect(clippy::print_stdout, reason = "what the parent reads")]
pub(crate) fn in_child(dir: &Path) -> Result<()> {
    std::io::stdin().read_line(&mut String::new())?;
    let world = World::new(SEED);
    let questions = questions(&world);
    let before = major_faults()?;
    let start = Instant::now();
    let pool = Pool::open(dir, &OpenOptions::default())?;
    for question in &questions {
        pool.search(std::slice::from_ref(question), &Cancel::default())?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let told = Told {
        queries_per_second: questions.len() as f64 / seconds,
        faults_per_query: (major_faults()? - before) as f64 / questions.len() as f64,
        memory: Memory::now().context("the system does not tell this process's memory")?,
    };
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

/// Major faults of this process: pages that had to be read. The twelfth field of `/proc/self/stat`.
fn major_faults() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").context("an unknown form of /proc/self/stat")?.1;
    Ok(fields.split(' ').nth(9).context("a short /proc/self/stat")?.parse()?)
}

/// `y = scale * x^power` by least squares over logarithms.
fn power_law(points: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let logs: Vec<(f64, f64)> = points.map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let (sx, sy) = logs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let covariance: f64 = logs.iter().map(|(x, y)| (x - sx / n) * (y - sy / n)).sum();
    let variance: f64 = logs.iter().map(|(x, _)| (x - sx / n).powi(2)).sum();
    let power = covariance / variance;
    ((sy / n - power * sx / n).exp(), power)
}

/// What the measured sizes say of sizes that were not measured: a straight line in logarithms, no more.
fn extrapolate(points: &[Point], sheet: &mut Sheet) {
    let laws = [
        ("bytes", "B", power_law(points.iter().map(|p| (p.rows, p.bytes)))),
        ("build in hours, all cores of this machine", "h", power_law(points.iter().map(|p| (p.rows, p.build_seconds / 3_600.0)))),
        ("queries a second, one thread, all in memory", "1/s", power_law(points.iter().map(|p| (p.rows, p.queries_per_second)))),
    ];
    for (what, unit, (scale, power)) in laws {
        let sizes: Vec<f64> = points.iter().map(|p| p.rows).collect();
        let data = format!("power law through {sizes:?} rows, one side");
        sheet.add(Figure::new(format!("exponent: {what}"), power, "", &data));
        for n in [1e8, 1e9] {
            sheet.add(Figure::new(format!("{n:.0e} pairs, extrapolated: {what}"), scale * f64::powf(n, power), unit, &data));
        }
    }
}
