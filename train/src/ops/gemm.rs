//! `Gemm`: y = alpha A B + beta c, where A and B are a and b or their transposes.
//!
//! da = alpha d B^T, or alpha B d^T where a was transposed; db = alpha A^T d, or alpha d^T A; dc = beta d, summed to shape.

use super::site::{Site, bad_attribute, broadcast, same_element};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Gemm", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let element = same_element(&[a, b])?;
    let turned = |kind: &TensorType, flag: &str| match (kind.shape.as_slice(), site.int(flag, 0)?) {
        ([rows, columns], 0) => Ok((*rows, *columns)),
        ([rows, columns], _) => Ok((*columns, *rows)),
        _ => Err(NodeProblem::inputs(format!("shape {:?} is no matrix", kind.shape))),
    };
    for name in ["alpha", "beta"] {
        if !matches!(site.attribute(name), None | Some(Attribute::Float(_))) {
            return Err(bad_attribute(name, "not a float"));
        }
    }
    let ((rows, inner), (b_inner, columns)) = (turned(a, "transA")?, turned(b, "transB")?);
    let shape = vec![rows, columns];
    if inner != b_inner {
        return Err(NodeProblem::inputs(format!("matrices of shapes {:?} and {:?} have no product", a.shape, b.shape)));
    }
    if let Some(c) = site.optional(2)
        && broadcast(&shape, &c.shape)? != shape
    {
        return Err(NodeProblem::inputs(format!("a bias of shape {:?} does not go with {shape:?}", c.shape)));
    }
    Ok(vec![TensorType::new(element, shape)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let flag = |r: &Reverse<'_>, name: &str| matches!(r.node.attributes.get(name), Some(Attribute::Int(v)) if *v != 0);
    let factor = |r: &Reverse<'_>, name: &str| match r.node.attributes.get(name) {
        Some(Attribute::Float(value)) => f64::from(*value),
        _ => 1.0,
    };
    let (turn_a, turn_b) = (flag(r, "transA"), flag(r, "transB"));
    let (alpha, beta) = (factor(r, "alpha"), factor(r, "beta"));
    let (a, b, d) = (r.x(0), r.x(1), r.d()?);
    let scaled = |r: &mut Reverse<'_>, x: String, by: f64| if by == 1.0 { Ok(x) } else { r.program.scale(&x, by) };
    if r.wants(0) {
        let product = match turn_a {
            false => r.program.gemm((&d, false), (&b, !turn_b))?,
            true => r.program.gemm((&b, turn_b), (&d, true))?,
        };
        let da = scaled(r, product, alpha)?;
        r.give(0, da);
    }
    if r.wants(1) {
        let product = match turn_b {
            false => r.program.gemm((&a, !turn_a), (&d, false))?,
            true => r.program.gemm((&d, true), (&a, turn_a))?,
        };
        let db = scaled(r, product, alpha)?;
        r.give(1, db);
    }
    if r.wants(2) {
        let dc = scaled(r, d, beta)?;
        r.give_fitted(2, &dc)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        for (turn_a, turn_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let a: &[usize] = if turn_a == 0 { &[2, 3] } else { &[3, 2] };
            let b: &[usize] = if turn_b == 0 { &[3, 4] } else { &[4, 3] };
            for bias in [&[4][..], &[2, 1], &[2, 4], &[1]] {
                let case = Case::new("Gemm").float(a).float(b).float(bias);
                let case = case.attribute("transA", Attribute::Int(turn_a)).attribute("transB", Attribute::Int(turn_b));
                case.attribute("alpha", Attribute::Float(0.5)).attribute("beta", Attribute::Float(-2.0)).gradients();
            }
        }
        Case::new("Gemm").float(&[2, 3]).float(&[3, 4]).gradients();
    }
}
