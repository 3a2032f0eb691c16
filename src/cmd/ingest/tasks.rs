//! `anchorite ingest --tasks -`: shard names come in on standard input, one JSON line goes out for each when its rows are safe, so that
//! GNU parallel, Slurm or Spark can drive as many of these as there are machines, each with a pool of its own.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

use anchorite::{
    encoder::hub::HubOptions,
    index::Cancel,
    ingest::{IngestError, IngestFailure, IngestReport, Outcome, Summary},
};
use anyhow::{Context, Result, bail};

use super::{Filling, local};
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

/// How a list of tasks is done.
pub(super) struct Tasks<'a> {
    pub(super) hub: &'a HubOptions,
    pub(super) max_rejects: Option<u64>,
    /// What the first shard that can be found must pass before any row is taken.
    pub(super) check: &'a dyn Fn(&[PathBuf]) -> Result<()>,
    /// The file with what all of them did.
    pub(super) summary: &'a Path,
}

/// What was done so far.
#[derive(Default)]
struct Done {
    names: Vec<PathBuf>,
    report: IngestReport,
    failed: u64,
}

impl Tasks<'_> {
    /// Ingests every shard that is named until there are no more. A shard that cannot be read is told and the next one taken; a pool
    /// that fails ends it, and so does the check.
    pub(super) fn run(&self, filling: &mut Filling<'_>) -> Result<Exit> {
        let names = names();
        let (mut done, mut is_checked) = (Done::default(), false);
        while let Some(name) = next(&names, filling.cancel())? {
            let sources = match local(&[PathBuf::from(&name)], self.hub) {
                Ok(sources) => sources,
                Err(error) => {
                    done.failed += 1;
                    json(&Finished { task: &name, report: None, error: Some(format!("{error:#}")) })?;
                    continue;
                }
            };
            if !std::mem::replace(&mut is_checked, true) {
                (self.check)(&sources)?;
            }
            let result = filling.ingest(&sources);
            done.add(&name, &result);
            self.sum_up(&done)?;
            match result {
                Ok(report) => {
                    json(&Finished { task: &name, report: Some(&report), error: None })?;
                    if report.outcome == Outcome::Interrupted {
                        return Ok(Exit::Interrupted);
                    }
                }
                Err(IngestFailure { error: error @ (IngestError::Store(_) | IngestError::EncoderFailing { .. }), .. }) => {
                    return Err(error.into());
                }
                Err(failure) => {
                    let report = failure.report.clone();
                    let error = Some(format!("{:#}", anyhow::Error::new(failure)));
                    json(&Finished { task: &name, report: report.as_deref(), error })?;
                }
            }
        }
        if filling.cancel().is_cancelled() {
            return Ok(Exit::Interrupted);
        }
        if done.failed > 0 {
            bail!("{} of the shards could not be read; their lines on standard output say why", done.failed);
        }
        let rejected = done.report.rejected;
        if self.max_rejects.is_some_and(|max| rejected > max) {
            say(&format!("{rejected} rows were rejected; the others are in the pool"));
            return Ok(Exit::TooManyRejects);
        }
        Ok(Exit::Done)
    }

    /// The summary of all tasks so far.
    fn sum_up(&self, done: &Done) -> Result<()> {
        let mut summary = Summary::of(&done.names, &Ok(done.report.clone()));
        if done.failed > 0 {
            summary.error = Some(format!("{} of the shards could not be read", done.failed));
        }
        summary.write(self.summary).with_context(|| format!("cannot write the summary {}", self.summary.display()))
    }
}

impl Done {
    fn add(&mut self, name: &str, result: &Result<IngestReport, IngestFailure>) {
        self.names.push(PathBuf::from(name));
        match result {
            Ok(report) => self.report.absorb(report),
            Err(failure) => {
                self.failed += 1;
                failure.report.iter().for_each(|report| self.report.absorb(report));
            }
        }
    }
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
