//! `Sub`: y = a - b, da = d, db = -d, summed over what was broadcast.

use super::families::{broadcast_inputs, fold_arithmetic};
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Sub",
    shape: broadcast_inputs,
    fold: Some(|site| fold_arithmetic(site, |a, b| a - b, i64::checked_sub)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    if r.wants(0) {
        r.give_fitted(0, &d)?;
    }
    if r.wants(1) {
        let minus = r.program.unary("Neg", &d)?;
        r.give_fitted(1, &minus)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::{Case, arithmetic};

    #[test]
    fn gradients_and_constants_are_right() {
        arithmetic("Sub", Case::float);
    }
}
