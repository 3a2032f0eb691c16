//! `LayerNormalization` over the axes from `axis` on: x^ = (x - mean) r with r = 1 / sqrt(variance + epsilon), y = x^ scale + bias.
//!
//! dbias = d, dscale = d x^, both summed to shape; with h = d scale: dx = r (h - mean(h) - x^ mean(h x^)).
//!
//! In float32 mean and r are the operator's own optional outputs, so they are not computed twice. In float64 those outputs have
//! float32 precision by the standard, so they are recomputed.

use super::site::{Site, broadcast, same_element};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, Element, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "LayerNormalization", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (kind, scale) = (site.input(0)?, site.input(1)?);
    same_element(&[kind, scale])?;
    let axis = site.axis("axis", -1, kind.shape.len())?;
    if broadcast(&kind.shape, &scale.shape)? != kind.shape {
        return Err(NodeProblem::inputs(format!("a scale of shape {:?} is larger than the input", scale.shape)));
    }
    let statistics = TensorType::new(Element::F32, kept(&kind.shape, axis));
    Ok(vec![kind.clone(), statistics.clone(), statistics])
}

fn kept(shape: &[usize], axis: usize) -> Vec<usize> {
    shape.iter().enumerate().map(|(i, &size)| if i < axis { size } else { 1 }).collect()
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    let axis = r.axis("axis", -1)?;
    let shape = r.shape(0)?;
    let axes: Vec<usize> = (axis..shape.len()).collect();
    if r.wants(2) {
        r.give_fitted(2, &d)?;
    }
    if !r.wants(0) && !r.wants(1) {
        return Ok(());
    }
    let (mean, inverse) = statistics(r, axis, &axes)?;
    let (x, scale) = (r.x(0), r.x(1));
    let centred = r.program.sub(&x, &mean)?;
    let normal = r.program.mul(&centred, &inverse)?;
    if r.wants(1) {
        let product = r.program.mul(&d, &normal)?;
        r.give_fitted(1, &product)?;
    }
    if r.wants(0) {
        let p = &mut *r.program;
        let h = p.mul(&d, &scale)?;
        let h_mean = p.mean(&h, &axes)?;
        let along = p.mul(&h, &normal)?;
        let along_mean = p.mean(&along, &axes)?;
        let back = p.mul(&normal, &along_mean)?;
        let less = p.sub(&h, &h_mean)?;
        let rest = p.sub(&less, &back)?;
        let dx = p.mul(&rest, &inverse)?;
        r.give(0, dx);
    }
    Ok(())
}

/// Mean and inverse deviation of the forward pass.
fn statistics(r: &mut Reverse<'_>, axis: usize, axes: &[usize]) -> Result<(String, String), ProgramError> {
    let kind = r.kind(0)?;
    if kind.element == Element::F32 {
        let statistics = TensorType::new(Element::F32, kept(&kind.shape, axis));
        let names = r.extra_outputs(&[kind, statistics.clone(), statistics]);
        return Ok((names[1].clone(), names[2].clone()));
    }
    let epsilon = match r.node.attributes.get("epsilon") {
        Some(Attribute::Float(value)) => f64::from(*value),
        _ => f64::from(1e-5_f32),
    };
    let x = r.x(0);
    let p = &mut *r.program;
    let mean = p.mean(&x, axes)?;
    let centred = p.sub(&x, &mean)?;
    let square = p.mul(&centred, &centred)?;
    let variance = p.mean(&square, axes)?;
    let epsilon = p.scalar(epsilon, &x)?;
    let safe = p.add(&variance, &epsilon)?;
    let deviation = p.unary("Sqrt", &safe)?;
    let inverse = p.unary("Reciprocal", &deviation)?;
    Ok((mean, inverse))
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    fn cases() -> [Case; 4] {
        [
            Case::new("LayerNormalization").float(&[3, 8]).float(&[8]).float(&[8]),
            Case::new("LayerNormalization").float(&[2, 3, 6]).float(&[6]),
            Case::new("LayerNormalization").float(&[2, 3, 4]).float(&[3, 4]).float(&[3, 4]).attribute("axis", Attribute::Int(1)),
            Case::new("LayerNormalization").float(&[1, 1, 6]).float(&[6]).float(&[6]).attribute("epsilon", Attribute::Float(0.1)),
        ]
    }

    #[test]
    fn gradients_match_central_differences() {
        cases().into_iter().for_each(|case| case.gradients());
    }

    /// The float32 rule reads other outputs of the operator than the float64 one.
    #[test]
    fn float32_gradients_match_those_of_float64() {
        cases().into_iter().for_each(|case| case.gradients_in_float32());
    }
}
