//! `Sign`: -1, 0 or 1. Constant almost everywhere, so its gradient is zero.

use super::families::like_first;
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator { name: "Sign", shape: like_first, fold: None, gradient: Gradient::Stops };
