//! `anchorite demo`: everything on the bundled pictures, then the page. `--check` asks the questions of `demo/queries.txt` instead, and ends.
//!
//! ```text
//!   ONNX Runtime ─► model ─► ingest demo/pairs.parquet ─► pool ─► questions, recall@10 of held-out captions ─► page
//! ```

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Instant,
};

use anchorite::{
    anchors::{Ask, Input, Retriever, recall},
    encoder::{Encode, Encoder, fetch::FetchOptions},
    index::{Builder, Cancel, PairStore, Parts, RowId, Spec, Value},
    ingest::{IngestOptions, Outcome, Vectors},
};
use anyhow::{Context, Result, ensure};
use clap::builder::FalseyValueParser;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    ingest::{Target, fill, rejects_beside},
    search::{Row, table},
    serve::serve,
};
use crate::{
    exit::Exit,
    open::{self, ModelArgs, Use},
    output::{bytes, json, line},
    progress::say,
};

/// The pool's name on the page.
const POOL: &str = "demo";
/// Pairs shown for each question.
const SHOWN: usize = 5;
/// Rows read at once while ids are collected.
const PAGE: u64 = 1_000;

/// How to show it.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ask some questions, print the answers, and end.
    #[arg(long, env = "ANCHORITE_CHECK", value_parser = FalseyValueParser::new())]
    check: bool,
    /// Address and port of the page. Port 0 takes a free one.
    #[arg(long, env = "ANCHORITE_LISTEN", default_value = "127.0.0.1:7801", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where the pool is kept. Default: the cache folder. A pool that is there already is used, so that a second start is quick.
    #[arg(long, value_name = "DIR", env = "ANCHORITE_DEMO_POOL")]
    pool: Option<PathBuf>,
    /// The bundled data. Default: `demo` in this folder, beside the executable, or where the program was built.
    #[arg(long, value_name = "DIR", env = "ANCHORITE_DEMO_DATA")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// A held-out pair: its caption is the question, its picture the answer.
#[derive(Deserialize)]
struct HeldOut {
    caption: String,
    id: String,
}

/// Wall time of one stage, and the most memory that the process had held by its end.
#[derive(Debug, Serialize)]
struct Stage {
    stage: &'static str,
    seconds: f64,
    peak_bytes: Option<u64>,
}

/// What `--check --json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    stages: Vec<Stage>,
    pictures_per_second: f64,
    rows: u64,
    recall_at_10: f64,
    chance: f64,
    held_out: usize,
    questions: Vec<Asked>,
}

#[derive(Debug, Serialize)]
struct Asked {
    question: String,
    answers: Vec<Row>,
}

/// Runs stages one after another and remembers what each took.
#[derive(Default)]
struct Stages(Vec<Stage>);

impl Stages {
    fn run<T>(&mut self, stage: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work().with_context(|| format!("demo, stage {stage}"))?;
        let done = Stage { stage, seconds: start.elapsed().as_secs_f64(), peak_bytes: peak_memory() };
        let memory = done.peak_bytes.map(|b| format!(", peak {}", bytes(b))).unwrap_or_default();
        say(&format!("{stage}: {:.1} s{memory}", done.seconds));
        self.0.push(done);
        Ok(result)
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let data = find_data(args.data.as_deref())?;
    let mut stages = Stages::default();
    stages.run("ONNX Runtime", || args.model.runtime.load())?;
    let mut model = args.model.clone();
    if model.model.is_none() {
        model.model = Some(data.join("model").to_string_lossy().into_owned());
        model.called = Some("anchorite demo".to_owned());
    }
    let encoder = stages.run("model", || model.open(Use::Ingest))?;
    let pool_dir = args.pool.clone().map_or_else(|| default_pool(&*encoder, &data), Ok)?;
    let ingested = stages.run("ingest", || ingest_pairs(&encoder, model.thread_count(), &data, &pool_dir))?;
    let Some(pictures_per_second) = ingested else { return Ok(Exit::Interrupted) };
    drop(encoder);
    let retriever = stages.run("open", || {
        let pool = open::pool(&pool_dir)?;
        open::retriever(model.open(Use::Queries)?, pool)
    })?;
    if !args.check {
        return serve(vec![(POOL.to_owned(), retriever)], args.listen, |address| line(&format!("the page: http://{address}/")));
    }
    let questions = stages.run("questions", || ask_all(&retriever, &data))?;
    let (recall_at_10, held_out) = stages.run("held-out recall", || held_out_recall(&retriever, &data))?;
    let rows = retriever.store().status().rows;
    let chance = 10.0 / rows as f64;
    report(args.json, &Checked { stages: stages.0, pictures_per_second, rows, recall_at_10, chance, held_out, questions })?;
    Ok(Exit::Done)
}

/// The folder with the bundled pairs and model.
fn find_data(named: Option<&Path>) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("demo")));
    let places = match named {
        Some(dir) => vec![dir.to_owned()],
        None => [Some(PathBuf::from("demo")), beside, Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo"))]
            .into_iter()
            .flatten()
            .collect(),
    };
    let found = places.iter().find(|dir| pairs_file(dir).is_file()).cloned();
    found
        .with_context(|| format!("no pairs.parquet in {places:?}; run in the source tree, or name its folder `demo` with --data"))
}

