//! The file beside a pool that says what its last run did, for people and programs that come later.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{IngestFailure, IngestReport};

/// What a run did, as JSON. Written beside and renamed, so that it is always a whole one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// When it ended, in seconds since 1970.
    pub ended: u64,
    /// What was ingested, as it was named.
    pub sources: Vec<PathBuf>,
    /// Why it failed; none where it did not.
    pub error: Option<String>,
    /// What it did; none where it failed before anything was read.
    pub report: Option<IngestReport>,
}

impl Summary {
    /// Of a run that ends now.
    #[must_use]
    pub fn of(sources: &[PathBuf], result: &Result<IngestReport, IngestFailure>) -> Self {
        let ended = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let (error, report) = match result {
            Ok(report) => (None, Some(report.clone())),
            Err(failure) => (Some(chain(failure)), failure.report.as_deref().cloned()),
        };
        Self { ended, sources: sources.to_vec(), error, report }
    }

    /// Puts it in its place, over an earlier one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the summary's path has no file name"))?;
        let unfinished = path.with_file_name(format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id()));
        let written = serde_json::to_vec_pretty(self).map_err(io::Error::other).and_then(|mut text| {
            text.push(b'\n');
            let mut file = File::create(&unfinished)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)
        });
        if written.is_err() {
            // What is left of it is of no use to anybody; that it cannot be removed changes nothing about the error.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}
