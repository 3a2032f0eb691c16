//! AdamW, clipping and the learning rate: from gradients to new parameters.
//!
//! ```text
//!   gradients ──norm──► clip factor ─┐
//!   step ──schedule──► rate ─────────┼─► Update ──► every slot: parameter, first and second moment, in place
//!   betas, step ── bias correction ──┘
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `adamw` | settings, and the fused loop over slices that the CPU runs |
//! | `graph` | the same update as an ONNX model, for devices whose memory the CPU does not see |
//! | `schedule` | warm-up and cosine |

mod adamw;
mod graph;
mod schedule;

pub(crate) use adamw::PIECE;
pub use adamw::{AdamW, Update, clip_factor, decays, squared_norm, update};
pub use graph::adamw_model;
pub use schedule::Schedule;
