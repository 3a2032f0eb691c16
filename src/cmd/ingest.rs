//! `anchorite ingest`: datasets into a pool.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anchorite::{
    encoder::{AgreementLimits, Encode, Encoder, hub::HubOptions},
    index::{
        BuildParams, Builder, Cancel, Precision, Spec,
        pool::{PoolWriter, WriterOptions},
    },
    ingest::{
        ColumnChoice, ColumnOptions, Earlier, Estimate, Filters, HubSource, IngestFailure, IngestJob, IngestOptions,
        IngestReport, Missing, OnChange, Outcome, Part, ProgressUpdate, Script, Vectors, holds_only_vectors, ingest, plan,
        sample_agreement,
    },
};
use anyhow::{Context, Result, bail};
use clap::builder::FalseyValueParser;

use super::tasks;
use crate::{
    exit::Exit,
    interrupt,
    open::{ModelArgs, Use},
    output::{bytes, count, json, line},
    progress::{Shown, say},
};

/// Rows that a dry run prepares.
const CHECKED_ROWS: usize = 8;

/// What the fingerprint of a pool begins with whose vectors came ready made.
pub(crate) const VECTORS_FROM: &str = "vectors:";

/// What builds a segment's graph.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum GraphBuilder {
    /// The crate hnsw_rs.
    HnswRs,
    /// Our own inserter.
    #[default]
    Own,
}

impl From<GraphBuilder> for Builder {
    fn from(builder: GraphBuilder) -> Self {
        match builder {
            GraphBuilder::HnswRs => Self::HnswRs,
            GraphBuilder::Own => Self::Own,
        }
    }
}

/// What a pool keeps of every vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeptVectors {
    /// Half precision beside the 7-bit rows that are searched: scores are those of half precision.
    F16,
    /// The 7-bit rows alone: a third of the bytes of vectors, and all scores are theirs, those of exact searches too.
    #[value(name = "7-bit")]
    SevenBit,
}

impl From<KeptVectors> for Precision {
    fn from(kept: KeptVectors) -> Self {
        match kept {
            KeptVectors::F16 => Self::Half,
            KeptVectors::SevenBit => Self::SevenBit,
        }
    }
}

/// What becomes of changed rows.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Changed {
    /// Replace what is surely the same row, reject others.
    #[default]
    SameSource,
    /// Replace.
    Upsert,
    /// Reject.
    Reject,
}

/// The pool that is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) builder: Builder,
    /// Whether commits join small segments.
    pub(crate) merge: bool,
    /// What is kept of every vector; `None` for what the pool keeps.
    pub(crate) precision: Option<Precision>,
}

