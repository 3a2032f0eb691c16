//! `Exp`: y = e^x, dx = d y.

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Exp", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (y, d) = (r.y(), r.d()?);
    let dx = r.program.mul(&d, &y)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Exp").float(&[2, 3]).gradients();
        Case::new("Exp").float(&[1]).gradients();
    }
}
