//! `Softplus`: y = ln(1 + e^x), dx = d sigmoid x.

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator =
    Operator { name: "Softplus", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, d) = (r.x(0), r.d()?);
    let slope = r.program.unary("Sigmoid", &x)?;
    let dx = r.program.mul(&d, &slope)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Softplus").float(&[3, 5]).gradients();
    }
}
