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
//! A commit is never interrupted: it is what keeps accepted rows.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anchorite_encoder::{Encode, EncodeError};
use anchorite_index::{Cancel, Key, PairSink, SourceRef};
use crossbeam_channel::{Receiver, RecvError, Select, Sender, bounded};
use sha2::{Digest, Sha256};

use crate::{
    ColumnOptions, Earlier, Filters, IngestError, IngestFailure, IngestReport, Limits, Outcome, Progress, ProgressUpdate, Reach,
    Reject, Row, RowResult, SourceError, VectorMode,
    journal::Journal,
    prepare::{Accepted, Chunk, DecidedChunk, Decision, Expected, Slot, Workshop, row_content},
    reader::{Begun, Read, read_all},
    reject::{code, is_filter},
    reject_list::{self, Listed, RejectList},
    resume::{ListMark, Start, Watermark},
    source::{self, Settings, Shard},
};

/// Where vectors come from.
#[derive(Clone, Copy)]
pub enum Vectors<'a> {
    /// This encoder makes them from pictures and captions.
    Encode(&'a dyn Encode),
    /// The sources have them. That they are by the pool's encoder is the caller's word.
    Ready {
        /// The pool's dimension; none accepts any, which only [`crate::plan`] should.
        dim: Option<usize>,
    },
}

impl Vectors<'_> {
    pub(crate) fn mode(self) -> VectorMode {
        match self {
            Self::Encode(_) => VectorMode::Encode,
            Self::Ready { dim } => VectorMode::Ready { dim },
        }
    }
}

/// What happens to a row that lacks one half (a null picture or caption, or a null vector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// It is rejected: a pool of pairs is for pairs.
    #[default]
    Reject,
    /// Its other half is kept. A row with neither is rejected all the same.
    KeepHalf,
}

/// Every `of`-th shard, from number `index` on: of several machines, one's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: usize,
}

/// A part that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no part; write i/n with i from 0 to n - 1, as in 0/4")]
pub struct BadPart(String);

impl std::str::FromStr for Part {
    type Err = BadPart;

    fn from_str(text: &str) -> Result<Self, BadPart> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        let part = numbers.map(|(index, of)| Self { index, of }).filter(|part| part.index < part.of);
        part.ok_or_else(|| BadPart(text.to_owned()))
    }
}

impl Part {
    fn keep<T>(self, all: &mut Vec<T>) {
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            (number - 1) % self.of == self.index
        });
    }
}

/// What happens to a row whose key the pool has for another picture or caption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It takes the other's place if it is surely the same row: keys come from a key column, or the source was ingested before from
    /// the same path. Else it is a reject: two datasets may well have files of one name (`data/train-00000-of-00001.parquet`), and
    /// the second must not overwrite the first.
    #[default]
    SameSource,
    /// It takes the other's place.
    Upsert,
    /// It is a reject.
    Reject,
}

/// How to ingest.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Which columns serve.
    pub columns: ColumnOptions,
    /// Rows with one half.
    pub missing: Missing,
    /// Which rows are wanted.
    pub filters: Filters,
    /// Whether encoded picture bytes go into the pool. On by default.
    pub store_pictures: bool,
    /// Threads that decode and encode; none means one for each core.
    pub workers: Option<NonZeroUsize>,
    /// Pictures or captions that the encoder gets at once. 16.
    pub batch: NonZeroUsize,
    /// Accepted rows after which there is a commit before the end. 100,000: each commit is a segment, and many small ones make
    /// searching slower.
    pub commit_rows: u64,
    /// Time after which there is a commit likewise. 15 minutes: what a crash can cost where encoding is slow.
    pub commit_every: Duration,
    /// Changed rows.
    pub on_change: OnChange,
    /// Sources that earlier runs have read.
    pub earlier: Earlier,
    /// Rejects above which the outcome is [`Outcome::TooManyRejects`]; none means any number.
    pub max_rejects: Option<u64>,
    /// Where the list of rejects goes (parquet); none means nowhere.
    pub rejects: Option<PathBuf>,
    /// The part of the shards that this run is for; none means all of them.
    pub part: Option<Part>,
    /// The folder that the names of sources are relative to. None means that a source is called after its folder and itself.
    pub source_root: Option<PathBuf>,
    /// Where sources may lie. Anywhere.
    pub reach: Reach,
    /// Bounds.
    pub limits: Limits,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            columns: ColumnOptions::default(),
            missing: Missing::default(),
            filters: Filters::default(),
            store_pictures: true,
            workers: None,
            batch: const { NonZeroUsize::new(16).expect("16 is not zero") },
            commit_rows: 100_000,
            commit_every: Duration::from_secs(15 * 60),
            on_change: OnChange::default(),
            earlier: Earlier::default(),
            max_rejects: None,
            rejects: None,
            part: None,
            source_root: None,
            reach: Reach::default(),
            limits: Limits::default(),
        }
    }
}

