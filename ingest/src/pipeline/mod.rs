//! Threads, queues, order, commits: the run.
//!
//! ```text
//!   reader ──rows (1)──► caller: admit ──chunks──► N workers ──decided chunks──► caller: put in order, append, commit
//! ```
//!
//! One thread reads, N work, and the caller's thread does the rest: it asks the sink which keys are there (so that a row the pool
//! has is never encoded again), hands chunks out, takes them back in any order and writes them in source order.
//!
//! Bounds: at most [`chunks_in_flight`] chunks are admitted and not yet written. The queues to and from the workers are that
//! long, so that nobody ever waits to send on them and a deadlock is impossible; the buffer that restores the order cannot hold
//! more either. Before them are one chunk in the reader's queue, one in its hands, and one record batch.
//!
//! | file | |
//! | --- | --- |
//! | `options.rs` | what a run is told |
//! | `admit.rs` | rows as they are read: keys, known rows, duplicates |
//! | `write.rs` | decided rows: order, sink, reject list, commits, report |
//!
//! A commit is never interrupted: it is what keeps accepted rows.

mod admit;
mod options;
mod write;

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anchorite_encoder::EncodeError;
use anchorite_index::{Cancel, PairSink};
use crossbeam_channel::{Receiver, RecvError, Select, Sender, bounded};

use crate::{
    IngestError, IngestFailure, IngestReport, Progress, Summary,
    journal::Journal,
    near::NearRows,
    prepare::{Chunk, DecidedChunk, Expected, Workshop},
    reader::{Begun, Read, Total, read_all},
    reject_list::{self, Listed, RejectList},
    resume::{ListMark, Start, Watermark},
    source::{self, Settings, Shard},
};
use write::count_left_out;

pub(crate) use admit::derived_key;
pub use options::{BadPart, IngestJob, IngestOptions, Missing, OnChange, Part, Vectors};

/// Chunks that may be admitted and not yet written: each worker has one in hand, one waiting, and one of slack in which a slow
/// chunk is overtaken.
#[must_use]
pub fn chunks_in_flight(workers: usize) -> usize {
    workers.saturating_mul(3)
}

/// Reads every source, and puts its pairs into the sink in source order. Commits at the end and every
/// [`IngestOptions::commit_rows`]. Raising `cancel` ends the run soon, with what is complete committed and
/// [`Outcome::Interrupted`].
///
/// # Errors
/// [`IngestFailure`]: a source that cannot be read (on), the sink's or the encoder's failure, an unwritable reject list or summary. What was
/// accepted before is committed, unless it is the sink that failed.
pub fn ingest(
    job: IngestJob<'_>,
    sink: &mut dyn PairSink,
    progress: &mut dyn Progress,
    cancel: &Cancel,
) -> Result<IngestReport, IngestFailure> {
    let result = run(job, sink, progress, cancel);
    let Some(path) = &job.options.summary else { return result };
    let written = Summary::of(job.sources, &result).write(path);
    match (result, written) {
        (Ok(report), Err(source)) => {
            let error = IngestError::Summary { path: path.clone(), source };
            Err(IngestFailure { error, report: Some(Box::new(report)) })
        }
        (result, _) => result,
    }
}

fn run(
    job: IngestJob<'_>,
    sink: &mut dyn PairSink,
    progress: &mut dyn Progress,
    cancel: &Cancel,
) -> Result<IngestReport, IngestFailure> {
    check(job)?;
    let mut found = source::find(job.sources, job.options.source_root.as_deref(), &job.options.limits, &job.options.reach)?
        .with_distinct_names()?;
    if let Some(part) = job.options.part {
        part.keep(&mut found.shards);
    }
    let settings = settings(job);
    let watermark = Watermark::decode(sink.progress());
    let (mark, list) = (watermark.list, job.options.rejects.as_deref());
    let at_hand = reject_list::is_at_hand(list, mark);
    let journal = Journal::new(watermark, &found.shards, &settings, job.options, at_hand);
    let mut desk = Desk::new(job, sink, progress, journal);
    desk.open_list(if at_hand { mark } else { ListMark::default() })?;
    (desk.report.sidecars, desk.report.owned_pictures) = (found.sidecars, found.owned_pictures);
    desk.report.ignored_files = found.ignored;
    desk.report.failed_before = found.shards.iter().map(|shard| shard.failed_before(&job.options.reach)).sum();
    let ended = desk.run(&found.shards, settings, cancel);
    desk.finish(ended, cancel)
}

fn settings(job: IngestJob<'_>) -> Settings {
    let options = job.options;
    Settings {
        columns: options.columns.clone(),
        mode: job.vectors.mode(),
        limits: options.limits.clone(),
        reach: options.reach.clone(),
    }
}

