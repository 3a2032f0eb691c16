//! `anchorite ingest --tasks -`: shard names come in on standard input, one JSON line goes out for each when its rows are safe, so that
//! GNU parallel, Slurm or Spark can drive as many of these as there are machines, each with a pool of its own.

use std::{
    io::BufRead,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

use anchorite::{
    encoder::hub::HubOptions,
    index::Cancel,
    ingest::{IngestError, IngestFailure, IngestReport, Outcome},
};
use anyhow::{Result, bail};

use super::ingest::{Filling, local};
use crate::{exit::Exit, output::json, progress::say};

/// How often a wait for the next name looks whether it was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One line of output: the name as it came in, and what became of it.
#[derive(serde::Serialize)]
struct Finished<'a> {
    task: &'a str,
    #[serde(flatten)]
    report: Option<&'a IngestReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Ingests every shard that is named until there are no more. A shard that cannot be read is told and the next one taken; a pool
/// that fails ends it, and so does `check`, which the first shard that can be found must pass before any row is taken.
pub(super) fn run(
    filling: &mut Filling<'_>,
    hub: &HubOptions,
    max_rejects: Option<u64>,
    check: &dyn Fn(&[PathBuf]) -> Result<()>,
) -> Result<Exit> {
    let names = names();
    let (mut failed, mut rejected, mut is_checked) = (0_u64, 0_u64, false);
    while let Some(name) = next(&names, filling.cancel())? {
        let sources = match local(&[PathBuf::from(&name)], hub) {
            Ok(sources) => sources,
            Err(error) => {
                failed += 1;
                json(&Finished { task: &name, report: None, error: Some(format!("{error:#}")) })?;
                continue;
            }
        };
        if !std::mem::replace(&mut is_checked, true) {
            check(&sources)?;
        }
        match filling.ingest(&sources) {
            Ok(report) => {
                rejected += report.rejected;
                json(&Finished { task: &name, report: Some(&report), error: None })?;
                if report.outcome == Outcome::Interrupted {
                    return Ok(Exit::Interrupted);
                }
            }
            Err(IngestFailure { error: error @ (IngestError::Store(_) | IngestError::EncoderFailing { .. }), .. }) => {
                return Err(error.into());
            }
            Err(failure) => {
                failed += 1;
                rejected += failure.report.as_ref().map_or(0, |report| report.rejected);
                let report = failure.report.clone();
                let error = Some(format!("{:#}", anyhow::Error::new(failure)));
                json(&Finished { task: &name, report: report.as_deref(), error })?;
            }
        }
    }
    if filling.cancel().is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    if failed > 0 {
        bail!("{failed} of the shards could not be read; their lines on standard output say why");
    }
    if max_rejects.is_some_and(|max| rejected > max) {
        say(&format!("{rejected} rows were rejected; the others are in the pool"));
        return Ok(Exit::TooManyRejects);
    }
    Ok(Exit::Done)
}

/// Standard input by lines, read by a thread of its own so that waiting for one can be interrupted.
fn names() -> Receiver<std::io::Result<String>> {
    let (send, names) = sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    names
}

/// The next name; none at the end of input or when interrupted.
fn next(names: &Receiver<std::io::Result<String>>, cancel: &Cancel) -> Result<Option<String>> {
    while !cancel.is_cancelled() {
        match names.recv_timeout(LOOK_EVERY) {
            Ok(line) => match line?.trim() {
                "" => {}
                name => return Ok(Some(name.to_owned())),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
    Ok(None)
}
