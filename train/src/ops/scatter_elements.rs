//! `ScatterElements`: values put, or added, at given places. Emitted by `MaxPool`'s gradient.

use super::families::like_first;
use super::{Gradient, Operator};

pub(super) const RULES: Operator =
    Operator { name: "ScatterElements", shape: like_first, fold: None, gradient: Gradient::Missing };
