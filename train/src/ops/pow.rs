//! `Pow`: y = x^e, dx = d e x^(e-1). The exponent has no gradient: no export trains one.

use super::families::fold_arithmetic;
use super::site::{Site, broadcast};
use super::{Gradient, Operator, Reverse};
use crate::graph::TensorType;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator {
    name: "Pow",
    shape,
    fold: Some(|site| fold_arithmetic(site, f64::powf, |a, b| a.checked_pow(u32::try_from(b).ok()?))),
    gradient: Gradient::Rule(gradient),
};

/// The exponent may have another element type; the base's is the result's.
fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (base, exponent) = (site.input(0)?, site.input(1)?);
    Ok(vec![TensorType::new(base.element, broadcast(&base.shape, &exponent.shape)?)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    if r.wants(1) {
        return Err(r.refuse("a trained exponent"));
    }
    let (x, e, d) = (r.x(0), r.x(1), r.d()?);
    let square = r.program.constant(&e).and_then(single).is_some_and(|v| v == 2.0);
    let slope = if square {
        r.program.scale(&x, 2.0)?
    } else {
        let element = r.kind(0)?.element;
        let e = if r.kind(1)?.element == element { e } else { r.program.cast(&e, element)? };
        let one = r.program.scalar(1.0, &x)?;
        let lower = r.program.sub(&e, &one)?;
        let power = r.program.binary("Pow", &x, &lower)?;
        r.program.mul(&power, &e)?
    };
    let product = r.program.mul(&d, &slope)?;
    r.give_fitted(0, &product)
}

/// The value of a constant of one element.
fn single(tensor: &crate::graph::Tensor) -> Option<f64> {
    let values = tensor.floats().or_else(|| Some(tensor.integers()?.into_iter().map(|v| v as f64).collect()))?;
    <[f64; 1]>::try_from(values).ok().map(|[v]| v)
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Pow").float(&[2, 3]).constant(&[], &[2.0]).gradients();
        Case::new("Pow").positive(&[2, 3]).constant(&[], &[-1.5]).gradients();
        Case::new("Pow").positive(&[2, 1]).constant(&[3], &[0.5, 1.0, 3.0]).gradients();
        Case::new("Pow").float(&[2, 3]).integers(&[], &[3]).gradients();
    }
}
