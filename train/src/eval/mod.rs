//! Zero-shot evaluation: parquet sets and class names to figures with intervals.
//!
//! ```text
//!   class names ──templates, encode, mean──► Head ──┐
//!   set's rows ──read, encode (cached)──► Examples ─┴─scores──► Outcome per image ──measure──► figures
//!                                                                     └──bootstrap──► intervals, paired differences ──► Evaluation
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `config` | what `eval.toml` says |
//! | `targets` | class lists, subsets and many-to-one maps: which scores answer which label |
//! | `examples`, `cache` | rows to embeddings, each picture encoded once |
//! | `head` | class names to a zero-shot head |
//! | `measure` | per-image outcomes to accuracy, F1, calibration |
//! | `recall` | recall@k of caption sets, both ways |
//! | `probe`, `lbfgs` | linear probe: L2-regularised logistic regression |
//! | `bootstrap` | resampling, the same draws for every model |
//! | `paired` | differences between arms over seeds and images; Holm |
//! | `run` | all of it for one model: [`Evaluator`] |
//! | `finish` | all models' outcomes together: intervals, means of groups, differences |
//! | `evaluation` | results of all models: [`Evaluation`] |
//! | `predictions`, `markdown` | what is written beside the JSON |
//!
//! Not here: opening models (the caller hands over anything that is [`Encode`](anchorite_encoder::Encode)), HTML ([`crate::report`]).
//!
//! What holds: two runs give equal bytes; a picture that cannot be read is counted and listed, never left out silently; every
//! model of an evaluation is measured on the same images, and resampled with the same draws.

mod bootstrap;
pub(crate) mod cache;
mod config;
mod error;
mod evaluation;
mod examples;
mod finish;
mod head;
mod lbfgs;
mod limits;
mod markdown;
mod matrix;
mod measure;
mod paired;
mod predictions;
mod probe;
mod recall;
mod run;
mod targets;

pub use cache::Cache;
pub use config::{ClassList, EvalConfig, LabelSpace, MapEntry, ModelSource, Names, OutsideRule, ProbeConfig, SetConfig, Task};
pub use error::EvalError;
pub use evaluation::{Average, Difference, Estimate, Evaluation, Metric, ModelRecord, ProbeRecord, SetRecord, SetResult};
pub use examples::Unreadable;
pub(crate) use head::HeadMaker;
pub use head::Heads;
pub use limits::EvalLimits;
pub(crate) use matrix::Matrix;
pub use paired::{Draw, Paired, TwoLevel, holm};
pub(crate) use probe::{Intercept, Probe};
pub use run::{Evaluator, ModelOutcome, ModelUnderTest, Plan, PlannedSet};
