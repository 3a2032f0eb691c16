//! `Relu`: y = max(x, 0), dx = d where x > 0; 0 at 0.

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Relu", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, d) = (r.x(0), r.d()?);
    let zero = r.program.scalar(0.0, &x)?;
    let positive = r.program.binary("Greater", &x, &zero)?;
    let dx = r.program.select(&positive, &d, &zero)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Relu").float(&[3, 5]).gradients();
    }
}
