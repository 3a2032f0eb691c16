//! The training-graph runner: ONNX autodiff, contrastive losses, optimizer, evaluation, WiSE-FT.
//!
//! What exists: models in and out ([`graph`]). Not yet: losses beyond that, optimizer, runner, export, evaluation.

#[cfg(test)]
extern crate self as anchorite_train;

pub mod graph;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod testing;
