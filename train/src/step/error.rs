//! Why a trainer cannot be made, and why a step fails.

use anchorite_encoder::model::ModelError;
use anchorite_encoder::session::SessionError;

use crate::graph::ReadError;
use crate::program::ProgramError;
use crate::select::SelectError;

/// Why a trainer cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The folder lacks a tower.
    #[error("the model folder {folder} has no {tower} tower; training needs both")]
    NoTower {
        /// The folder's name.
        folder: String,
        /// Which tower.
        tower: &'static str,
    },
    /// A tower's file cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tower's file is no model that can be trained.
    #[error("the {tower} tower cannot be read: {source}")]
    Read {
        /// Which tower.
        tower: &'static str,
        /// Why.
        source: ReadError,
    },
    /// A tower's graph, or one derived from it, cannot be worked on.
    #[error("the {graph}: {source}")]
    Graph {
        /// Which graph: "vision tower", "text tower", "loss".
        graph: String,
        /// Why.
        source: ProgramError,
    },
    /// The towers do not fit each other.
    #[error("the vision tower embeds into {vision} values, the text tower into {text}; they belong to different models")]
    Mismatch {
        /// Values per picture.
        vision: usize,
        /// Values per caption.
        text: usize,
    },
    /// A tower's embedding is no float32 matrix.
    #[error("the {tower} tower gives {found}; training needs float32 rows, one for each item")]
    Output {
        /// Which tower.
        tower: &'static str,
        /// Its output's type.
        found: String,
    },
    /// The choice of parameters.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A setting.
    #[error("setting {field}: {reason}")]
    Setting {
        /// Which.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// ONNX Runtime does not take a derived graph.
    #[error("the {graph}: {source}")]
    Session {
        /// Which graph.
        graph: String,
        /// Why.
        source: SessionError,
    },
    /// A saved state belongs to another model or plan.
    #[error("the state does not fit this model: {name}: {reason}")]
    State {
        /// Which tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Threads for the optimizer cannot be started.
    #[error("threads cannot be started: {reason}")]
    Threads {
        /// The system's word.
        reason: String,
    },
}

/// Why a step fails. The parameters are then those of the step before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// What was fed does not fit.
    #[error("stream {stream:?}: {reason}")]
    Batch {
        /// The stream's name.
        stream: String,
        /// What is wrong.
        reason: String,
    },
    /// The loss or a gradient is not a finite number.
    #[error(
        "step {step}: {what} is not finite; it began in stream {stream:?} at {place}. Lower the learning rate, clip gradients, or look \
         at that stream's data"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// "the loss", "the gradient".
        what: &'static str,
        /// The stream's name; several are joined by commas where a chunk holds rows of several.
        stream: String,
        /// The first node that gave such a value: graph, node and operator.
        place: String,
    },
    /// A graph for this batch cannot be made.
    #[error(transparent)]
    Graph(#[from] TrainError),
    /// ONNX Runtime failed while running.
    #[error("step {step}: ONNX Runtime failed in the {graph}: {reason}")]
    Runtime {
        /// The step, counted from 1.
        step: u64,
        /// Which graph.
        graph: String,
        /// Its message.
        reason: String,
    },
    /// Nothing was accumulated before the update.
    #[error("there is no gradient to apply; accumulate a batch first")]
    NothingAccumulated,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