/// What to ingest, and where to.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Parquet files, WebDataset tars, tables (CSV, TSV, JSON lines), folders of these or of pictures with captions beside them,
    /// clip-retrieval folders, datasets of the Hugging Face hub (hf://datasets/org/name[@revision][/path or pattern]), and patterns such as 'cc3m/{00000..00331}.tar' or 'data/**/*.parquet'.
    #[arg(required_unless_present = "tasks")]
    sources: Vec<PathBuf>,
    /// Take the names of shards from standard input, one a line, and print a JSON line for each when its rows are safe in the pool.
    #[arg(long, env = "ANCHORITE_TASKS", value_name = "-", value_parser = ["-"], conflicts_with_all = ["sources", "dry_run", "part"])]
    tasks: Option<String>,
    /// Ingest every n-th file only, beginning with number i (from 0): of n machines, each its part. Pools are put together afterwards.
    #[arg(long = "shard", env = "ANCHORITE_SHARD", value_name = "I/N")]
    part: Option<Part>,
    /// The pool's folder; made when missing.
    #[arg(long, env = "ANCHORITE_POOL", value_name = "DIR")]
    pool: PathBuf,
    /// The folder that the names of sources are relative to. Default: a source is called after its folder and itself.
    #[arg(long, env = "ANCHORITE_SOURCE_ROOT", value_name = "DIR")]
    source_root: Option<PathBuf>,
    /// The column of pictures; in a tar the endings of picture members (png;jpg). Default: detected by name and type.
    #[arg(long, env = "ANCHORITE_IMAGE_COLUMN", value_name = "NAME")]
    image_column: Option<String>,
    /// The column of captions; in a tar a member's ending or a field of its json. Default: detected by name and type.
    #[arg(long, env = "ANCHORITE_CAPTION_COLUMN", value_name = "NAME")]
    caption_column: Option<String>,
    /// A column whose values name the pairs; in a tar a field of its json, or __key__. Default: a hash of source name and row.
    #[arg(long, env = "ANCHORITE_KEY_COLUMN", value_name = "NAME")]
    key_column: Option<String>,
    /// A column of ready image vectors. Default: detected by name and type when the source has no pictures.
    #[arg(long, env = "ANCHORITE_IMAGE_VECTOR_COLUMN", value_name = "NAME")]
    image_vector_column: Option<String>,
    /// A column of ready text vectors.
    #[arg(long, env = "ANCHORITE_TEXT_VECTOR_COLUMN", value_name = "NAME")]
    text_vector_column: Option<String>,
    /// Vectors are ready made; say by which model with --model, or by any name with --vectors-from.
    #[arg(long, env = "ANCHORITE_READY_VECTORS", value_parser = FalseyValueParser::new())]
    ready_vectors: bool,
    /// A name for whatever made the ready vectors, where its model is not at hand. Such a pool answers no words or pictures.
    #[arg(long, env = "ANCHORITE_VECTORS_FROM", value_name = "NAME")]
    vectors_from: Option<String>,
    /// Keep rows that lack their picture or caption; by default they are rejected.
    #[arg(long, env = "ANCHORITE_KEEP_HALF", value_parser = FalseyValueParser::new())]
    keep_half: bool,
    /// Leave out rows whose caption has fewer words.
    #[arg(long, env = "ANCHORITE_MIN_CAPTION_WORDS", value_name = "WORDS")]
    min_caption_words: Option<usize>,
    /// Leave out rows whose caption has more words.
    #[arg(long, env = "ANCHORITE_MAX_CAPTION_WORDS", value_name = "WORDS")]
    max_caption_words: Option<usize>,
    /// Leave out rows of whose caption's letters fewer than half are of this script (Latin, Cyrillic, Han, ...); may be given again.
    #[arg(long, env = "ANCHORITE_CAPTION_SCRIPT", value_name = "SCRIPT", value_delimiter = ',')]
    caption_script: Vec<Script>,
    /// Leave out rows of whose caption's words more than this share stood in it before (it is 0.67 for "sale sale sale").
    #[arg(long, env = "ANCHORITE_MAX_REPETITION", value_name = "SHARE")]
    max_repetition: Option<f32>,
    /// Leave out pictures whose shorter edge has fewer pixels.
    #[arg(long, env = "ANCHORITE_MIN_IMAGE_EDGE", value_name = "PIXELS")]
    min_image_edge: Option<u32>,
    /// Leave out pairs whose picture and caption have a smaller cosine.
    #[arg(long, env = "ANCHORITE_MIN_CLIP_SCORE", value_name = "COSINE", allow_hyphen_values = true)]
    min_clip_score: Option<f32>,
    /// Leave out rows whose picture and caption an earlier row of this run has, byte by byte.
    #[arg(long, env = "ANCHORITE_DROP_DUPLICATES", value_parser = FalseyValueParser::new())]
    drop_duplicates: bool,
    /// Leave out rows whose picture has at least this cosine with that of an earlier row or of a pair of the pool; 0.95 finds other sizes
    /// and qualities of one picture.
    #[arg(long, env = "ANCHORITE_NEAR_DUPLICATES", value_name = "COSINE")]
    near_duplicates: Option<f32>,
    /// What happens to a row whose key the pool has for another picture or caption: it takes the other's place (upsert), is rejected
    /// (reject), or the first if it is surely the same row (same-source): by key column, or from the same path as before.
    #[arg(long, env = "ANCHORITE_ON_CHANGE", value_enum, default_value_t)]
    on_change: Changed,
    /// Read sources again that an earlier run has finished; brings back pairs that were deleted.
    #[arg(long, env = "ANCHORITE_READ_AGAIN", value_parser = FalseyValueParser::new())]
    read_again: bool,
    /// Rows after which what was accepted is made safe; beside that, it is every 15 minutes and at the end. Default: 100000.
    #[arg(long, env = "ANCHORITE_COMMIT_ROWS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_rows: Option<u64>,
    /// What builds the graph: own, or hnsw-rs, which takes five times as long for the same recall.
    #[arg(long, env = "ANCHORITE_BUILDER", value_enum, default_value_t)]
    builder: GraphBuilder,
    /// What a new pool keeps of every vector; one that is there keeps to what it was made with. Default: f16.
    #[arg(long, env = "ANCHORITE_PRECISION", value_enum)]
    precision: Option<KeptVectors>,
    /// Leave segments as commits make them: faster now, slower to search until `anchorite pool compact`.
    #[arg(long, env = "ANCHORITE_NO_MERGE", value_parser = FalseyValueParser::new())]
    no_merge: bool,
    /// Do not store the pictures themselves.
    #[arg(long, env = "ANCHORITE_NO_PICTURES", value_parser = FalseyValueParser::new())]
    no_pictures: bool,
    /// Exit with 3 when more rows than this are rejected. Default: any number.
    #[arg(long, env = "ANCHORITE_MAX_REJECTS", value_name = "N")]
    max_rejects: Option<u64>,
    /// Where rejected rows are listed. Default: POOL.rejects.parquet, beside the pool.
    #[arg(long, env = "ANCHORITE_REJECTS", value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long, env = "ANCHORITE_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let options = args.options();
    // Of names that are still to come nothing can be told.
    let sources = local(&args.sources, &args.model.runtime.hub_options())?;
    let ready = args.names_vectors() || args.tasks.is_none() && holds_only_vectors(&sources)?;
    let encoder = match (&args.model.model, ready, &args.vectors_from) {
        (_, true, Some(_)) => None,
        (None, true, None) => bail!("which model made the ready vectors? say --model, or give it any name with --vectors-from"),
        _ => Some(args.model.open(if ready { Use::Queries } else { Use::Ingest })?),
    };
    let checked = encoder.as_deref().filter(|_| args.model.int8 && !ready);
    if let Some(encoder) = checked.filter(|_| args.tasks.is_none()) {
        check_int8(args, &sources, &options, encoder)?;
    }
    if args.dry_run {
        return dry_run(args, &sources, &options, encoder.as_deref().filter(|_| !ready));
    }
    let spec = args.spec(encoder.as_ref(), &sources, &options)?;
    let vectors = match &encoder {
        Some(encoder) if !ready => Vectors::Encode(&**encoder),
        _ => Vectors::Ready { dim: Some(spec.dim) },
    };
    if args.tasks.is_some() {
        let hub = args.model.runtime.hub_options();
        let check = |sources: &[PathBuf]| checked.map_or(Ok(()), |encoder| check_int8(args, sources, &options, encoder));
        return tasks::run(&mut Filling::open(&args.target(&spec), vectors, &options)?, &hub, args.max_rejects, &check);
    }
    let report = fill(&sources, &args.target(&spec), vectors, &options)?;
    if args.json {
        json(&report)?;
    } else {
        describe(&report, options.rejects.as_deref());
    }
    Ok(match report.outcome {
        Outcome::TooManyRejects => {
            let allowed = args.max_rejects.unwrap_or_default();
            say(&format!("{} rows were rejected, --max-rejects allows {allowed}; the others are in the pool", report.rejected));
            Exit::TooManyRejects
        }
        Outcome::Interrupted => Exit::Interrupted,
        _ => Exit::Done,
    })
}

