//! The training-graph runner: ONNX autodiff, contrastive losses, optimizer, evaluation, WiSE-FT.
//!
//! ```text
//!   .onnx bytes ──graph──► Model ──program──► Program (every type known) ──loss, grad──► Program with gradients ──► Model
//!   Towers + Plan ──step──► Trainer: StreamBatches ──► losses, gradients ──optim──► new parameters ──► the same towers, retrained
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`graph`] | models in and out |
//! | [`program`] | a model with known types: shapes fixed, shape arithmetic folded, parameters told from constants |
//! | `ops` | operators: shape, folding and gradient rules, one file each; [`operators`] lists them |
//! | `grad` | the reverse walk: [`Program::gradients`](program::Program::gradients) |
//! | [`loss`] | softmax and sigmoid losses over pairs, cross-entropy over classes |
//! | [`optim`] | AdamW, clipping, learning rate |
//! | [`select`] | which parameters are trained |
//! | [`step`] | one optimizer step: embed, loss, backward, update |
//! | [`data`] | datasets to batches |
//! | [`runner`] | a run: steps, metrics, checkpoints |
//! | [`checkpoint`] | a run's state on disk |
//! | [`export`] | a trained model's folder |
//! | [`frozen`] | heads trained over what frozen towers made once |
//! | [`loss`] | symmetric InfoNCE |
//! | [`caption`] | captions by an ONNX captioner: greedy, beam, nucleus |
//! | [`eval`] | zero-shot evaluation, retrieval, linear probes, bootstrap |
//! | [`wise_ft`] | weight-space ensembles: interpolation, soups |
//! | [`report`] | results as HTML and SVG |
//!
//! Shapes are fixed when a program is made; another batch size is another program.

#[cfg(test)]
extern crate self as anchorite_train;

pub mod caption;
pub mod checkpoint;
pub mod data;
pub mod eval;
pub mod export;
pub mod frozen;
mod grad;
pub mod graph;
mod limits;
pub mod loss;
mod ops;
pub mod optim;
pub mod program;
pub mod report;
pub mod runner;
pub mod select;
pub mod step;
pub mod wise_ft;

pub use limits::Limits;
pub use ops::operators;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod testing;
