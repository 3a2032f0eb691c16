//! `Clip`: y = x kept between two bounds, either of which may be left out; relu6 among others. dx = d where nothing was cut off.

use super::families::like_first;
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator = Operator { name: "Clip", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    if r.wants(1) || r.wants(2) {
        return Err(r.refuse("the bounds"));
    }
    let (x, y, d) = (r.x(0), r.y(), r.d()?);
    let kept = r.program.binary("Equal", &x, &y)?;
    let zero = r.program.scalar(0.0, &x)?;
    let dx = r.program.select(&kept, &d, &zero)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Clip").float(&[4, 5]).constant(&[], &[-0.5]).constant(&[], &[0.75]).gradients();
        Case::new("Clip").float(&[4, 5]).constant(&[], &[0.25]).gradients();
    }
}
