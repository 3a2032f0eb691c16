//! `anchorite anchors`: a retrieval policy carried out on a pool, its manifest, and checking a manifest later.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anchorite::{
    anchors::{
        Curated, Limits, Policy, Protected, Report, Surroundings, curate, manifest,
        manifest::{Coverage, Header},
        policy::ProtectedSource,
        read_questions,
    },
    encoder::Encode,
    index::{Key, PairStore},
};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde::Serialize;

use super::gallery::{SHOWN, TaskCaptions, View, write_page};
use crate::{
    exit::Exit,
    interrupt,
    open::{self, ModelArgs, Use},
    output::{json, line},
    progress::{Shown, say},
};

/// What to choose, and from where.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The pool's folder.
    #[arg(long, env = "ANCHORITE_POOL", value_name = "DIR")]
    pool: Option<PathBuf>,
    /// What to ask with: parquet files or folders (pictures, captions, labels or ready vectors), or .txt files with a caption or class
    /// name on each line.
    #[arg(long, value_name = "FILE")]
    queries: Vec<PathBuf>,
    /// The policy, in JSON or (.toml) TOML. Default: the four nearest pictures of each query picture.
    #[arg(long, env = "ANCHORITE_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the manifest goes.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A page about the choice: scores, classes, styles, and a gallery.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The pool's column that `--report` counts styles by.
    #[arg(long, default_value = "style", value_name = "NAME")]
    style_column: String,
    /// An evaluation set that anchors must not be taken from, besides the policy's: NAME=PARQUET.
    #[arg(long, value_name = "NAME=FILE")]
    protect: Vec<String>,
    /// A copy-detection model, which tells copies of protected pictures by its image embeddings: a folder with one ONNX image model and its
    /// preprocessor_config.json. The policy's protect.copy_similarity is its threshold.
    #[arg(long, value_name = "DIR")]
    copy_model: Option<String>,
    /// Report what is in protected sets, and drop nothing for it.
    #[arg(long)]
    audit: bool,
    /// A file with a key on each line; these pairs are excluded, besides the policy's.
    #[arg(long, value_name = "FILE")]
    exclude_keys: Option<PathBuf>,
    /// Print the policy with every default, as JSON, and do nothing.
    #[arg(long)]
    print_policy: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// What else can be done with manifests.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Look for a manifest's anchors in a pool, by content.
    Verify(VerifyArgs),
}

/// Which manifest, and which pool.
#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The manifest.
    manifest: PathBuf,
    /// The pool's folder.
    #[arg(long, env = "ANCHORITE_POOL", value_name = "DIR")]
    pool: PathBuf,
    /// Exit with 3 when a smaller share of the anchors is there.
    #[arg(long, default_value_t = 1.0)]
    min_coverage: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    if let Some(Command::Verify(args)) = &args.command {
        return verify(args);
    }
    let policy = args.policy()?;
    if args.print_policy {
        line(&policy.to_json());
        return Ok(Exit::Done);
    }
    match (&args.pool, &args.output) {
        (Some(pool), Some(output)) if !args.queries.is_empty() => choose(args, &policy, pool, output),
        (None, _) => bail!("which pool? give --pool DIR (ANCHORITE_POOL)"),
        (_, None) => bail!("where to? give -o MANIFEST"),
        _ => bail!("which queries? give --queries FILE"),
    }
}

impl Args {
    /// Has one tower, and no settings of the pool's model but its threads.
    fn copy_model(&self) -> Result<Option<Arc<dyn Encode>>> {
        let Some(folder) = self.copy_model.clone() else { return Ok(None) };
        let model =
            ModelArgs { one_tower: true, threads: self.model.threads, ..ModelArgs::of(folder, self.model.runtime.clone()) };
        Ok(Some(model.open(Use::Ingest)?))
    }

    /// The file's policy with what the flags add.
    fn policy(&self) -> Result<Policy> {
        let mut policy = match &self.policy {
            Some(path) => read_policy(path)?,
            None => Policy::default(),
        };
        for set in &self.protect {
            let (name, source) = set.split_once('=').with_context(|| format!("--protect {set:?}: give NAME=FILE"))?;
            policy.protect.sets.push(ProtectedSource { name: name.to_owned(), source: source.to_owned() });
        }
        policy.protect.audit |= self.audit;
        if let Some(path) = &self.exclude_keys {
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            for key in text.lines().map(str::trim).filter(|key| !key.is_empty()) {
                policy.exclude.keys.push(Key::new(key).with_context(|| format!("a key of {}", path.display()))?);
            }
        }
        Ok(policy.checked()?)
    }
}

