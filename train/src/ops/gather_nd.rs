//! `GatherND`: entries by tuples of indices; dx is d added up at its indices into zeros. Without batch axes only.

use super::site::{Site, bad_attribute};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "GatherND", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (kind, indices) = (site.input(0)?, site.input(1)?);
    if site.int("batch_dims", 0)? != 0 {
        return Err(bad_attribute("batch_dims", "batch axes are not understood"));
    }
    let split = indices.shape.split_last().and_then(|(&depth, outer)| Some((outer, kind.shape.get(depth..)?)));
    let (outer, inner) =
        split.ok_or_else(|| NodeProblem::inputs(format!("indices {:?} into {:?}", indices.shape, kind.shape)))?;
    Ok(vec![TensorType::new(kind.element, [outer, inner].concat())])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, kind, indices) = (r.d()?, r.kind(0)?, r.x(1));
    let zeros = r.program.zeros(&kind)?;
    let add = [("reduction", Attribute::Text(b"add".to_vec()))];
    let dx = r.program.emit("ScatterND", &[&zeros, &indices, &d], &add)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("GatherND").float(&[2, 3, 4]).integers(&[3, 2], &[0, 1, 1, 2, 0, 1]).gradients();
        Case::new("GatherND").float(&[3, 4]).integers(&[2, 2], &[0, 1, 2, 3]).gradients();
    }
}
