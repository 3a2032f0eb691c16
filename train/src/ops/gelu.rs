//! `Gelu`: y = x/2 (1 + erf(x/sqrt 2)), or its tanh approximation.
//!
//! dx = d (1/2 (1 + erf(x/sqrt 2)) + x e^(-x^2/2) / sqrt(2 pi));
//! tanh: u = k x (1 + c x^2), t = tanh u, dx = d (1/2 (1 + t) + 1/2 x (1 - t^2) k (1 + 3 c x^2)), k = sqrt(2/pi), c = 0.044715.

use super::families::like_first;
use super::site::{Site, bad_attribute};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, TensorType};
use crate::program::emit::Emitted;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Gelu", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    match site.attribute("approximate") {
        None => like_first(site),
        Some(Attribute::Text(text)) if matches!(text.as_slice(), b"none" | b"tanh") => like_first(site),
        Some(_) => Err(bad_attribute("approximate", "neither none nor tanh")),
    }
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let tanh = matches!(r.node.attributes.get("approximate"), Some(Attribute::Text(text)) if text == b"tanh");
    let slope = if tanh { tanh_slope(r)? } else { exact_slope(r)? };
    let d = r.d()?;
    let dx = r.program.mul(&d, &slope)?;
    r.give(0, dx);
    Ok(())
}

fn exact_slope(r: &mut Reverse<'_>) -> Emitted {
    let x = r.x(0);
    let p = &mut *r.program;
    let scaled = p.scale(&x, std::f64::consts::FRAC_1_SQRT_2)?;
    let erf = p.unary("Erf", &scaled)?;
    let half = p.scale(&erf, 0.5)?;
    let offset = p.scalar(0.5, &x)?;
    let share = p.add(&half, &offset)?;
    let square = p.mul(&x, &x)?;
    let exponent = p.scale(&square, -0.5)?;
    let bell = p.unary("Exp", &exponent)?;
    let density = p.scale(&bell, 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)?;
    let rest = p.mul(&x, &density)?;
    p.add(&share, &rest)
}

fn tanh_slope(r: &mut Reverse<'_>) -> Emitted {
    const C: f64 = 0.044_715;
    let k = (2.0 / std::f64::consts::PI).sqrt();
    let x = r.x(0);
    let p = &mut *r.program;
    let one = p.scalar(1.0, &x)?;
    let square = p.mul(&x, &x)?;
    let cubic = p.scale(&square, C)?;
    let bent = p.add(&one, &cubic)?;
    let line = p.scale(&x, k)?;
    let u = p.mul(&line, &bent)?;
    let t = p.unary("Tanh", &u)?;
    let above = p.add(&one, &t)?;
    let tt = p.mul(&t, &t)?;
    let fall = p.sub(&one, &tt)?;
    let steep = p.scale(&square, 3.0 * C)?;
    let inner = p.add(&one, &steep)?;
    let chain = p.mul(&fall, &inner)?;
    let rest = p.mul(&line, &chain)?;
    let twice = p.add(&above, &rest)?;
    p.scale(&twice, 0.5)
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Gelu").float(&[3, 5]).gradients();
        Case::new("Gelu").float(&[3, 5]).attribute("approximate", Attribute::Text(b"tanh".to_vec())).gradients();
    }
}
