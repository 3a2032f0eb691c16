//! `Sqrt`: y = sqrt x, dx = d / 2y.

use super::{
    Gradient, Operator, Reverse,
    families::{fold_unary, like_first},
};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Sqrt",
    shape: like_first,
    fold: Some(|site| fold_unary(site, f64::sqrt)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (y, d) = (r.y(), r.d()?);
    let half = r.program.scale(&d, 0.5)?;
    let dx = r.program.div(&half, &y)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Sqrt").positive(&[2, 3]).gradients();
    }
}
