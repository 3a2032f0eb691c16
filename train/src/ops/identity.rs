//! `Identity`: y = x, dx = d.

use super::families::{fold_reshape, like_first};
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator {
    name: "Identity",
    shape: like_first,
    fold: Some(|site| fold_reshape(site, like_first)),
    gradient: Gradient::Rule(gradient),
};

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    r.give(0, d);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Identity").float(&[2, 3]).gradients();
    }
}
