//! A pool of four times the memory there is for it: a child process in a memory group, cold or warmed, with each access policy.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anchorite_index::{
    Cancel, PairStore,
    pool::{Access, Memory, OpenOptions, Pool},
};
use anyhow::{Context, Result, bail};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use super::{Beyond, SEED, bytes, questions};
use crate::{
    clip_like::{DIM, World},
    figure::{Figure, Sheet},
};

/// Memory allowed, as a part of the pool's bytes.
const PART: u64 = 4;
/// Least memory that the child runs in: its program, its questions, its threads. A quick run's pool is not four times that.
const LEAST: u64 = 32 << 20;
/// Longest that a child asks; questions that are left stay unasked.
const LONGEST: Duration = Duration::from_secs(8);
/// Share of the memory that is filled when a pool is read first: the rest is the program's.
const WARMED: f64 = 0.75;

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    access: String,
    /// Bytes to read first.
    warm: Option<u64>,
}

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    queries: u64,
    queries_per_second: f64,
    major_faults_a_query: f64,
    minor_faults_a_query: f64,
    warm_seconds: f64,
    memory: Memory,
}

const POLICIES: [(&str, Access); 3] = [("system", Access::System), ("random", Access::Random), ("searched", Access::Searched)];

fn access(name: &str) -> Result<Access> {
    POLICIES.iter().find(|(other, _)| *other == name).map(|(_, access)| *access).context("an unknown policy")
}

/// Asks the pool in `dir` with a quarter of its bytes as memory, and without a limit.
pub(super) fn measure(dir: &Path, sheet: &mut Sheet) -> Result<Vec<Beyond>> {
    let pool = Pool::open(dir, &OpenOptions::default())?;
    let (bytes, rows, precision) = (bytes(&pool), pool.status().rows, pool.precision());
    drop(pool);
    let limit = (bytes / PART).max(LEAST);
    let data = format!("{rows} x {DIM} CLIP-like, {precision}, pool of {bytes} B");
    let mut all = Vec::new();
    let cases = POLICIES.into_iter().flat_map(|(name, _)| [(name, Some(limit), false), (name, Some(limit), true)]);
    for (name, allowed, warm) in cases.chain([("system", None, false), ("system", None, true)]) {
        forget(dir)?;
        let group = match allowed.map(Group::new).transpose() {
            Ok(group) => group,
            Err(error) => {
                // Without a group there is no limit on mapped files: say so rather than measure something else.
                sheet.add(Figure::new(format!("not measured, no memory group: {error:#}"), f64::NAN, "", &data));
                return Ok(all);
            }
        };
        let budget = allowed.map_or(u64::MAX, |limit| (limit as f64 * WARMED) as u64);
        let found = child(dir, group.as_ref(), &Told { access: name.to_owned(), warm: warm.then_some(budget) })?;
        let memory =
            allowed.map_or("all memory".to_owned(), |limit| format!("memory {:.2} of the pool", limit as f64 / bytes as f64));
        let policy = format!("{name}, {}", if warm { "warmed" } else { "cold" });
        let mut add = |what: &str, value, unit| {
            sheet.add(Figure::new(format!("{what}; {memory}; {policy}"), value, unit, &data).seed(SEED));
        };
        add(&format!("queries a second, one thread, {} asked", found.queries), found.queries_per_second, "1/s");
        add("major faults a query", found.major_faults_a_query, "");
        add("minor faults a query", found.minor_faults_a_query, "");
        add("anonymous memory at the end", found.memory.anonymous as f64, "B");
        add("file-backed memory at the end", found.memory.file_backed as f64, "B");
        if warm {
            add("reading first took", found.warm_seconds, "s");
        }
        all.push(Beyond {
            precision: precision.to_string(),
            policy,
            times_memory: allowed.map_or(0.0, |limit| bytes as f64 / limit as f64),
            queries_per_second: found.queries_per_second,
            major_faults_a_query: found.major_faults_a_query,
        });
    }
    Ok(all)
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
        // The kernel takes the last process out of its group a moment after it was waited for. A group that stays empty costs nothing.
        for _ in 0..1_000 {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => std::thread::yield_now(),
                _ => return,
            }
        }
    }
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

fn child(dir: &Path, group: Option<&Group>, told: &Told) -> Result<Found> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["scale", "--scale-child"]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(group) = group {
        fs::write(group.procs(), child.id().to_string()).context("put the child into the memory group")?;
    }
    // It waits for this line, so that it opens nothing before it is in its group.
    let line = format!("{}\n", serde_json::to_string(told)?);
    child.stdin.take().context("a pipe")?.write_all(line.as_bytes())?;
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
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let told: Told = serde_json::from_str(&line)?;
    let questions = questions(&World::new(SEED));
    let pool = Pool::open(dir, &OpenOptions { access: access(&told.access)?, ..OpenOptions::default() })?;
    let warming = Instant::now();
    if let Some(most) = told.warm {
        pool.warm(most, &Cancel::default(), &mut |_| {})?;
    }
    let warm_seconds = warming.elapsed().as_secs_f64();
    let (major, minor) = faults()?;
    let (start, mut asked) = (Instant::now(), 0u64);
    for question in &questions {
        pool.search(std::slice::from_ref(question), &Cancel::default())?;
        asked += 1;
        if start.elapsed() > LONGEST {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let (major, minor) = faults().map(|(a, b)| (a - major, b - minor))?;
    let found = Found {
        queries: asked,
        queries_per_second: asked as f64 / seconds,
        major_faults_a_query: major as f64 / asked as f64,
        minor_faults_a_query: minor as f64 / asked as f64,
        warm_seconds,
        memory: Memory::now().context("the system does not tell this process's memory")?,
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Major faults of this process (pages that had to be read) and minor ones (that were in memory): the twelfth and tenth field of
/// `/proc/self/stat`.
fn faults() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("an unknown form of /proc/self/stat")?.1.split(' ').collect();
    let field = |place: usize| -> Result<u64> { Ok(fields.get(place).context("a short /proc/self/stat")?.parse()?) };
    Ok((field(9)?, field(7)?))
}