/// In the cache folder, named for model and data, so that a new version of either gets a pool of its own.
fn default_pool(encoder: &dyn Encode, data: &Path) -> Result<PathBuf> {
    let cache = FetchOptions::from_env().context("no cache folder; name the pool's folder with --pool")?.cache;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let pairs = pairs_file(data);
    let bytes = fs::read(&pairs).with_context(|| format!("read {}", pairs.display()))?;
    let digest = Sha256::new().chain_update(encoder.fingerprint()).chain_update(bytes).finalize();
    let name: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    Ok(cache.join(format!("demo-{name}.pool")))
}

fn pairs_file(data: &Path) -> PathBuf {
    data.join("pairs.parquet")
}

/// Ingests the bundled pairs; pairs that are there already cost nothing. Returns pictures a second; none when interrupted.
fn ingest_pairs(encoder: &Encoder, threads: NonZeroUsize, data: &Path, pool_dir: &Path) -> Result<Option<f64>> {
    let spec = Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() };
    let options = IngestOptions { workers: Some(threads), rejects: Some(rejects_beside(pool_dir)), ..IngestOptions::default() };
    let target = Target { dir: pool_dir, spec: &spec, builder: Builder::default(), merge: true, precision: None };
    let report = fill(&[pairs_file(data)], &target, Vectors::Encode(encoder), &options)?;
    ensure!(report.rejected == 0, "{} of the bundled pairs were rejected: {:?}", report.rejected, report.rejected_by_reason);
    say(&format!(
        "{} pairs accepted, {} there already; {:.1} pictures/s",
        report.accepted, report.already_present, report.images_per_second
    ));
    Ok((report.outcome != Outcome::Interrupted).then_some(report.images_per_second))
}

fn ask_all(retriever: &Retriever, data: &Path) -> Result<Vec<Asked>> {
    let path = data.join("queries.txt");
    let questions = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    questions.lines().map(str::trim).filter(|q| !q.is_empty()).map(|question| ask(retriever, question)).collect()
}

fn ask(retriever: &Retriever, question: &str) -> Result<Asked> {
    let ask = Ask { k: SHOWN, ..Ask::new(Input::Text(question.to_owned())) };
    let answers = retriever.find(&[ask], &Cancel::default())?;
    let found = answers.found.first().context("one question has one answer")?;
    let answers: Vec<Row> = retriever.anchors(found, Parts::default(), SHOWN)?.into_iter().map(Row::from).collect();
    ensure!(answers.len() == SHOWN, "`{question}` found {} pairs, not {SHOWN}", answers.len());
    Ok(Asked { question: question.to_owned(), answers })
}

/// Recall@10 of held-out captions against all pictures of the pool, and how many captions there are.
fn held_out_recall(retriever: &Retriever, data: &Path) -> Result<(f64, usize)> {
    let path = data.join("heldout.json");
    let held_out: Vec<HeldOut> =
        serde_json::from_str(&fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?)
            .with_context(|| format!("parse {}", path.display()))?;
    let rows = rows_by_id(retriever.store())?;
    let question = |pair: &HeldOut| {
        let row = rows.get(&pair.id).with_context(|| format!("held-out pair {} is not in the pool", pair.id))?;
        anyhow::Ok((Ask::new(Input::Text(pair.caption.clone())), *row))
    };
    let questions = held_out.iter().map(question).collect::<Result<Vec<_>>>()?;
    Ok((recall(retriever, &questions)?, questions.len()))
}

/// Where each pair is, by its `id` column.
fn rows_by_id(store: &dyn PairStore) -> Result<HashMap<String, RowId>> {
    let mut rows = HashMap::new();
    let total = store.status().positions;
    for start in (0..total).step_by(PAGE as usize) {
        let page: Vec<RowId> = (start..total.min(start + PAGE)).map(RowId).collect();
        for record in store.get(&page, Parts::default())?.into_iter().flatten() {
            if let Some(Value::Text(id)) = record.fields.get("id") {
                rows.insert(id.clone(), record.row);
            }
        }
    }
    Ok(rows)
}

fn report(as_json: bool, checked: &Checked) -> Result<()> {
    if as_json {
        return json(checked);
    }
    for asked in &checked.questions {
        line(&format!("\n{}", asked.question));
        table(&asked.answers);
    }
    line(&format!(
        "\nrecall@10 of {} held-out captions against {} pictures: {:.1} % (chance {:.2} %)",
        checked.held_out,
        checked.rows,
        checked.recall_at_10 * 100.0,
        checked.chance * 100.0
    ));
    Ok(())
}

/// The most resident memory this process has had, where the kernel tells.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
