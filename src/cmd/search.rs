//! `anchorite search`: the nearest pairs of words, a picture or a stored pair, from a pool or from a server.

use std::{fs, path::PathBuf, sync::Arc};

use anchorite::{
    anchors::{Anchor, Ask, Input},
    index::{Cancel, Effort, Filter, Key, PairStore, Parts, Precision, Side, Value},
};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{ArgMatches, ValueEnum, builder::FalseyValueParser, error::ErrorKind, parser::ValueSource};
use serde::{Deserialize, Serialize};

use crate::{
    exit::Exit,
    open::{self, ModelArgs},
    output::{json, line},
    progress::say,
};

/// Which vectors are searched.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum SearchedSide {
    /// The pictures'.
    #[default]
    Image,
    /// The captions'.
    Text,
}

/// How hard to try.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum HowHard {
    /// Lowest latency.
    Fast,
    /// The default.
    #[default]
    Normal,
    /// Close to exact.
    High,
    /// Every row compared.
    Exact,
}

/// What to ask, and whom.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("question").required(true), group = clap::ArgGroup::new("whom").required(true).multiple(true))]
pub(crate) struct Args {
    /// Words.
    #[arg(long, group = "question")]
    text: Option<String>,
    /// A picture file (JPEG, PNG, WebP).
    #[arg(long, group = "question", value_name = "FILE")]
    image: Option<PathBuf>,
    /// A stored pair, by its key.
    #[arg(long, group = "question")]
    key: Option<String>,
    /// The pool's folder. Not to be given with --server; of two variables, ANCHORITE_SERVER counts.
    #[arg(long, group = "whom", value_name = "DIR", env = "ANCHORITE_POOL")]
    pool: Option<PathBuf>,
    /// A server's address, such as http://127.0.0.1:7801.
    #[arg(long, group = "whom", value_name = "URL", env = "ANCHORITE_SERVER")]
    server: Option<String>,
    /// The server's pool. Default: its first.
    #[arg(long, value_name = "NAME", env = "ANCHORITE_POOL_NAME")]
    pool_name: Option<String>,
    /// How many pairs.
    #[arg(short, long, default_value_t = 10, env = "ANCHORITE_K", value_name = "N")]
    k: usize,
    /// Which vectors are searched.
    #[arg(long, value_enum, default_value_t, env = "ANCHORITE_SIDE")]
    side: SearchedSide,
    /// How hard to try.
    #[arg(long, value_enum, default_value_t, env = "ANCHORITE_EFFORT")]
    effort: HowHard,
    /// Which pairs may be found, in JSON: '{"range": {"field": "width", "gte": 256}}'. Forms: and, or, not, eq, in, range, prefix, is_null.
    #[arg(long, value_name = "JSON", env = "ANCHORITE_FILTER", value_parser = Filter::from_json)]
    filter: Option<Filter>,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// One pair found, the same from a pool and from a server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Position in the pool.
    pub(crate) id: u64,
    /// Stable name.
    pub(crate) key: String,
    /// Cosine.
    pub(crate) score: f32,
    /// The caption.
    #[serde(default)]
    pub(crate) caption: Option<String>,
    /// Metadata.
    #[serde(default)]
    pub(crate) fields: std::collections::BTreeMap<String, Value>,
}

