//! `Mul`: y = a b, da = d b, db = d a, summed over what was broadcast.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Mul",
    shape: broadcast_inputs,
    fold: Some(|site| fold_arithmetic(site, |a, b| a * b, i64::checked_mul)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    for (i, other) in [(0, 1), (1, 0)] {
        if r.wants(i) {
            let other = r.x(other);
            let product = r.program.mul(&d, &other)?;
            r.give_fitted(i, &product)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, arithmetic};

    #[test]
    fn gradients_and_constants_are_right() {
        arithmetic("Mul", Case::float);
    }
}
