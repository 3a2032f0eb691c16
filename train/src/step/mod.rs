//! One optimizer step over streams of pairs.
//!
//! ```text
//!   Towers + Plan + InputSizes ──new──► Trainer ──estimate──► parameters, memory
//!
//!   StreamBatches ─► embed, chunk by chunk ─► loss on all embeddings ─► gradients of embeddings ─┐
//!                                                                                               ▼
//!   new parameters ◄─ update (clip, AdamW) ◄─ gradients of parameters ◄─ forward again and backward, chunk by chunk
//! ```
//!
//! This is gradient caching (Gao et al. 2021): batch size costs time, not memory, and the result is that of the whole batch at once.
//! Pictures that several streams share are embedded once. A batch that fits one chunk is run directly, both towers and the loss in one
//! graph, which saves the second forward.
//!
//! | file | subject |
//! |---|---|
//! | `plan` | settings |
//! | `towers` | what is trained |
//! | `batch` | what a step is fed |
//! | `graphs` | the graphs that a tower gives: embed, backward; and the loss |
//! | `compiled` | a graph in ONNX Runtime, and where a value stopped being finite |
//! | `slots` | parameters, moments, gradients |
//! | `device` | memory that a provider computes in, and what is done with parameters there |
//! | `rows` | rows of all streams, in chunks |
//! | `units` | which pairs meet in one loss |
//! | `trainer` | the step, from the outside |
//! | `cached` | gradients chunk by chunk |
//! | `direct` | gradients in one run, for batches that fit |
//! | `sessions` | graphs made so far, by their shape |
//! | `embeddings` | what the towers make of pairs as they are now |
//! | `state` | what a checkpoint holds; export |
//! | `estimate` | parameters and memory ahead of time |
//! | `inspect` | whether a tower can be trained, without a runtime |
//! | `error` | why a trainer cannot be made, and why a step fails |
//!
//! Not here: where batches come from, files, the learning rate over a run (`optim`).
//!
//! Invariants: a step that fails leaves the parameters as they were; with one thread a step gives the same bits every time; frozen
//! parameters are never written.

mod batch;
mod cached;
mod compiled;
mod device;
mod direct;
mod embeddings;
mod error;
mod estimate;
mod graphs;
mod inspect;
mod plan;
mod rows;
mod scores;
mod sessions;
mod slots;
mod state;
mod towers;
mod trainer;
mod units;

pub use batch::{Pictures, StreamBatch};
pub use error::{StepError, TrainError};
pub use estimate::Estimate;
pub use inspect::{TowerReport, UnknownNode, inspect};
pub use plan::{Form, InputSizes, Objective, Plan, Precision, Recompute, Residence, Scope};
pub use state::TrainState;
pub use towers::{Feed, Tower, Towers, Width};
pub use trainer::{StepReport, StepTimes, StreamLoss, Trainer};
