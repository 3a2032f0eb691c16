//! `Min`: the smallest of its inputs, elementwise. Folded for two inputs; without a gradient rule, for shape arithmetic only.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::{Gradient, Operator};

pub(super) const RULES: Operator = Operator {
    name: "Min",
    shape: broadcast_inputs,
    fold: Some(|site| fold_arithmetic(site, f64::min, |a, b| Some(a.min(b)))),
    gradient: Gradient::Missing,
};

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Min").integers(&[4], &[7, -7, 7, -7]).integers(&[1], &[3]).folds();
    }
}
