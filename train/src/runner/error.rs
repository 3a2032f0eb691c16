//! Why a run does not start, or ends early.

use std::path::PathBuf;

use anchorite_encoder::OpenError;

use crate::{
    checkpoint::CheckpointError,
    data::DataError,
    eval::EvalError,
    export::ExportError,
    step::{StepError, TrainError},
};

/// Why a run does not start, or ends early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The run file.
    #[error("read {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The run file's text.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The parser's word, with the place.
        reason: String,
    },
    /// A `--set` that fits nothing.
    #[error("--set {assignment}: {reason}")]
    Set {
        /// As given.
        assignment: String,
        /// What is wrong.
        reason: String,
    },
    /// A value that makes no sense.
    #[error("the run file's {field} is refused; it is taken when it {rule}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it may be.
        rule: &'static str,
    },
    /// The model cannot be opened.
    #[error(transparent)]
    Model(#[from] OpenError),
    /// The model cannot be trained.
    #[error(transparent)]
    Train(Box<TrainError>),
    /// Before the first step.
    #[error(transparent)]
    Data(Box<DataError>),
    /// While training: the run can go on from here.
    #[error("{source}\nstopped after step {step}; the checkpoint is {}: mend the cause and go on with --resume", path.display())]
    DataWhileTraining {
        /// Steps done.
        step: u64,
        /// Where it was saved.
        path: PathBuf,
        /// What failed.
        source: Box<DataError>,
    },
    /// A step failed: NaN, memory, the runtime.
    #[error("{source}{}", last.as_ref().map(|p| format!("\nthe last checkpoint is {}", p.display())).unwrap_or_default())]
    Step {
        /// The step that failed, counted from 1.
        step: u64,
        /// What the step says.
        source: Box<StepError>,
        /// Where the run can go on.
        last: Option<PathBuf>,
    },
    /// The classifier's zero-shot head.
    #[error("make the classifier's head from class prompts: {source}")]
    Head {
        /// Why.
        source: Box<EvalError>,
    },
    /// The classifier's probed head.
    #[error(
        "the probe that head.start = \"probe\" asks for comes to no rest with head.l2 = {l2} (its gradient is still {gradient:e}); give more"
    )]
    Probe {
        /// As configured.
        l2: f64,
        /// Largest part of the gradient.
        gradient: f64,
    },
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint could not be written while training.
    #[error("save a checkpoint after step {step}: {source}{}", last.as_ref().map(|p| format!("\nthe one before is whole: {}", p.display())).unwrap_or_default())]
    Save {
        /// Steps done.
        step: u64,
        /// The one before.
        last: Option<PathBuf>,
        /// What failed.
        source: Box<CheckpointError>,
    },
    /// Nothing to go on from.
    #[error("{} has no checkpoint; start without --resume", path.display())]
    NothingToResume {
        /// The run's folder.
        path: PathBuf,
    },
    /// A run is there already.
    #[error("{} holds a run already (steps to {step}); go on with --resume, or name another output", path.display())]
    Exists {
        /// The run's folder.
        path: PathBuf,
        /// Its newest checkpoint.
        step: u64,
    },
    /// A file of the run.
    #[error("write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The model could not be written.
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl From<TrainError> for RunError {
    fn from(source: TrainError) -> Self {
        Self::Train(Box::new(source))
    }
}

impl From<DataError> for RunError {
    fn from(source: DataError) -> Self {
        Self::Data(Box::new(source))
    }
}