fn read_policy(path: &Path) -> Result<Policy> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let toml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
    let policy = if toml { Policy::from_toml(&text) } else { Policy::from_json(&text) };
    policy.with_context(|| format!("read {}", path.display()))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Chosen<'a> {
    manifest: &'a Path,
    anchors: &'a str,
    search: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

fn choose(args: &Args, policy: &Policy, dir: &Path, output: &Path) -> Result<Exit> {
    let limits = Limits::default();
    let cancel = interrupt::on_signal()?;
    let pool = open::pool(dir)?;
    let encoder = args.model.open_for(&pool)?;
    let retriever = open::retriever(encoder, pool)?;
    let store: &dyn PairStore = retriever.store();
    let questions = read_questions(&args.queries, policy, retriever.encoder(), &limits, &cancel)?;
    if let Some(first) = &questions.first_reject {
        say(&format!("{} rows are no queries; the first: {first}", questions.rejected));
    }
    let copies = args.copy_model()?;
    let protected = Protected::read_with(&policy.protect, retriever.encoder(), copies, &limits, &cancel)?;
    let shown = Shown::new("anchors");
    let told = |done, total| shown.at(done, total, "queries");
    let curated = curate(store, policy, &questions, &protected, Surroundings { limits: &limits, cancel: &cancel, told: &told })?;
    shown.finish();
    let header = Header::new(store, policy, &questions, &protected, &curated);
    manifest::write(output, &header, &questions, &curated)?;
    if let Some(page) = &args.report {
        let (tasks, captions, style_column) = (&args.queries[..], TaskCaptions::None, &args.style_column);
        let view = View { manifest: output, store, tasks, captions, shown: SHOWN, style_column };
        write_page(page, &view.read()?)?;
    }
    match args.json {
        true => json(&Chosen { manifest: output, anchors: &header.anchors, search: &header.search, report: &curated.report })?,
        false => describe(&curated, &header, output),
    }
    Ok(Exit::Done)
}

fn describe(curated: &Curated, header: &Header, output: &Path) {
    let report = &curated.report;
    line(&format!(
        "{} anchors of {} requested, for {} queries ({} search over {} pairs)",
        report.found, report.requested, report.queries, header.search, header.pool.rows
    ));
    for (reason, count) in &report.dropped {
        line(&format!("  dropped  {count:>8}  {reason}"));
    }
    for (end, count) in &report.ended {
        line(&format!("  queries  {count:>8}  {end}"));
    }
    let short: Vec<_> = report.classes.iter().filter(|c| c.shortfall > 0).collect();
    if !short.is_empty() {
        line(&format!("  {} of {} classes have fewer than wanted:", short.len(), report.classes.len()));
    }
    for class in short.iter().take(10) {
        line(&format!("    {}: {} of {}", class.class, class.found, class.wanted));
    }
    for set in &report.protected {
        let matched: u64 = report.matched.get(&set.name).into_iter().flat_map(|by_how| by_how.values()).sum();
        line(&format!("  {}: {matched} pairs match its {} pictures ({} unreadable)", set.name, set.pictures, set.unreadable));
    }
    line(&format!("written to {}", output.display()));
}

fn verify(args: &VerifyArgs) -> Result<Exit> {
    let cancel = interrupt::on_signal()?;
    let manifest = manifest::read(&args.manifest)?;
    let pool = open::pool(&args.pool)?;
    let coverage = manifest::verify(&manifest, &pool, &Limits::default(), &cancel)?;
    match args.json {
        true => json(&coverage)?,
        false => describe_coverage(&coverage),
    }
    Ok(if coverage.coverage >= args.min_coverage { Exit::Done } else { Exit::TooManyRejects })
}

fn describe_coverage(coverage: &Coverage) {
    line(&format!("{:.2} % of {} anchors are in the pool", coverage.coverage * 100.0, coverage.anchors));
    line(&format!("  {:>8}  under their key ({} at another row)", coverage.same, coverage.moved));
    line(&format!("  {:>8}  under another key", coverage.renamed));
    line(&format!("  {:>8}  changed: their key has other content", coverage.changed));
    line(&format!("  {:>8}  missing", coverage.missing));
    line(&format!("generation {} then, {} now", coverage.manifest_generation, coverage.pool_generation));
    if !coverage.same_encoder {
        line("the pool is another encoder's: the policy would choose otherwise on it");
    }
    for key in &coverage.examples {
        line(&format!("  not there: {key}"));
    }
}
