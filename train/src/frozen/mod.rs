//! A model whose towers stay as they are up to their heads: what the towers make of a picture or a text is computed once, kept, and
//! training and evaluation go on from there.
//!
//! ```text
//!   tower ──cut──► trunk (never changes) ──Features: once for each content, kept on disk──► values at the seam
//!           └────► head  (is trained)    ◄──────────── Preparer, FrozenEncoder ◄───────────────┘
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `cut` | a graph to trunk and head |
//! | `features` | trunks run and remembered |
//! | `heads` | heads to a trainer, and to what is evaluated: [`Frozen`] |
//! | `encoder` | trained heads over remembered features as an [`Encode`](anchorite_encoder::Encode) |
//! | `error` | [`FrozenError`] |
//!
//! The numbers are those of the whole model to float32's rounding; [`Frozen::export`] writes the whole model and compares. Not for runs with
//! random crops: every crop is another content.

mod cut;
mod encoder;
mod error;
mod features;
mod heads;

pub use cut::{Cut, cut};
pub use encoder::FrozenEncoder;
pub(crate) use encoder::{image_error, text_error};
pub use error::FrozenError;
pub use features::Features;
pub(crate) use heads::UNIT;
pub use heads::{Frozen, Weights, load, mix, save};
