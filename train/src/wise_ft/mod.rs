//! Weight-space ensembles: WiSE-FT's line between two models, and soups of several.
//!
//! ```text
//!   model folder ──open──► Towers ─┐
//!   model folder ──open──► Towers ─┴─ mean of weights by name ──► Towers ──save──► model folder ──(evaluate)──► Curve ──► SVG
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `towers` | a model folder's graphs and configuration, in and out |
//! | `mean` | the weighted mean of tensors; which models may be mixed |
//! | `curve` | results along the line: [`Curve`] |
//!
//! WiSE-FT (Wortsman et al. 2022) mixes an image tower and a linear head. A dual encoder leaves a choice, which [`Which`] names; the curves
//! differ. Not here: evaluation ([`crate::eval`]).
//!
//! What holds: a share of 1 gives that model's files byte by byte; models whose graphs differ are refused by the name of what differs.

mod curve;
mod mean;
mod towers;

pub use curve::{Alphas, AlphasError, Curve, CurvePoint};
pub use mean::{MixError, NamedModel, ema_shares, mix};
pub use towers::{TowerFile, Towers, TowersError, Which};