impl From<Anchor> for Row {
    fn from(anchor: Anchor) -> Self {
        let record = anchor.record;
        Self {
            id: record.row.0,
            key: record.key.to_string(),
            score: anchor.score,
            caption: record.caption,
            fields: record.fields,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let (rows, precision) = match (&args.server, &args.pool) {
        (Some(server), _) => ask_server(args, server)?,
        (None, Some(dir)) => ask_pool(args, dir)?,
        (None, None) => bail!("name a pool (--pool) or a server (--server)"),
    };
    if precision == Precision::SevenBit {
        say("note: this pool keeps 7-bit vectors; scores and ranks are of those, of exact searches too");
    }
    if args.json {
        json(&rows)?;
    } else {
        table(&rows);
    }
    Ok(Exit::Done)
}

/// Rank, score, id and caption, one pair a line.
pub(crate) fn table(rows: &[Row]) {
    for (rank, row) in rows.iter().enumerate() {
        line(&format!("{:>3}  {:.4}  {:>8}  {}", rank + 1, row.score, row.id, row.caption.as_deref().unwrap_or("")));
    }
}

fn ask_pool(args: &Args, dir: &std::path::Path) -> Result<(Vec<Row>, Precision)> {
    let pool = open::pool(dir)?;
    let precision = pool.precision();
    let retriever = open::retriever(args.model.open_for(&pool)?, pool)?;
    let filter = args.filter.clone().map(Arc::new);
    let ask = Ask { side: args.side(), k: args.k, effort: args.effort(), filter, ..Ask::new(args.input()?) };
    let answers = retriever.find(&[ask], &Cancel::default())?;
    let found = answers.found.first().context("one question has one answer")?;
    let rows = retriever.anchors(found, Parts::default(), args.k)?.into_iter().map(Row::from).collect();
    Ok((rows, precision))
}

impl Args {
    /// Keeps one of pool and server: a flag counts more than a variable.
    pub(crate) fn settle(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let flag = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
        if flag("pool") && flag("server") {
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, "--pool and --server: ask a pool or a server, not both"));
        }
        if flag("pool") {
            self.server = None;
        }
        if flag("pool_name") && self.server.is_none() {
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, "--pool-name names a pool of --server, and there is none"));
        }
        Ok(())
    }

    fn input(&self) -> Result<Input> {
        match (&self.text, &self.image, &self.key) {
            (Some(text), ..) => Ok(Input::Text(text.clone())),
            (_, Some(path), _) => Ok(Input::Picture(fs::read(path).with_context(|| format!("read {}", path.display()))?)),
            (.., Some(key)) => Ok(Input::Key(Key::new(key.as_str())?)),
            _ => bail!("ask with --text, --image or --key"),
        }
    }

    fn side(&self) -> Side {
        match self.side {
            SearchedSide::Image => Side::Image,
            SearchedSide::Text => Side::Text,
        }
    }

    fn effort(&self) -> Effort {
        match self.effort {
            HowHard::Fast => Effort::Fast,
            HowHard::Normal => Effort::Normal,
            HowHard::High => Effort::High,
            HowHard::Exact => Effort::Exact,
        }
    }
}

/// The part of `POST /v1/search`'s answer that is shown.
#[derive(Deserialize)]
struct Reply {
    /// Servers before 7-bit pools did not say.
    #[serde(default)]
    precision: Precision,
    results: Vec<ReplyResult>,
}

#[derive(Deserialize)]
struct ReplyResult {
    hits: Vec<Row>,
}

fn ask_server(args: &Args, server: &str) -> Result<(Vec<Row>, Precision)> {
    let mut body = serde_json::json!({
        "k": args.k, "limit": args.k, "side": args.side(), "effort": args.effort(), "include": ["caption", "fields"],
    });
    match args.input()? {
        Input::Text(text) => body["text"] = text.into(),
        Input::Picture(bytes) => body["image"] = STANDARD.encode(bytes).into(),
        Input::Key(key) => body["key"] = key.to_string().into(),
        Input::Embedding(_) | Input::Row(_) => bail!("ask with --text, --image or --key"),
    }
    if let Some(filter) = &args.filter {
        body["filter"] = filter.clone().into();
    }
    if let Some(name) = &args.pool_name {
        body["pool"] = name.as_str().into();
    }
    let url = format!("{}/v1/search", server.trim_end_matches('/'));
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut response = agent.post(&url).send_json(&body).with_context(|| format!("ask {url}"))?;
    if !response.status().is_success() {
        let said: serde_json::Value = response.body_mut().read_json().unwrap_or_default();
        let message = said["error"]["message"].as_str().unwrap_or("no reason given");
        bail!("{url} answered {}: {message}", response.status());
    }
    let mut reply: Reply = response.body_mut().read_json().with_context(|| format!("read the answer of {url}"))?;
    Ok((reply.results.pop().context("the server answered no question")?.hits, reply.precision))
}
