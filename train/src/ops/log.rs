//! `Log`: y = ln x, dx = d / x.

use super::{Gradient, Operator, Reverse, families::like_first};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Log", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, d) = (r.x(0), r.d()?);
    let dx = r.program.div(&d, &x)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Log").positive(&[2, 3]).gradients();
    }
}
