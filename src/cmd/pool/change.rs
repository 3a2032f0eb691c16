//! `pool compact|delete|merge`.

use std::path::PathBuf;

use anchorite::index::{
    Filter, Key, PairSink, PairStore,
    filter::Column,
    pool::{OnConflict, Pool},
};
use anyhow::{Context, Result, bail};
use clap::{Args, builder::FalseyValueParser};

use super::{Graphs, Which, interruptible, writer};
use crate::{
    cmd::ingest::KeptVectors,
    exit::Exit,
    open,
    output::{bytes, count, json, line},
    progress::Shown,
};

/// Which pool, and who builds the new graphs.
#[derive(Args, Debug)]
pub(crate) struct Compact {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    graphs: Graphs,
}

pub(super) fn compact(args: &Compact) -> Result<Exit> {
    let dir = &args.which.dir;
    let mut writer = writer(dir, &args.graphs)?;
    interruptible(|cancel| {
        let shown = Shown::new("compact");
        let done = writer
            .compact(cancel, &mut |at| shown.at(at.done, at.total, "rows copied"))
            .with_context(|| format!("compact {}", dir.display()))?;
        shown.finish();
        if args.which.form.json {
            return json(&done);
        }
        line(&format!(
            "generation {}: {} instead of {}, {} instead of {}, {} dropped",
            done.generation,
            count(done.segments[1], "segment"),
            done.segments[0],
            bytes(done.bytes[1]),
            bytes(done.bytes[0]),
            count(done.dropped_rows, "dead row"),
        ));
        Ok(())
    })
}

/// Which pairs to delete: those that any of these names.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    doomed: Doomed,
    /// Say how many pairs that would be, and do nothing.
    #[arg(long, env = "ANCHORITE_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    #[command(flatten)]
    graphs: Graphs,
}

/// What is deleted.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Doomed {
    /// The pair of this key; may be given again.
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Pairs of every source whose name begins with this; may be given again.
    #[arg(long = "source", value_name = "PREFIX")]
    sources: Vec<String>,
    /// Pairs that match this filter (JSON, as in a search).
    #[arg(long, value_name = "JSON", value_parser = Filter::from_json)]
    filter: Option<Filter>,
}

impl Doomed {
    fn keys(&self) -> Result<Vec<Key>> {
        self.keys.iter().map(|key| Key::new(key.as_str()).map_err(Into::into)).collect()
    }

    /// Sources and filter as one filter; none when neither is given.
    fn filter(&self) -> Result<Option<Filter>> {
        if self.sources.iter().any(String::is_empty) {
            bail!("--source names no source; to delete every pair, delete the pool's folder");
        }
        let sources = self.sources.iter().map(|start| Filter::Prefix { field: Column::SourceFile, start: start.clone() });
        let any: Vec<Filter> = sources.chain(self.filter.clone()).collect();
        Ok(if any.is_empty() { None } else { Some(Filter::Or(any)) })
    }

    /// How many pairs are meant.
    fn count(&self, pool: &Pool, cancel: &anchorite::index::Cancel) -> Result<u64> {
        let keys = self.keys()?;
        let mut any: Vec<Filter> = self.filter()?.into_iter().collect();
        if !keys.is_empty() {
            let values = keys.iter().map(|key| anchorite::index::Value::Text(key.as_str().to_owned())).collect();
            any.push(Filter::In { field: Column::Key, values });
        }
        Ok(pool.count(&Filter::Or(any), cancel)?)
    }
}

pub(super) fn delete(args: &Delete) -> Result<Exit> {
    let dir = &args.which.dir;
    let told = |deleted: u64, generation: u64| {
        if args.which.form.json {
            return json(&serde_json::json!({ "deleted": deleted, "dry_run": args.dry_run, "generation": generation }));
        }
        let done = if args.dry_run {
            "would be deleted; nothing was done"
        } else {
            "deleted; anchorite pool compact gives their room back"
        };
        line(&format!("{} {done}", count(deleted, "pair")));
        Ok(())
    };
    interruptible(|cancel| {
        if args.dry_run {
            let pool = open::pool(dir)?;
            return told(args.doomed.count(&pool, cancel)?, pool.status().generation);
        }
        let mut writer = writer(dir, &args.graphs)?;
        let named = || format!("delete from {}", dir.display());
        let mut deleted = writer.delete(&args.doomed.keys()?).with_context(named)?;
        if let Some(filter) = args.doomed.filter()? {
            deleted += writer.delete_where(&filter, cancel).with_context(named)?;
        }
        told(deleted, writer.commit(cancel).with_context(named)?)
    })
}

/// Which pools become one.
#[derive(Args, Debug)]
pub(crate) struct Merge {
    #[command(flatten)]
    which: Which,
    /// The pools whose pairs are taken; they stay as they are.
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
    /// What happens when a key is there for other content: refuse the whole merge, keep the first pair, or take the last.
    #[arg(long, env = "ANCHORITE_ON_CONFLICT", value_enum, default_value_t)]
    on_conflict: Rule,
    /// What a new pool keeps of every vector. 7-bit pools are not merged into one that keeps f16: what was rounded away does not come back.
    /// Default: what the first part keeps.
    #[arg(long, env = "ANCHORITE_PRECISION", value_enum)]
    precision: Option<KeptVectors>,
    #[command(flatten)]
    graphs: Graphs,
}

/// Which of two pairs of one key stays.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Rule {
    /// Neither: the merge fails and changes nothing.
    #[default]
    Refuse,
    /// The one that was there first.
    KeepFirst,
    /// The one that comes later.
    TakeLast,
}

impl From<Rule> for OnConflict {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Refuse => Self::Refuse,
            Rule::KeepFirst => Self::KeepFirst,
            Rule::TakeLast => Self::TakeLast,
        }
    }
}

pub(super) fn merge(args: &Merge) -> Result<Exit> {
    let dir = &args.which.dir;
    let parts = args.parts.iter().map(|part| open::pool(part)).collect::<Result<Vec<Pool>>>()?;
    // A pool that is not there yet is made as the first part is.
    let (spec, model) = (parts[0].spec().clone(), parts[0].model().unwrap_or_default().to_owned());
    let is_there = anchorite::index::pool::inspect(dir).is_ok();
    let precision = args.precision.map(Into::into).or((!is_there).then(|| parts[0].precision()));
    let options = anchorite::index::pool::WriterOptions { model, precision, ..super::writer_options(&args.graphs) };
    let mut writer = anchorite::index::pool::PoolWriter::open(dir, &spec, &options)
        .with_context(|| format!("open the pool {} for writing", dir.display()))?;
    interruptible(|cancel| {
        let mut conflicts: Vec<(String, String)> = Vec::new();
        let merged = writer.merge(&parts, args.on_conflict.into(), cancel, &mut |key, part| {
            conflicts.push((key.to_string(), part.display().to_string()));
        });
        let merged = merged.with_context(|| match conflicts.last() {
            Some((key, part)) => format!("merge into {}: {key} of {part} is another pair here; see --on-conflict", dir.display()),
            None => format!("merge into {}", dir.display()),
        })?;
        if args.which.form.json {
            let conflicts: Vec<_> = conflicts.iter().map(|(key, part)| serde_json::json!({ "key": key, "part": part })).collect();
            return json(&serde_json::json!({
                "generation": merged.generation, "added": merged.added, "same": merged.same, "conflicts": conflicts,
            }));
        }
        conflicts.iter().for_each(|(key, part)| line(&format!("conflict: {key} of {part}")));
        line(&format!("{} added, {} there already, {}", merged.added, merged.same, count(merged.conflicts, "conflict")));
        Ok(())
    })
}