fn check(job: IngestJob<'_>) -> Result<(), IngestError> {
    use crate::ColumnChoice::Absent;
    let columns = &job.options.columns;
    let reason = match job.vectors {
        Vectors::Encode(_) if columns.image == Absent && columns.caption == Absent => {
            "pictures and captions are both turned off; nothing is left to ingest"
        }
        Vectors::Ready { .. } if columns.image_vector == Absent && columns.text_vector == Absent => {
            "image and text vectors are both turned off; nothing is left to ingest"
        }
        _ => return Ok(()),
    };
    Err(IngestError::Options { reason })
}

fn rejects_error(options: &IngestOptions, source: std::io::Error) -> IngestError {
    IngestError::Rejects { path: options.rejects.clone().unwrap_or_default(), source }
}

/// The caller's thread: everything that touches the sink, the report and the reject list.
struct Desk<'a> {
    job: IngestJob<'a>,
    sink: &'a mut dyn PairSink,
    progress: &'a mut dyn Progress,
    rejects: Option<RejectList>,
    journal: Journal,
    /// The shard whose rows come from the reader.
    shard: usize,
    report: IngestReport,
    workers: usize,
    started: Instant,
    /// What there is to read, those rows that are passed over not counted.
    total: Option<Total>,
    /// Bytes of the shards that are through, and of the present one that have been read.
    bytes: (u64, u64),
    /// Explicit keys met in this run, as 128 bits of their SHA-256.
    met: HashSet<[u8; 16]>,
    /// Contents met in this run, likewise, when duplicates are dropped.
    contents: HashSet<[u8; 16]>,
    uncommitted: u64,
    committed_at: Instant,
    /// What commits of this run have cost, and the rows that were in them.
    committing: Duration,
    committed: u64,
    /// Rows the encoder failed on one after another, and its last word.
    encoder_failures: u64,
    encoder_message: String,
    next_to_admit: u64,
    next_to_write: u64,
    waiting: BTreeMap<u64, DecidedChunk>,
    near: Option<NearRows>,
    expected: Expected,
}

/// The caller's ends of the queues.
struct Queues {
    rows: Receiver<Read>,
    chunks: Sender<Chunk>,
    decided: Receiver<Result<DecidedChunk, IngestError>>,
}

/// What the caller's thread waits for.
enum Event {
    Decided(Result<Result<DecidedChunk, IngestError>, RecvError>),
    Read(Result<Read, RecvError>),
}

impl Queues {
    /// Whichever comes first.
    fn next(&self) -> Event {
        let mut either = Select::new();
        let decided = either.recv(&self.decided);
        either.recv(&self.rows);
        let ready = either.select();
        if ready.index() == decided { Event::Decided(ready.recv(&self.decided)) } else { Event::Read(ready.recv(&self.rows)) }
    }
}

impl<'a> Desk<'a> {
    fn new(job: IngestJob<'a>, sink: &'a mut dyn PairSink, progress: &'a mut dyn Progress, journal: Journal) -> Self {
        Self {
            job,
            sink,
            progress,
            rejects: None,
            journal,
            shard: 0,
            report: IngestReport::default(),
            workers: 1,
            started: Instant::now(),
            total: None,
            bytes: (0, 0),
            met: HashSet::new(),
            contents: HashSet::new(),
            uncommitted: 0,
            committed_at: Instant::now(),
            committing: Duration::ZERO,
            committed: 0,
            encoder_failures: 0,
            encoder_message: String::new(),
            next_to_admit: 0,
            next_to_write: 0,
            waiting: BTreeMap::new(),
            near: NearRows::of(&job.options.filters),
            expected: Expected::default(),
        }
    }

    /// Begins the reject list with what earlier runs listed and this one does not read again, and counts what they settled.
    fn open_list(&mut self, mark: ListMark) -> Result<(), IngestError> {
        let (rows, left_out) = self.journal.passed_over();
        self.report.rows_read = rows;
        self.report.rows_passed_over = rows;
        self.report.already_present = rows - left_out.min(rows);
        let Some(path) = &self.job.options.rejects else { return Ok(()) };
        let (journal, report) = (&self.journal, &mut self.report);
        let mut keep = |entry: &Listed| match journal.start_of(&entry.file) {
            None => true,
            Some(Start::First) => false,
            Some(Start::After(_) | Start::Finished) => {
                count_left_out(report, &entry.code);
                true
            }
        };
        let list = RejectList::create(path, mark, &mut keep).map_err(|e| rejects_error(self.job.options, e))?;
        self.rejects = Some(list);
        Ok(())
    }

