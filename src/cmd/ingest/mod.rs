//! `anchorite ingest`: datasets into a pool.
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | the command, step by step |
//! | `args.rs` | flags |
//! | `filling.rs` | the open pool, and its line on the terminal |
//! | `show.rs` | what is said at the end, and by `--dry-run` |
//! | `tasks.rs` | `--tasks -` |

mod args;
mod filling;
mod show;
mod tasks;

use std::path::PathBuf;

use anchorite::{
    encoder::{AgreementLimits, Encoder, hub::HubOptions},
    ingest::{HubSource, IngestOptions, Outcome, Vectors, holds_only_vectors, sample_agreement},
};
use anyhow::{Context, Result, bail};

pub(crate) use args::{Args, GraphBuilder, KeptVectors, rejects_beside, summary_beside};
pub(crate) use filling::{Filling, Target, fill};
pub(crate) use show::describe;

use crate::{exit::Exit, open::Use, output::json, progress::say};

/// What the fingerprint of a pool begins with whose vectors came ready made.
pub(crate) const VECTORS_FROM: &str = "vectors:";

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let options = args.options()?;
    // Of names that are still to come nothing can be told.
    let sources = local(&args.request.sources, &args.model.runtime.hub_options())?;
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
        return show::dry_run(args, &sources, &options, encoder.as_deref().filter(|_| !ready));
    }
    let spec = args.spec(encoder.as_ref(), &sources, &options)?;
    let vectors = match &encoder {
        Some(encoder) if !ready => Vectors::Encode(&**encoder),
        _ => Vectors::Ready { dim: Some(spec.dim) },
    };
    if args.tasks.is_some() {
        let hub = args.model.runtime.hub_options();
        let check = |sources: &[PathBuf]| checked.map_or(Ok(()), |encoder| check_int8(args, sources, &options, encoder));
        let summary = args.summary();
        let tasks = tasks::Tasks { hub: &hub, max_rejects: args.request.max_rejects, check: &check, summary: &summary };
        return tasks.run(&mut Filling::open(&args.target(&spec), vectors, &options)?);
    }
    let report = fill(&sources, &args.target(&spec), vectors, &options)?;
    if args.json {
        json(&report)?;
    } else {
        describe(&report, options.rejects.as_deref());
    }
    Ok(match report.outcome {
        Outcome::TooManyRejects => {
            let allowed = args.request.max_rejects.unwrap_or_default();
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
