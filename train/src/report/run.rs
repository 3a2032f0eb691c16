//! What a run's folder holds. Everything is optional but something must be there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ReportLimits;
use crate::{eval::Evaluation, wise_ft::Curve};

/// An evaluation's file.
pub(crate) const EVALUATION: &str = "evaluation.json";
/// A curve's file.
pub(crate) const CURVE: &str = "wise-ft.json";
/// A training run's file.
pub(crate) const METRICS: &str = "metrics.jsonl";
/// Endings of files that are shown whole as settings.
const SETTINGS: [&str; 1] = ["toml"];

/// Why a folder cannot be reported on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Nothing to report.
    #[error("{} has none of {EVALUATION}, {CURVE} and {METRICS}: not a folder that eval, wise-ft or a training run wrote", path.display())]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is not what its name says.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system said no.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// A run's folder, read.
#[derive(Clone, Debug, Default)]
pub struct RunFolder {
    /// The folder's name.
    pub name: String,
    /// What `eval` wrote.
    pub evaluation: Option<Evaluation>,
    /// What `wise-ft` wrote.
    pub curve: Option<Curve>,
    /// Numbers by name over steps, as training wrote them.
    pub metrics: BTreeMap<String, Vec<(f64, f64)>>,
    /// Files of settings: name, SHA-256, text.
    pub settings: Vec<(String, String, String)>,
    /// SHA-256 of the files that figures come from.
    pub hashes: Vec<(String, String)>,
}

impl RunFolder {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn read(path: &Path, limits: &ReportLimits) -> Result<Self, ReportError> {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        let mut run = Self { name, ..Self::default() };
        if let Some(bytes) = run.take(path, EVALUATION, limits)? {
            run.evaluation = Some(parse(&path.join(EVALUATION), &bytes)?);
        }
        if let Some(bytes) = run.take(path, CURVE, limits)? {
            run.curve = Some(parse(&path.join(CURVE), &bytes)?);
        }
        if let Some(bytes) = run.take(path, METRICS, limits)? {
            run.metrics = metrics(&path.join(METRICS), &bytes)?;
        }
        if run.hashes.is_empty() {
            return Err(ReportError::Nothing { path: path.to_owned() });
        }
        run.read_settings(path, limits)?;
        Ok(run)
    }

    fn take(&mut self, folder: &Path, name: &str, limits: &ReportLimits) -> Result<Option<Vec<u8>>, ReportError> {
        let bytes = read(&folder.join(name), limits)?;
        self.hashes.extend(bytes.iter().map(|bytes| (name.to_owned(), hex(bytes))));
        Ok(bytes)
    }

    fn read_settings(&mut self, folder: &Path, limits: &ReportLimits) -> Result<(), ReportError> {
        let io = |source| ReportError::Io { path: folder.to_owned(), source };
        let mut files: Vec<PathBuf> = fs::read_dir(folder).map_err(io)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.sort();
        for path in files {
            let ending = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
            if !SETTINGS.contains(&ending.as_str()) {
                continue;
            }
            let Some(bytes) = read(&path, limits)? else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.settings.push((name, hex(&bytes), String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// None for a file that is not there.
fn read(path: &Path, limits: &ReportLimits) -> Result<Option<Vec<u8>>, ReportError> {
    let io = |source| ReportError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(e)),
        Ok(found) if found.len() > limits.max_file_bytes => {
            let reason = format!("{} bytes; a report reads at most {}", found.len(), limits.max_file_bytes);
            Err(ReportError::Damaged { path: path.to_owned(), reason })
        }
        Ok(_) => fs::read(path).map(Some).map_err(io),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ReportError> {
    serde_json::from_slice(bytes).map_err(|e| ReportError::Damaged { path: path.to_owned(), reason: e.to_string() })
}

/// Every number of every line, nested ones as `losses/flyp`, over `step`. A last line that was cut off is left out.
fn metrics(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Vec<(f64, f64)>>, ReportError> {
    let mut all: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(_) if i + 1 == lines.len() && !text.ends_with('\n') => break,
            Err(e) => return Err(ReportError::Damaged { path: path.to_owned(), reason: format!("line {}: {e}", i + 1) }),
        };
        let step = value.get("step").and_then(Value::as_f64).unwrap_or(i as f64);
        numbers("", &value, &mut |name, number| {
            if name != "step" {
                all.entry(name.to_owned()).or_default().push((step, number));
            }
        });
    }
    Ok(all)
}

fn numbers(name: &str, value: &Value, take: &mut impl FnMut(&str, f64)) {
    match value {
        Value::Number(number) => take(name, number.as_f64().unwrap_or(f64::NAN)),
        Value::Object(fields) => {
            for (field, value) in fields {
                let inner = if name.is_empty() { field.clone() } else { format!("{name}/{field}") };
                numbers(&inner, value, take);
            }
        }
        _ => {}
    }
}
