//! `Mod`: the remainder, with the sign of the divisor for integers. No gradient.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::site::Site;
use super::{Gradient, Operator};
use crate::graph::Tensor;
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "Mod", shape: broadcast_inputs, fold: Some(fold), gradient: Gradient::Stops };

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    if site.int("fmod", 0)? != 0 || site.input(0)?.element.is_float() {
        return Ok(None);
    }
    let floored = |a: i64, b: i64| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    fold_arithmetic(site, |_, _| f64::NAN, floored)
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        Case::new("Mod").integers(&[4], &[7, -7, 7, -7]).integers(&[4], &[3, 3, -3, -3]).folds();
    }
}