/// Refuses matrices in 8 bits where they change too much on the first rows.
fn check_int8(args: &Args, sources: &[PathBuf], options: &IngestOptions, quick: &Encoder) -> Result<()> {
    let exact = args.model.as_stored().open(Use::Ingest)?;
    let found = sample_agreement(sources, options, &*exact, quick)?;
    for (half, agreement) in [("pictures", found.image), ("captions", found.text)] {
        if let Some(a) = agreement {
            let figures =
                format!("{:.4} mean, {:.4} lowest centred cosine, recall@10 {:.4}", a.mean_cosine, a.lowest_cosine, a.recall);
            say(&format!("int8 against the model itself on {} {half}: {figures}", a.items));
        }
    }
    found.check(&AgreementLimits::default()).context("--int8 is refused on these rows; ingest without it")
}

impl Args {
    /// Whether the flags say that vectors are ready made.
    fn names_vectors(&self) -> bool {
        let columns = [&self.image_vector_column, &self.text_vector_column];
        self.ready_vectors || self.vectors_from.is_some() || columns.iter().any(|c| c.is_some())
    }

    fn options(&self) -> IngestOptions {
        let choice = |named: &Option<String>| named.clone().map_or(ColumnChoice::Auto, ColumnChoice::Named);
        IngestOptions {
            columns: ColumnOptions {
                image: choice(&self.image_column),
                caption: choice(&self.caption_column),
                key: self.key_column.clone(),
                image_vector: choice(&self.image_vector_column),
                text_vector: choice(&self.text_vector_column),
            },
            missing: if self.keep_half { Missing::KeepHalf } else { Missing::Reject },
            filters: Filters {
                min_caption_words: self.min_caption_words,
                max_caption_words: self.max_caption_words,
                scripts: self.caption_script.clone(),
                max_repetition: self.max_repetition,
                min_image_edge: self.min_image_edge,
                min_clip_score: self.min_clip_score,
                near_duplicate: self.near_duplicates,
                drop_duplicates: self.drop_duplicates,
            },
            store_pictures: !self.no_pictures,
            workers: Some(self.model.thread_count()),
            max_rejects: self.max_rejects,
            source_root: self.source_root.clone(),
            part: self.part,
            on_change: match self.on_change {
                Changed::SameSource => OnChange::SameSource,
                Changed::Upsert => OnChange::Upsert,
                Changed::Reject => OnChange::Reject,
            },
            earlier: if self.read_again { Earlier::ReadAgain } else { Earlier::GoOn },
            commit_rows: self.commit_rows.unwrap_or(IngestOptions::default().commit_rows),
            rejects: Some(self.rejects.clone().unwrap_or_else(|| rejects_beside(&self.pool))),
            ..IngestOptions::default()
        }
    }

