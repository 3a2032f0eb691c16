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
//! | `schedule` | the learning rate |
//! | `metrics`, `events` | what is told: `metrics.jsonl`, TensorBoard |
//! | `error` | [`RunError`] |
//!
//! Not here: flags, signals, terminals (the command line), gradients (`step`).

mod config;
mod engine;
mod error;
mod events;
mod metrics;
mod schedule;
mod train;

pub use config::{
    Anchors, Augment, Captions, Checkpoints, Data, Export, Log, RunConfig, SameClass, Schedule, Start, Task, TaskText,
};
pub use engine::{Engine, EngineError, StepReport};
pub use error::RunError;
pub use events::EventWriter;
pub use metrics::{METRICS_FILE, Metrics};
pub use schedule::Rates;
pub use train::{Ended, Job, Told, train};
