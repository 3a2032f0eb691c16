//! `ScatterND`: values added at indices. Appears in backward graphs only, so it has no gradient rule.

use super::families::like_first;
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator { name: "ScatterND", shape: like_first, fold: None, gradient: Gradient::Missing };
