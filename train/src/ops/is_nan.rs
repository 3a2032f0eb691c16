//! `IsNaN`: whether a float is not a number; exporters guard Softmax with it. No gradient.

use super::families::mask_like_first;
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator { name: "IsNaN", shape: mask_like_first, fold: None, gradient: Gradient::Stops };
