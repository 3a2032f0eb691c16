//! Cost and memory of a row as datasets grow: the bundled pairs under new ids, the bundled model, a pool on disk. Each size is a process of
//! its own; what its commits cost, graphs among it, is reported apart.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anchorite_encoder::{
    Encode, EncoderOptions,
    model::ModelOptions,
    open,
    runtime::{self, Provider, RuntimeOptions},
};
use anchorite_index::{
    Cancel, ContentHash, Filter, Key, Pair, PairSink, PairStore, Spec, StoreError, Upserted,
    memory::MemoryStore,
    pool::{PoolWriter, WriterOptions},
};
use anchorite_ingest::{IngestJob, IngestOptions, NoProgress, Vectors, ingest};
use anyhow::{Context, Result, ensure};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde::{Deserialize, Serialize};

use crate::{
    figure::{Figure, Sheet},
    process::{load, memory, process_cpu},
};

/// Threads, as many for each size.
const THREADS: usize = 2;
const FULL: [usize; 3] = [1_000, 10_000, 100_000];
const QUICK: [usize; 2] = [500, 2_000];
const MIB: f64 = 1_048_576.0;
/// How often memory is looked at, where the kernel keeps no peak. 50 ms: a commit takes seconds.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Rows that load and warm up the towers before anything is timed: a chunk for each worker.
const WARM_UP: usize = 64;

/// What a child found.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    rows: u64,
    /// Processor time of all threads before the first commit.
    cpu_seconds: f64,
    seconds: f64,
    /// Of commits.
    commit_cpu_seconds: f64,
    commit_seconds: f64,
    /// Peak memory before the first commit began, and at the end; files that are mapped or were read count.
    filling_bytes: u64,
    peak_bytes: u64,
    /// The most memory of the process's own at the end, without files, as it was looked at every [`LOOK_EVERY`].
    own_bytes: u64,
}

/// Figures of all sizes.
pub(super) fn measure(cache: &Path, quick: bool, sheet: &mut Sheet) -> Result<()> {
    let sizes = if quick { &QUICK[..] } else { &FULL[..] };
    let mut all = Vec::new();
    for &rows in sizes {
        let found = in_child(cache, rows)?;
        let data = format!("bundled pairs under new ids, bundled model, pool on disk, {THREADS} threads, load {}", load()?);
        let figures = [
            ("processor time a row, without commits", found.cpu_seconds * 1e3 / found.rows as f64, "ms"),
            ("time a row, without commits", found.seconds * 1e3 / found.rows as f64, "ms"),
            ("processor time of commits a row (graphs)", found.commit_cpu_seconds * 1e3 / found.rows as f64, "ms"),
            ("peak memory before the first commit", found.filling_bytes as f64 / MIB, "MiB"),
            ("peak memory, commits and graphs included", found.peak_bytes as f64 / MIB, "MiB"),
            ("the same, without mapped files", found.own_bytes as f64 / MIB, "MiB"),
        ];
        for (what, value, unit) in figures {
            sheet.add(Figure::new(format!("{rows} rows: {what}"), value, unit, &data));
        }
        all.push(found);
    }
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(()) };
    let before = &all[all.len().saturating_sub(2)];
    let cost = |found: &Found| found.cpu_seconds / found.rows as f64;
    let data = format!("{} against {} rows", last.rows, first.rows);
    let (low, high) = all.iter().map(cost).fold((f64::MAX, 0.0_f64), |(low, high), c| (low.min(c), high.max(c)));
    let spread = Figure::new("processor time a row: dearest size against cheapest", high / low, "", data);
    sheet.add(spread.goal("at most 1.10", high / low <= 1.1));
    let grown = last.filling_bytes as f64 / before.filling_bytes as f64;
    let data = format!("{} against {} rows", last.rows, before.rows);
    sheet.add(Figure::new("peak memory before the first commit: growth", grown, "", &data).goal("at most 1.10", grown <= 1.1));
    let grown = last.peak_bytes as f64 / before.peak_bytes as f64;
    sheet.add(Figure::new("peak memory, commits and graphs included: growth", grown, "", &data));
    let grown = last.own_bytes as f64 / before.own_bytes as f64;
    sheet.add(Figure::new("the same, without mapped files: growth", grown, "", &data));
    Ok(())
}

