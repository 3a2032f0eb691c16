//! `Sigmoid`: y = 1 / (1 + e^-x), dx = d y (1 - y).

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator =
    Operator { name: "Sigmoid", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (y, d) = (r.y(), r.d()?);
    let one = r.program.scalar(1.0, &y)?;
    let rest = r.program.sub(&one, &y)?;
    let slope = r.program.mul(&y, &rest)?;
    let dx = r.program.mul(&d, &slope)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Sigmoid").float(&[3, 5]).gradients();
        Case::new("Sigmoid").float(&[1, 1]).gradients();
    }
}
