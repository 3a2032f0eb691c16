//! `Neg`: y = -x, dx = -d.

use super::{
    Gradient, Operator, Reverse,
    families::{fold_unary, like_first},
};
use crate::program::ProgramError;

pub(super) const RULES: Operator =
    Operator { name: "Neg", shape: like_first, fold: Some(|site| fold_unary(site, |x| -x)), gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    let dx = r.program.unary("Neg", &d)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Neg").float(&[2, 3]).gradients();
        Case::new("Neg").float(&[]).gradients();
    }
}
