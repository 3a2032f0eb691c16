//! A run from its file to its model: data in, steps, metrics, checkpoints, export.
//!
//! ```text
//!   run.toml ──config──► RunConfig ──data──► Streams ──Prefetch──► Batch ──Engine──► StepReport ──► metrics, events, checkpoints
//!                                                                     └──────── after the last step ──► export
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `config` | the run file: [`RunConfig`] |
//! | `engine` | what the loop sees of a step: [`Engine`] |
//! | `train` | the loop: [`train`] |
//! | `model` | the model folder to towers, trainer and preparation: [`Opened`] |
//! | `initial` | weights from noise |
//! | `head` | the classifier's first head |
//! | `anchors` | the run file's anchors to a source |
//! | `finish` | the last checkpoint to an exported model |
//! | `metrics`, `events` | what is told: `metrics.jsonl`, TensorBoard |
//! | `error` | [`RunError`] |
//!
//! Not here: flags, signals, terminals (the command line), gradients (`step`).

mod anchors;
mod config;
mod engine;
mod error;
mod events;
mod finish;
mod head;
mod initial;
mod metrics;
mod model;
mod train;

pub use anchors::{Asked, anchor_source};
pub use config::{
    Anchors, Augment, Captions, Checkpoints, Data, Export, Head, HeadStart, Log, RunConfig, SameClass, Schedule, Start, Task,
    TaskText,
};
pub use engine::Engine;
pub use error::RunError;
pub use events::EventWriter;
pub use finish::{Finished, finish};
pub use head::HeadSource;
pub(crate) use initial::from_noise;
pub use metrics::{METRICS_FILE, Metrics};
pub use model::{Machine, Opened};
pub use train::{Ended, Job, Told, train};