/// What to ingest, and how.
#[derive(Clone, Copy)]
pub struct IngestJob<'a> {
    /// Parquet files, tars, tables, folders of them or of pictures, clip-retrieval folders, and patterns of these.
    pub sources: &'a [PathBuf],
    /// Where vectors come from.
    pub vectors: Vectors<'a>,
    /// How.
    pub options: &'a IngestOptions,
}

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
/// [`IngestFailure`]: a source that cannot be read (on), the sink's or the encoder's failure, an unwritable reject list. What was
/// accepted before is committed, unless it is the sink that failed.
pub fn ingest(
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
    rows_total: Option<u64>,
    /// Explicit keys met in this run, as 128 bits of their SHA-256.
    met: HashSet<[u8; 16]>,
    /// Contents met in this run, likewise, when duplicates are dropped.
    contents: HashSet<[u8; 16]>,
    uncommitted: u64,
    committed_at: Instant,
    /// Rows the encoder failed on one after another, and its last word.
    encoder_failures: u64,
    encoder_message: String,
    next_to_admit: u64,
    next_to_write: u64,
    waiting: BTreeMap<u64, DecidedChunk>,
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
            rows_total: None,
            met: HashSet::new(),
            contents: HashSet::new(),
            uncommitted: 0,
            committed_at: Instant::now(),
            encoder_failures: 0,
            encoder_message: String::new(),
            next_to_admit: 0,
            next_to_write: 0,
            waiting: BTreeMap::new(),
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
            Read::Total(rows) => self.rows_total = Some(self.report.rows_passed_over + rows),
            Read::Opened(shard, source) => {
                self.shard = shard;
                self.expected = Expected::of(&source.columns, self.job.vectors);
                self.report.sources.push(source);
            }
            Read::Closed(source, rows) => {
                self.journal.close(self.shard, rows);
                if let Some(last) = self.report.sources.last_mut() {
                    *last = source;
                }
            }
            Read::Rows(read) => {
                self.report.stages.reading += read.time.as_secs_f64();
                self.journal.read(self.shard, read.own);
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

    /// Gives rows their keys, and decides those that need no work.
    fn admit(&mut self, rows: Vec<RowResult>) -> Result<Chunk, IngestError> {
        let mut slots = Vec::with_capacity(rows.len());
        for row in rows {
            slots.push(match row.and_then(|row| Ok((self.key(&row)?, row))) {
                Err(reject) => Slot::Decided(Decision::Rejected(reject)),
                Ok((key, row)) => self.admit_row(key, row)?,
            });
        }
        let sequence = self.next_to_admit;
        self.next_to_admit += 1;
        Ok(Chunk { sequence, shard: self.shard, slots, expected: self.expected })
    }

    fn admit_row(&mut self, key: Key, row: Row) -> Result<Slot, IngestError> {
        let known = self.sink.content(&key)?;
        if known.is_some_and(|known| known == row_content(&row, self.job.vectors)) {
            self.duplicate(&row);
            return Ok(Slot::Decided(Decision::Present));
        }
        if known.is_some() && !self.may_replace() {
            return Ok(Slot::Decided(Decision::Rejected(changed(row.source, &key))));
        }
        Ok(match self.duplicate(&row) {
            Some(reject) => Slot::Decided(Decision::Rejected(reject)),
            None => Slot::Todo { key, row: Box::new(row), replaces: known.is_some() },
        })
    }

    /// Whether a changed row of the present shard takes the place of the pair that the pool has.
    fn may_replace(&self) -> bool {
        match self.job.options.on_change {
            OnChange::Upsert => true,
            OnChange::Reject => false,
            OnChange::SameSource => self.job.options.columns.key.is_some() || self.journal.is_known_place(self.shard),
        }
    }

    /// Notes the row's content; why the row is left out if that was met before.
    fn duplicate(&mut self, row: &Row) -> Option<Reject> {
        if !self.job.options.filters.drop_duplicates {
            return None;
        }
        let content = row_content(row, self.job.vectors).0;
        let (short, _) = content.as_chunks::<16>();
        let message = "an earlier row has the same picture and caption";
        (!self.contents.insert(short[0])).then(|| Reject::new(row.source.clone(), code::FILTERED_DUPLICATE, message))
    }

    fn key(&mut self, row: &Row) -> Result<Key, Reject> {
        if self.job.options.columns.key.is_none() {
            return Ok(derived_key(&row.source));
        }
        let refuse = |code, message: String| Err(Reject::new(row.source.clone(), code, message));
        let Some(text) = &row.key else { return refuse(code::KEY_NULL, "the key is null".to_owned()) };
        let key = match Key::new(text.as_str()) {
            Ok(key) => key,
            Err(error) => return refuse(code::KEY_INVALID, error.to_string()),
        };
        let digest: [u8; 32] = Sha256::digest(key.as_str()).into();
        let (short, _) = digest.as_chunks::<16>();
        if self.met.insert(short[0]) { Ok(key) } else { refuse(code::KEY_DUPLICATE, format!("an earlier row has the key {key}")) }
    }

    /// Takes a decided chunk, and writes those whose turn it is.
    fn settle(&mut self, chunk: DecidedChunk) -> Result<(), IngestError> {
        self.report.stages.preparing += chunk.preparing.as_secs_f64();
        self.report.stages.encoding += chunk.encoding.as_secs_f64();
        self.waiting.insert(chunk.sequence, chunk);
        while let Some(chunk) = self.waiting.remove(&self.next_to_write) {
            self.next_to_write += 1;
            self.write(chunk.shard, chunk.decisions)?;
        }
        Ok(())
    }

    fn write(&mut self, shard: usize, decisions: Vec<Decision>) -> Result<(), IngestError> {
        let counted = self.journal.count(shard, &decisions);
        let mut accepted = Vec::new();
        for (at, decision) in decisions.into_iter().enumerate() {
            match decision {
                Decision::Accepted(one) => accepted.push(*one),
                // What will be read again would be listed again.
                Decision::Rejected(_) if at >= counted => {}
                Decision::Rejected(reject) => self.reject(reject)?,
                Decision::Present => {
                    self.report.rows_read += 1;
                    self.report.already_present += 1;
                }
                Decision::Unfinished => {}
            }
        }
        self.append(accepted)?;
        let options = self.job.options;
        let due = self.uncommitted >= options.commit_rows.max(1) || self.committed_at.elapsed() >= options.commit_every;
        if due && self.uncommitted > 0 {
            self.commit()?;
        }
        self.tell();
        self.give_up_on_a_broken_encoder()
    }

    fn append(&mut self, accepted: Vec<Accepted>) -> Result<(), IngestError> {
        if accepted.is_empty() {
            return Ok(());
        }
        self.encoder_failures = 0;
        let truncated = accepted.iter().filter(|a| a.caption_truncated).count() as u64;
        let cut: u64 = accepted.iter().map(|a| a.fields_cut).sum();
        let replaces = accepted.iter().any(|a| a.replaces);
        let pairs: Vec<_> = accepted.into_iter().map(|a| a.pair).collect();
        let start = Instant::now();
        let replaced = if replaces { self.sink.upsert(&pairs)?.replaced } else { self.sink.append(&pairs).map(|()| 0)? };
        self.report.stages.writing += start.elapsed().as_secs_f64();
        let report = &mut self.report;
        report.rows_read += pairs.len() as u64;
        report.accepted += pairs.len() as u64 - replaced;
        report.replaced += replaced;
        report.images += pairs.iter().filter(|p| p.image.is_some()).count() as u64;
        report.truncated_captions += truncated;
        report.cut_fields += cut;
        self.uncommitted += pairs.len() as u64;
        Ok(())
    }

    fn reject(&mut self, reject: Reject) -> Result<(), IngestError> {
        self.report.rows_read += 1;
        count_left_out(&mut self.report, reject.code);
        if reject.code == code::ENCODE_FAILED {
            self.encoder_failures += 1;
            self.encoder_message = reject.message.to_string();
        }
        match &mut self.rejects {
            Some(list) => list.add(reject).map_err(|e| rejects_error(self.job.options, e)),
            None => Ok(()),
        }
    }

    fn give_up_on_a_broken_encoder(&self) -> Result<(), IngestError> {
        if self.encoder_failures < self.job.options.limits.max_encoder_failures {
            return Ok(());
        }
        Err(IngestError::EncoderFailing { rows: self.encoder_failures, last: self.encoder_message.clone() })
    }

    /// The list first, then rows and watermark at once: what the list has beyond them, the next run drops.
    fn commit(&mut self) -> Result<(), IngestError> {
        let listed = self.rejects.as_mut().map(RejectList::publish).transpose();
        let start = Instant::now();
        let generation = match &listed {
            Ok(mark) => {
                let progress = self.journal.watermark(*mark);
                if self.uncommitted == 0 && progress == self.sink.progress() {
                    return Ok(());
                }
                self.sink.commit_with(&progress, &Cancel::default())?
            }
            // The rows are kept under the old watermark: their sources are read again, and they are known.
            Err(_) => self.sink.commit(&Cancel::default())?,
        };
        self.report.stages.writing += start.elapsed().as_secs_f64();
        self.report.generation = Some(generation);
        (self.uncommitted, self.committed_at) = (0, Instant::now());
        listed.map(|_| ()).map_err(|e| rejects_error(self.job.options, e))
    }

    fn tell(&mut self) {
        let report = &self.report;
        // Rows that were not read took no time, and say nothing of those that are left.
        let own_rows = report.rows_read.saturating_sub(report.rows_passed_over);
        let rows_per_second = per_second(own_rows, self.started.elapsed());
        self.progress.update(&ProgressUpdate {
            rows_done: report.rows_read,
            rows_total: self.rows_total,
            accepted: report.accepted,
            rejected: report.rejected,
            already_present: report.already_present,
            rows_per_second,
            remaining: self.rows_total.map(|total| seconds_for(total.saturating_sub(report.rows_read), rows_per_second)),
            bottleneck: report.stages.slowest(self.workers),
        });
    }

    /// Commits what was accepted, puts the reject list in its place, and closes the report.
    fn finish(mut self, ended: Result<(), IngestError>, cancel: &Cancel) -> Result<IngestReport, IngestFailure> {
        let ended = match ended {
            Err(IngestError::Store(error)) => Err(IngestError::Store(error)),
            other => self.commit().and(other),
        };
        let took = self.started.elapsed();
        let mut report = self.report;
        report.seconds = took.as_secs_f64();
        report.images_per_second = per_second(report.images, took);
        report.outcome = outcome(&report, self.job.options, cancel);
        let empty = report.rows_read == 0 && report.outcome == Outcome::Done && self.job.options.part.is_none();
        match ended {
            Ok(()) if empty => {
                let sources = report.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(SourceError::Empty { sources }.into())
            }
            Ok(()) => Ok(report),
            Err(error) => Err(IngestFailure { error, report: Some(Box::new(report)) }),
        }
    }
}

/// Counts a row that was rejected or filtered out.
fn count_left_out(report: &mut IngestReport, code: &str) {
    let (count, by_reason) = match is_filter(code) {
        true => (&mut report.filtered, &mut report.filtered_by_reason),
        false => (&mut report.rejected, &mut report.rejected_by_reason),
    };
    *count += 1;
    *by_reason.entry(code.to_owned()).or_default() += 1;
}

fn outcome(report: &IngestReport, options: &IngestOptions, cancel: &Cancel) -> Outcome {
    if cancel.is_cancelled() {
        Outcome::Interrupted
    } else if options.max_rejects.is_some_and(|max| report.rejected > max) {
        Outcome::TooManyRejects
    } else {
        Outcome::Done
    }
}

/// Time that `rows` take at a rate; at most a thousand years.
fn seconds_for(rows: u64, rows_per_second: f64) -> Duration {
    Duration::from_secs_f64((rows as f64 / rows_per_second.max(1e-9)).min(3e10))
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

/// A row whose name the pool knows for another pair. Never skipped in silence: it may be another file of the same name.
fn changed(source: SourceRef, key: &Key) -> Reject {
    let message = format!(
        "the pool has pair {key}, made from another picture or caption; if this is another file of the same name, ingest it under \
         another name (--source-root), and if the row was changed, let it take the other's place with --on-change upsert"
    );
    Reject::new(source, code::KEY_CHANGED, message)
}

/// The first 32 hexadecimal digits of SHA-256 over the file's name, a zero byte and the row's number (little-endian u64).
pub(crate) fn derived_key(source: &SourceRef) -> Key {
    let digest = Sha256::new().chain_update(&source.file).chain_update([0]).chain_update(source.row.to_le_bytes()).finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Key::new(hex).expect("32 hexadecimal digits are a key")
}

/// A worker's thread. Ends when there are no more chunks, or when nobody takes what it has.
fn work_all(workshop: &Workshop<'_>, chunks: &Receiver<Chunk>, decided: &Sender<Result<DecidedChunk, IngestError>>) {
    for chunk in chunks {
        // A panic ends the run with an error; nothing the panicking chunk left behind is used again.
        let worked = catch_unwind(AssertUnwindSafe(|| workshop.work(chunk)));
        let result = match worked {
            Ok(result) => result.map_err(|error: EncodeError| error.into()),
            Err(panic) => Err(IngestError::Worker { reason: crate::panic_message(&*panic) }),
        };
        if decided.send(result).is_err() {
            return;
        }
    }
}
