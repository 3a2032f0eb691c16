//! What each step tells: a line of `metrics.jsonl`, a TensorBoard record, and a word for people.
//!
//! The fields of a [`Metrics`] before `seconds` are a function of the run; the rest is of the machine.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{RunError, events::EventWriter};

/// The file of metrics in a run's folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Steps done, this one included.
    pub step: u64,
    /// Passes over the finetune set, with fractions.
    pub epoch: f64,
    /// The weighted sum that was minimised.
    pub loss: f64,
    /// Each stream's own loss, before its weight.
    pub losses: BTreeMap<String, f64>,
    /// Learning rate.
    pub rate: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// What cosines are multiplied with.
    pub logit_scale: f64,
    /// What the sigmoid adds to scaled cosines; other losses have none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logit_bias: Option<f64>,
    /// Seconds since the last line, for all its steps.
    pub seconds: f64,
    /// Pairs trained a second.
    pub examples_per_second: f64,
    /// Share of the time that the step waited for data, from 0 to 1.
    pub waiting: f64,
}

/// Where metrics go.
#[derive(Debug)]
pub(super) struct MetricsWriter {
    path: PathBuf,
    file: File,
    events: Option<EventWriter>,
}

impl MetricsWriter {
    /// Opens the files in `folder` for a run that goes on after `step`: lines of later steps are dropped.
    ///
    /// # Errors
    /// [`RunError::Write`].
    pub(super) fn open(folder: &Path, step: u64, tensorboard: bool) -> Result<Self, RunError> {
        let path = folder.join(METRICS_FILE);
        let failed = |source| RunError::Write { path: path.clone(), source };
        let kept = match step {
            0 => String::new(),
            _ => lines_up_to(&fs::read_to_string(&path).unwrap_or_default(), step),
        };
        let unfinished = folder.join(format!(".{METRICS_FILE}.unfinished"));
        fs::write(&unfinished, kept).and_then(|()| fs::rename(&unfinished, &path)).map_err(failed)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        let events = tensorboard.then(|| EventWriter::create(folder, wall(), step)).transpose().map_err(failed)?;
        Ok(Self { path, file, events })
    }

    /// Appends a step.
    ///
    /// # Errors
    /// [`RunError::Write`].
    pub(super) fn write(&mut self, metrics: &Metrics) -> Result<(), RunError> {
        let failed = |source| RunError::Write { path: self.path.clone(), source };
        let line = serde_json::to_string(metrics).map_err(|e| failed(e.into()))?;
        // One write a line: a run that dies leaves whole lines.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(failed)?;
        match &mut self.events {
            Some(events) => events.scalars(wall(), metrics.step, &scalars(metrics)).map_err(failed),
            None => Ok(()),
        }
    }
}

/// Whole lines of steps up to `step`.
fn lines_up_to(text: &str, step: u64) -> String {
    let early = |line: &&str| serde_json::from_str::<Metrics>(line).is_ok_and(|m| m.step <= step);
    text.lines().filter(early).flat_map(|line| [line, "\n"]).collect()
}

fn scalars(metrics: &Metrics) -> Vec<(String, f64)> {
    let mut all = vec![
        ("train/loss".to_owned(), metrics.loss),
        ("train/rate".to_owned(), metrics.rate),
        ("train/grad_norm".to_owned(), metrics.grad_norm),
        ("train/logit_scale".to_owned(), metrics.logit_scale),
        ("train/epoch".to_owned(), metrics.epoch),
        ("speed/examples_per_second".to_owned(), metrics.examples_per_second),
        ("speed/waiting".to_owned(), metrics.waiting),
    ];
    all.extend(metrics.logit_bias.map(|bias| ("train/logit_bias".to_owned(), bias)));
    all.extend(metrics.losses.iter().map(|(stream, loss)| (format!("train/loss_{stream}"), *loss)));
    all
}

/// Seconds since 1970.
fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_and_later_steps_are_dropped() {
        let metrics = Metrics {
            step: 3,
            epoch: 0.5,
            loss: 1.25,
            losses: BTreeMap::new(),
            rate: 1e-5,
            grad_norm: 2.0,
            logit_scale: 100.0,
            logit_bias: None,
            seconds: 1.0,
            examples_per_second: 3.0,
            waiting: 0.0,
        };
        let line = serde_json::to_string(&metrics).unwrap();
        let later = serde_json::to_string(&Metrics { step: 4, ..metrics }).unwrap();
        assert_eq!(lines_up_to(&format!("{line}\n{later}\n{{\"step\":"), 3), format!("{line}\n"));
    }
}