    fn target<'a>(&'a self, spec: &'a Spec) -> Target<'a> {
        Target {
            dir: &self.pool,
            spec,
            builder: self.builder.into(),
            merge: !self.no_merge,
            precision: self.precision.map(Into::into),
        }
    }

    /// What the pool is bound to: the model, or the name given for ready vectors and the dimension they have.
    fn spec(&self, encoder: Option<&Arc<Encoder>>, sources: &[PathBuf], options: &IngestOptions) -> Result<Spec> {
        if let Some(encoder) = encoder {
            return Ok(Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() });
        }
        let name = self.vectors_from.as_deref().context("name what made the vectors with --vectors-from")?;
        let found = plan(IngestJob { sources, vectors: Vectors::Ready { dim: None }, options }, 1)?;
        let dim = found.dim.context("the first source has no vector in its first rows")?;
        Ok(Spec { encoder: format!("{VECTORS_FROM}{name}"), dim })
    }
}

/// The sources as paths: datasets of the hub are downloaded.
pub(super) fn local(sources: &[PathBuf], hub: &HubOptions) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for source in sources {
        match HubSource::parse(source) {
            None => paths.push(source.clone()),
            Some(dataset) => {
                let fetched = dataset.fetch(hub, &say)?;
                say(&format!("{} is {}", source.display(), fetched.pinned));
                paths.extend(fetched.sources);
            }
        }
    }
    Ok(paths)
}

/// The list of rejects beside the pool `dir`.
pub(crate) fn rejects_beside(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".rejects.parquet");
    PathBuf::from(name)
}

/// A pool that is open for filling, with its progress on the terminal.
pub(crate) struct Filling<'a> {
    writer: PoolWriter,
    vectors: Vectors<'a>,
    options: &'a IngestOptions,
    building: Arc<Shown>,
    cancel: Cancel,
}

impl<'a> Filling<'a> {
    /// Opens the pool; from now on Ctrl-C is a wish to end well. Call once.
    pub(crate) fn open(target: &Target<'_>, vectors: Vectors<'a>, options: &'a IngestOptions) -> Result<Self> {
        let Target { dir, spec, builder, merge, precision } = *target;
        let cancel = interrupt::on_signal()?;
        let building = Arc::new(Shown::new("index"));
        let built = Arc::clone(&building);
        let on_build: anchorite::index::pool::ProgressReport =
            Arc::new(move |at| built.at(at.done, at.total, &format!("{} graph", at.side)));
        let build = BuildParams { builder, ..BuildParams::default() };
        let model = match vectors {
            Vectors::Encode(encoder) => encoder.name().to_owned(),
            Vectors::Ready { .. } => String::new(),
        };
        let writer_options = WriterOptions { build, model, precision, on_build: Some(on_build), ..WriterOptions::default() };
        let writer_options = if merge { writer_options } else { WriterOptions { merge: None, ..writer_options } };
        let writer = PoolWriter::open(dir, spec, &writer_options).with_context(|| format!("open the pool {}", dir.display()))?;
        Ok(Self { writer, vectors, options, building, cancel })
    }

    /// Raised by Ctrl-C.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Ingests `sources`, showing progress.
    pub(crate) fn ingest(&mut self, sources: &[PathBuf]) -> Result<IngestReport, IngestFailure> {
        let shown = Shown::new("ingest");
        let mut progress = |at: &ProgressUpdate| {
            let left = at.remaining.map_or_else(String::new, |left| format!(", {} left", duration(left)));
            let slowest = at.bottleneck.map_or_else(String::new, |stage| format!(", most time in {}", stage.name()));
            let remark = format!("{:.1} rows/s, {} rejected{left}{slowest}", at.rows_per_second, at.rejected);
            shown.at(at.rows_done, at.rows_total.unwrap_or(0), &remark);
        };
        let job = IngestJob { sources, vectors: self.vectors, options: self.options };
        let result = ingest(job, &mut self.writer, &mut progress, &self.cancel);
        shown.finish();
        self.building.finish();
        if matches!(&result, Ok(report) if report.outcome == Outcome::Interrupted) {
            say("interrupted: what was accepted is in the pool; the same command again does the rest");
        }
        result
    }
}

