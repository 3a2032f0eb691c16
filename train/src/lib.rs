//! The training-graph runner: ONNX autodiff, contrastive losses, optimizer, evaluation, WiSE-FT. Nothing of it exists yet; the
//! crate holds its place in the dependency order (`tests/architecture.rs`).
