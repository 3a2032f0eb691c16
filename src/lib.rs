//! anchorite keeps what CLIP knew while it is finetuned: image-text pairs go into a memory-mapped pool, and the nearest of them come
//! back as anchors. This crate is the command line over the workspace's libraries, which it re-exports.
//!
//! | crate | subject |
//! |---|---|
//! | [`encoder`] | pixels and text to embeddings |
//! | [`index`] | embeddings to hits: the pool |
//! | [`ingest`] | dataset rows to a pool |
//! | [`anchors`] | hits to anchors |
//! | [`api`] | all of it over HTTP |
//! | [`train`] | the training-graph runner |

pub use anchorite_anchors as anchors;
pub use anchorite_api as api;
pub use anchorite_encoder as encoder;
pub use anchorite_index as index;
pub use anchorite_ingest as ingest;
pub use anchorite_train as train;
