//! The training-graph runner: ONNX autodiff, contrastive losses, optimizer, evaluation, WiSE-FT.
//!
//! ```text
//!   .onnx bytes ──graph──► Model ──program──► Program (every type known) ──loss, grad──► Program with gradients ──► Model
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`graph`] | models in and out |
//! | [`program`] | a model with known types: shapes fixed, shape arithmetic folded, parameters told from constants |
//! | `ops` | operators: shape, folding and gradient rules, one file each; [`operators`] lists them |
//! | `grad` | the reverse walk: [`Program::gradients`](program::Program::gradients) |
//! | [`loss`] | symmetric InfoNCE |
//!
//! What exists is this: from the bytes of two exported towers to a model that computes the loss and the gradient of every
//! parameter. Not yet: other losses, optimizer, gradient caching, data, runner, checkpoints, export, evaluation, WiSE-FT.
//! The batch size is fixed when a program is made; another batch size is another program.

#[cfg(test)]
extern crate self as anchorite_train;

pub mod checkpoint;
pub mod data;
pub mod export;
mod grad;
pub mod graph;
mod limits;
pub mod loss;
mod ops;
pub mod program;
pub mod runner;
pub mod step;

pub use limits::Limits;
pub use ops::operators;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod testing;
