//! Hits to anchors: what an encoder and a store do together. The command line, the server and training ask here, so that a
//! question means the same everywhere and fails with the same words.
//!
//! ```text
//!   Ask ──prepare, encode (texts in batches, pictures in batches)──► Query ──store──► Found (hits) ──records──► Anchor
//!   query file ──► Questions ──gather──► hits ──exclude, protect, select──► Curated ──► manifest
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `ask.rs` | the question and the answer: [`Ask`], [`Input`], [`Found`], [`Anchor`] |
//! | `retriever.rs` | [`Retriever`]: an encoder joined to the pool that belongs to it |
//! | `blend.rs` | several inputs as one question, some of them "not like this" |
//! | `distinct.rs`, `near.rs` | the search, without near duplicates where that is asked for |
//! | `error.rs` | why a question is refused, each with a stable code |
//! | `recall.rs` | recall@k of known pairs |
//! | `policy/`, `templates.rs` | [`Policy`]: which pairs become anchors, as data |
//! | `questions.rs` | query files, or queries at hand, to [`Questions`] |
//! | `curate/`, `report.rs` | a policy carried out: [`curate`], and its account |
//! | `sample.rs`, `draw.rs` | k anchors of each query by seed and epoch: [`curate_sample`], [`Sample`]; seeded draws |
//! | `gather.rs` | queries to hits, one direction or several fused |
//! | `exclude.rs`, `protect.rs` | pairs that must not become anchors; [`Protected`] evaluation sets |
//! | `select.rs`, `cutoffs.rs`, `diversity.rs` | hits to anchors: a pure function |
//! | `reason.rs` | why a hit is no anchor: [`Reason`] |
//! | `manifest/` | the choice as a parquet file, and checking it later |
//! | `chosen.rs` | pairs chosen by hand, as a manifest |
//! | `hits.rs` | a manifest's hits read back, for people |
//! | `limits.rs` | [`Limits`] |
//!
//! Not here: HTTP, how files of rows are read, how vectors are made or searched. Everything blocks; async callers cross over on a bounded pool.
//!
//! What holds: a [`Retriever`] exists only where the encoder's fingerprint and dimension are the pool's.

mod ask;
mod blend;
mod chosen;
mod curate;
mod cutoffs;
mod distinct;
mod diversity;
mod draw;
mod error;
mod exclude;
mod gather;
mod hits;
mod likeness;
mod limits;
pub mod manifest;
mod near;
pub mod policy;
mod protect;
mod questions;
mod reason;
mod recall;
mod report;
mod retriever;
mod sample;
pub mod select;
mod templates;

pub use ask::{Anchor, Answers, Ask, Found, Input, Part, Times};
pub use chosen::{Choice, ChoiceError, Form, choose};
pub use curate::{Surroundings, curate, curate_sample};
pub use error::{AskError, CurateError, PolicyError, RetrieveError};
pub use hits::{ManifestHit, hits};
pub use limits::Limits;
pub use policy::Policy;
pub use protect::{Protected, ProtectedSet, perceptual_distance, perceptual_hash};
pub use questions::{Given, Question, Questions, encode_questions, hex, read_questions};
pub use reason::{End, How, Match, Reason};
pub use recall::recall;
pub use report::{ClassReport, Curated, Entry, ProtectedPair, Report};
pub use retriever::Retriever;
pub use sample::Sample;