fn in_child(cache: &Path, rows: usize) -> Result<Found> {
    let folder = tempfile::tempdir_in(cache)?;
    dataset(&folder.path().join("data"), rows)?;
    dataset(&folder.path().join("warm-up"), WARM_UP)?;
    let output = Command::new(std::env::current_exe()?).arg("ingest").arg("--ingest-child").arg(folder.path()).output()?;
    ensure!(output.status.success(), "the child failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what the child says is no JSON")
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

/// Whole copies of the bundled pairs, and the rest as every so-many-th of them, so that each size is of one kind.
fn dataset(folder: &Path, rows: usize) -> Result<()> {
    fs::create_dir_all(folder)?;
    let source = demo().join("pairs.parquet");
    let reader = || Ok::<_, anyhow::Error>(ParquetRecordBatchReaderBuilder::try_new(File::open(&source)?)?);
    let there = usize::try_from(reader()?.metadata().file_metadata().num_rows())?;
    for copy in 0..rows / there {
        fs::copy(&source, folder.join(format!("{copy:05}.parquet")))?;
    }
    let rest = rows % there;
    let builder = reader()?;
    let mut writer = ArrowWriter::try_new(File::create(folder.join("rest.parquet"))?, builder.schema().clone(), None)?;
    let (mut row, mut taken) = (0, 0);
    for batch in builder.build()? {
        let batch = batch?;
        for at in 0..batch.num_rows() {
            if row * rest / there >= taken && taken < rest {
                writer.write(&batch.slice(at, 1))?;
                taken += 1;
            }
            row += 1;
        }
    }
    writer.close()?;
    ensure!(taken == rest, "{taken} of {rest} rows");
    Ok(())
}

/// The child: fills a pool beside the data, and prints what that took.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
pub(crate) fn child(folder: &Path) -> Result<()> {
    let threads = NonZeroUsize::new(THREADS).context("threads")?;
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
    let options = EncoderOptions { image_sessions: threads, text_sessions: threads, threads: 1, ..EncoderOptions::default() };
    let encoder = open(runtime, Provider::Cpu, &demo().join("model"), &ModelOptions::default(), options)?;
    let spec = Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() };
    let writer = PoolWriter::open(folder.join("pool"), &spec, &WriterOptions::default())?;
    let mut sink = Timed { writer, commits: Duration::ZERO, commits_cpu: Duration::ZERO, filling_bytes: 0 };
    let options = IngestOptions { workers: Some(threads), ..IngestOptions::default() };
    let sources = [folder.join("data")];
    // Loading the towers and their first runs cost the same whatever the size; of 1,000 rows they would be a tenth.
    let mut nowhere = MemoryStore::new(spec);
    let warm_up = [folder.join("warm-up")];
    let job = IngestJob { sources: &warm_up, vectors: Vectors::Encode(&encoder), options: &options };
    ingest(job, &mut nowhere, &mut NoProgress, &Cancel::default())?;
    drop(nowhere);
    let own = OwnMemory::watch();
    let (begun, cpu) = (Instant::now(), process_cpu());
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
    let report = ingest(job, &mut sink, &mut NoProgress, &Cancel::default())?;
    ensure!(report.rejected == 0, "rejects: {:?}", report.rejected_by_reason);
    let found = Found {
        rows: report.accepted,
        cpu_seconds: (process_cpu() - cpu - sink.commits_cpu).as_secs_f64(),
        seconds: (begun.elapsed() - sink.commits).as_secs_f64(),
        commit_cpu_seconds: sink.commits_cpu.as_secs_f64(),
        commit_seconds: sink.commits.as_secs_f64(),
        filling_bytes: sink.filling_bytes,
        peak_bytes: memory("VmHWM")?,
        own_bytes: own.most(),
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// The most memory of this process's own, looked at by a thread until it is asked for.
struct OwnMemory {
    ends: Sender<()>,
    most: JoinHandle<u64>,
}

impl OwnMemory {
    fn watch() -> Self {
        let (ends, end) = channel::<()>();
        let most = thread::spawn(move || {
            let mut most = 0;
            while matches!(end.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout)) {
                most = most.max(memory("RssAnon").unwrap_or_default());
            }
            most.max(memory("RssAnon").unwrap_or_default())
        });
        Self { ends, most }
    }

    fn most(self) -> u64 {
        drop(self.ends);
        self.most.join().unwrap_or_default()
    }
}

/// A pool's writer whose commits are timed.
struct Timed {
    writer: PoolWriter,
    commits: Duration,
    commits_cpu: Duration,
    /// Peak memory when the first commit began.
    filling_bytes: u64,
}

impl Timed {
    fn timed(&mut self, commit: impl FnOnce(&mut PoolWriter) -> Result<u64, StoreError>) -> Result<u64, StoreError> {
        if self.filling_bytes == 0 {
            self.filling_bytes = memory("VmHWM").unwrap_or_default();
        }
        let (begun, cpu) = (Instant::now(), process_cpu());
        let done = commit(&mut self.writer);
        self.commits += begun.elapsed();
        self.commits_cpu += process_cpu() - cpu;
        done
    }
}

impl PairSink for Timed {
    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError> {
        self.writer.content(key)
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        self.writer.append(batch)
    }

    fn upsert(&mut self, batch: &[Pair]) -> Result<Upserted, StoreError> {
        self.writer.upsert(batch)
    }

    fn delete(&mut self, keys: &[Key]) -> Result<u64, StoreError> {
        self.writer.delete(keys)
    }

    fn delete_where(&mut self, filter: &Filter, cancel: &Cancel) -> Result<u64, StoreError> {
        self.writer.delete_where(filter, cancel)
    }

    fn searchable(&self) -> Option<&dyn PairStore> {
        self.writer.searchable()
    }

    fn progress(&self) -> &[u8] {
        PairSink::progress(&self.writer)
    }

    fn commit_with(&mut self, progress: &[u8], cancel: &Cancel) -> Result<u64, StoreError> {
        self.timed(|writer| writer.commit_with(progress, cancel))
    }

    fn commit(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        self.timed(|writer| writer.commit(cancel))
    }
}