    /// Runs the threads until every row is decided, the run is cancelled, or it fails.
    fn run(&mut self, shards: &[Shard], settings: Settings, cancel: &Cancel) -> Result<(), IngestError> {
        let options = self.job.options;
        let workers = options.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        self.workers = workers;
        let most = chunks_in_flight(workers);
        let settings = Arc::new(settings);
        let begun: Vec<Begun<'_>> = shards.iter().zip(self.journal.starts()).collect();
        let stop = Cancel::default();
        let workshop = Workshop {
            vectors: self.job.vectors,
            missing: options.missing,
            filters: &options.filters,
            store_pictures: options.store_pictures,
            batch: options.batch.get(),
            cancel,
            stop: &stop,
        };
        thread::scope(|scope| {
            let (rows_in, rows) = bounded(1);
            let (chunks, chunks_out) = bounded::<Chunk>(most);
            let (decided_in, decided) = bounded(most);
            let (begun, settings) = (&begun, &settings);
            scope.spawn(move || read_all(begun, settings, &rows_in));
            for _ in 0..workers {
                let (chunks, decided, workshop) = (chunks_out.clone(), decided_in.clone(), &workshop);
                scope.spawn(move || work_all(workshop, &chunks, &decided));
            }
            drop((chunks_out, decided_in));
            let queues = Queues { rows, chunks, decided };
            let result = self.serve(&queues, most, cancel);
            // On failure the workers leave what they have; the reader ends when its queue is dropped here.
            stop.cancel();
            drop(queues);
            result
        })
    }

    fn serve(&mut self, queues: &Queues, most: usize, cancel: &Cancel) -> Result<(), IngestError> {
        let mut reading = true;
        let mut failure = None;
        loop {
            let in_flight = usize::try_from(self.next_to_admit - self.next_to_write).unwrap_or(usize::MAX);
            reading &= !cancel.is_cancelled();
            let decided = if reading && in_flight < most {
                match queues.next() {
                    Event::Decided(decided) => decided,
                    Event::Read(Ok(Read::Failed(error))) => {
                        (failure, reading) = (Some(error), false);
                        continue;
                    }
                    Event::Read(Ok(read)) => {
                        self.take(read, queues)?;
                        continue;
                    }
                    Event::Read(Err(_)) => {
                        reading = false;
                        continue;
                    }
                }
            } else if in_flight > 0 {
                queues.decided.recv()
            } else {
                return failure.map_or(Ok(()), |error| Err(error.into()));
            };
            let gone = || IngestError::Worker { reason: "every worker has ended".to_owned() };
            self.settle(decided.map_err(|_| gone())??)?;
        }
    }

    fn take(&mut self, read: Read, queues: &Queues) -> Result<(), IngestError> {
        match read {
            Read::Total(total) => self.total = Some(total),
            Read::Opened(shard, source) => {
                self.shard = shard;
                self.expected = Expected::of(&source.columns, self.job.vectors);
                self.progress.opened(&source);
                self.report.sources.push(source);
            }
            Read::Closed(source, rows) => {
                self.bytes = (self.bytes.0 + self.bytes.1, 0);
                self.journal.close(self.shard, rows);
                if let Some(last) = self.report.sources.last_mut() {
                    *last = source;
                }
            }
            Read::Rows(read) => {
                self.report.stages.reading += read.time.as_secs_f64();
                self.report.stages.reading_held_up += read.held_up.as_secs_f64();
                self.journal.read(self.shard, read.own);
                self.bytes.1 = read.position.unwrap_or_default();
                let rows = read.rows;
                match self.admit(rows)?.decided() {
                    Ok(decided) => self.settle(decided)?,
                    // The queue holds every chunk in flight, so this waits for nobody.
                    Err(chunk) => queues
                        .chunks
                        .send(chunk)
                        .map_err(|_| IngestError::Worker { reason: "no worker takes chunks".to_owned() })?,
                }
            }
            Read::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A worker's thread. Ends when there are no more chunks, or when nobody takes what it has.
fn work_all(workshop: &Workshop<'_>, chunks: &Receiver<Chunk>, decided: &Sender<Result<DecidedChunk, IngestError>>) {
    let mut free = Instant::now();
    for chunk in chunks {
        let idle = free.elapsed();
        // A panic ends the run with an error; nothing the panicking chunk left behind is used again.
        let worked = catch_unwind(AssertUnwindSafe(|| workshop.work(chunk)));
        free = Instant::now();
        let result = match worked {
            Ok(result) => result.map(|decided| DecidedChunk { idle, ..decided }).map_err(|error: EncodeError| error.into()),
            Err(panic) => Err(IngestError::Worker { reason: crate::panic_message(&*panic) }),
        };
        if decided.send(result).is_err() {
            return;
        }
    }
}
