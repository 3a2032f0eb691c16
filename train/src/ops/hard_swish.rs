//! `HardSwish`: y = x h(x), h(x) = x/6 + 1/2 kept between 0 and 1. dx = d (h(x) + x/6 where |x| < 3).

use super::families::like_first;
use super::{Gradient, Operator, Reverse};
use crate::program::ProgramError;

pub(super) const RULES: Operator =
    Operator { name: "HardSwish", shape: like_first, fold: None, gradient: Gradient::Rule(gradient) };

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, d) = (r.x(0), r.d()?);
    let p = &mut *r.program;
    let (zero, half, one, three) = (p.scalar(0.0, &x)?, p.scalar(0.5, &x)?, p.scalar(1.0, &x)?, p.scalar(3.0, &x)?);
    let line = p.scale(&x, 1.0 / 6.0)?;
    let open = p.add(&line, &half)?;
    let gate = p.emit("Clip", &[&open, &zero, &one], &[])?;
    let size = p.unary("Abs", &x)?;
    let inside = p.binary("Less", &size, &three)?;
    let rest = p.select(&inside, &line, &zero)?;
    let slope = p.add(&gate, &rest)?;
    let dx = p.mul(&d, &slope)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("HardSwish").wide(&[6, 5]).gradients();
    }
}
