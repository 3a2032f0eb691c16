//! `BatchNormalization` in inference form: y = scale (x - mean) r + bias by channel, r = 1 / sqrt(variance + epsilon), mean and
//! variance as they were gathered in pretraining. They stay so: finetuning with frozen statistics is what a served model computes.
//!
//! dx = d scale r; dscale = sum of d (x - mean) r; dbias = sum of d, over all axes but the channels'.

use super::site::{bad_attribute, same_element};
use super::{Gradient, Operator, Reverse, Site};
use crate::graph::{Attribute, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "BatchNormalization", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    if site.int("training_mode", 0)? != 0 {
        return Err(bad_attribute("training_mode", "export the model for inference"));
    }
    let kinds = site.all()?;
    let [x, rest @ ..] = &kinds[..] else { return Err(NodeProblem::inputs("no inputs")) };
    same_element(&kinds)?;
    let channels = x.shape.get(1).copied();
    if rest.len() != 4 || rest.iter().any(|kind| Some(&kind.shape[..]) != channels.as_ref().map(std::slice::from_ref)) {
        return Err(NodeProblem::inputs(format!("scale, bias, mean and variance do not go with {x}")));
    }
    Ok(vec![(*x).clone()])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    if r.wants(3) || r.wants(4) {
        return Err(r.refuse("the running statistics"));
    }
    let epsilon = match r.node.attributes.get("epsilon") {
        Some(Attribute::Float(value)) => f64::from(*value),
        _ => 1e-5,
    };
    let (d, shape) = (r.d()?, r.shape(0)?);
    let [x, scale, mean, variance] = [0, 1, 3, 4].map(|i| r.x(i));
    let by_channel: Vec<usize> = (0..shape.len()).map(|i| if i == 1 { shape[1] } else { 1 }).collect();
    let others: Vec<usize> = (0..shape.len()).filter(|&i| i != 1).collect();
    let p = &mut *r.program;
    let epsilon = p.scalar(epsilon, &x)?;
    let shifted = p.add(&variance, &epsilon)?;
    let deviation = p.unary("Sqrt", &shifted)?;
    let inverse = p.unary("Reciprocal", &deviation)?;
    let factor = p.mul(&scale, &inverse)?;
    let factor = p.reshape(&factor, &by_channel)?;
    let dx = p.mul(&d, &factor)?;
    let (mean, inverse) = (p.reshape(&mean, &by_channel)?, p.reshape(&inverse, &by_channel)?);
    let centred = p.sub(&x, &mean)?;
    let normal = p.mul(&centred, &inverse)?;
    let weighted = p.mul(&d, &normal)?;
    let sums = [p.sum(&weighted, &others)?, p.sum(&d, &others)?];
    let [dscale, dbias] = [p.reshape(&sums[0], &shape[1..2])?, p.reshape(&sums[1], &shape[1..2])?];
    r.give(0, dx);
    r.give(1, dscale);
    r.give(2, dbias);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        let case = |x: &[usize]| {
            Case::new("BatchNormalization")
                .float(x)
                .float(&[2])
                .float(&[2])
                .constant(&[2], &[0.3, -0.2])
                .constant(&[2], &[0.5, 2.0])
        };
        case(&[3, 2, 2, 3]).gradients();
        case(&[3, 2]).attribute("epsilon", Attribute::Float(0.125)).gradients();
    }
}
