//! `Concat`: inputs one behind the other along an axis; each gets its slice of d.

use super::site::{Site, positions, same_element, strides};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Concat", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kinds = site.all()?;
    let element = same_element(&kinds)?;
    let mut shape = site.input(0)?.shape.clone();
    let axis = site.axis("axis", 0, shape.len())?;
    for kind in kinds.iter().skip(1) {
        let fits = |(i, &size): (usize, &usize)| i == axis || shape.get(i) == Some(&size);
        if kind.shape.len() != shape.len() || !kind.shape.iter().enumerate().all(fits) {
            return Err(NodeProblem::inputs(format!("{:?} does not continue {shape:?} along axis {axis}", kind.shape)));
        }
        shape[axis] = shape[axis].checked_add(kind.shape[axis]).ok_or_else(|| NodeProblem::inputs("too many elements"))?;
    }
    Ok(vec![TensorType::new(element, shape)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let (Some(values), Some(kind)) = (site.values(), shape(site)?.pop()) else { return Ok(None) };
    let axis = site.axis("axis", 0, kind.shape.len())?;
    // All elements in a row, and then which of them stands where.
    let bytes = values.iter().flat_map(|t| t.bytes().iter().copied()).collect();
    let count: usize = values.iter().map(|t| t.len()).sum();
    let Some(row) = Tensor::from_bytes(TensorType::new(kind.element, [count]), bytes) else { return Ok(None) };
    let outer: usize = kind.shape[..axis].iter().product();
    let mut order = Vec::with_capacity(count);
    for block in 0..outer {
        let mut start = 0;
        for tensor in &values {
            let size = tensor.len() / outer;
            order.extend(start + block * size..start + (block + 1) * size);
            start += tensor.len();
        }
    }
    debug_assert_eq!(order.len(), positions(&kind.shape, &strides(&kind.shape), 0).len());
    Ok(row.picked(&kind.shape, order))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, axis) = (r.d()?, r.axis("axis", 0)?);
    let mut start = 0;
    for i in 0..r.node.inputs.len() {
        let end = start + r.shape(i)?[axis];
        if r.wants(i) {
            let dx = r.program.slice(&d, axis, start, end)?;
            r.give(i, dx);
        }
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        let case = Case::new("Concat").float(&[2, 1, 4]).float(&[2, 3, 4]).float(&[2, 2, 4]);
        case.attribute("axis", Attribute::Int(1)).gradients();
        Case::new("Concat").float(&[2]).float(&[1]).attribute("axis", Attribute::Int(-1)).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        let case = Case::new("Concat").integers(&[2, 1], &[1, 2]).integers(&[2, 2], &[3, 4, 5, 6]);
        case.attribute("axis", Attribute::Int(1)).folds();
    }
}