/// Ingests `sources` into the pool, showing progress.
pub(crate) fn fill(
    sources: &[PathBuf],
    target: &Target<'_>,
    vectors: Vectors<'_>,
    options: &IngestOptions,
) -> Result<IngestReport> {
    Filling::open(target, vectors, options)?.ingest(sources).map_err(|failure| {
        if let Some(report) = &failure.report {
            say(&format!("kept before the failure: {} pairs, {} rejected", report.accepted, report.rejected));
        }
        anyhow::Error::new(failure)
    })
}

/// The report for people.
pub(crate) fn describe(report: &IngestReport, rejects: Option<&Path>) {
    line(&format!(
        "{} rows: {} accepted, {} there already, {} rejected; {:.1} s, {:.1} pictures/s",
        report.rows_read, report.accepted, report.already_present, report.rejected, report.seconds, report.images_per_second
    ));
    if report.replaced > 0 {
        line(&format!("{} pairs were replaced, since their rows had changed", report.replaced));
    }
    if report.rows_passed_over > 0 {
        line(&format!("{} rows of unchanged files were settled by earlier runs and not read again", report.rows_passed_over));
    }
    if report.filtered > 0 {
        line(&format!("{} rows were filtered out", report.filtered));
    }
    if report.sidecars > 0 {
        line(&format!("{} files of img2dataset beside its shards are no sources and were passed over", report.sidecars));
    }
    if report.owned_pictures > 0 {
        line(&format!("{} pictures lie below a table and were read only as it names them", report.owned_pictures));
    }
    if report.truncated_captions > 0 {
        line(&format!("{} captions were longer than the text tower reads and were cut", report.truncated_captions));
    }
    for (reason, count) in report.rejected_by_reason.iter().chain(&report.filtered_by_reason) {
        line(&format!("  {count} x {reason}"));
    }
    if let (Some(path), true) = (rejects, report.rejected + report.filtered > 0) {
        line(&format!("rows left out are listed in {}", path.display()));
    }
}

fn dry_run(args: &Args, sources: &[PathBuf], options: &IngestOptions, encoder: Option<&Encoder>) -> Result<Exit> {
    let vectors = encoder.map_or(Vectors::Ready { dim: None }, |e| Vectors::Encode(e));
    let found = plan(IngestJob { sources, vectors, options }, CHECKED_ROWS)?;
    if args.json {
        json(&found)?;
        return Ok(Exit::Done);
    }
    let about = if found.estimated { "about " } else { "" };
    let files = count(found.sources.len() as u64, "file");
    line(&format!("{about}{} rows in {files} would be ingested into {}", found.rows, args.pool.display()));
    for source in &found.sources {
        let used = &source.columns;
        let name = |column: &Option<String>| column.clone().unwrap_or_else(|| "none".to_owned());
        line(&format!(
            "{}: {}{} rows; picture {}, caption {}, image vector {}, text vector {}, metadata {}",
            source.name,
            if source.estimated { "about " } else { "" },
            source.rows,
            name(&used.image),
            name(&used.caption),
            name(&used.image_vector),
            name(&used.text_vector),
            if used.fields.is_empty() { "none".to_owned() } else { used.fields.join(", ") }
        ));
    }
    if let Some(estimate) = &found.estimate {
        line(&estimated(estimate));
    }
    for row in &found.checked {
        line(&format!("{} row {}: {}", row.file, row.row, row.problem.as_deref().unwrap_or("fine")));
    }
    Ok(Exit::Done)
}

/// A time for people.
fn duration(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3_600, time.as_secs() / 60 % 60, time.as_secs_f64() % 60.0);
    match (hours, minutes) {
        (0, 0) => format!("{seconds:.1} s"),
        (0, _) => format!("{minutes} min {seconds:.0} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

/// How long and how big, for people.
fn estimated(estimate: &Estimate) -> String {
    let time = duration(Duration::from_secs_f64(estimate.seconds));
    format!(
        "by {} rows at {:.1} rows/s: about {time} to encode and {} of pool, the neighbour graphs not counted; {} of them would go in",
        estimate.sampled_rows,
        estimate.rows_per_second,
        bytes(estimate.pool_bytes),
        estimate.accepted
    )
}
