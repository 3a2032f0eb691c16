//! `Trilu`: the upper or lower triangle of matrices, zeros elsewhere; dx = the same triangle of d.

use super::families::like_first;
use super::site::Site;
use super::{Gradient, Operator, Reverse};
use crate::graph::{Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Trilu", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    if site.input(0)?.shape.len() < 2 {
        return Err(NodeProblem::inputs("a triangle needs two axes"));
    }
    like_first(site)
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    let diagonal = site.optional_ints(1)?.and_then(|v| v.first().copied()).unwrap_or(0);
    let upper = site.int("upper", 1)? != 0;
    let &[.., rows, columns] = x.shape() else { return Ok(None) };
    // A zero behind the elements, for those outside of the triangle.
    let bytes = [x.bytes(), &vec![0; x.element().width_bytes()]].concat();
    let Some(row) = Tensor::from_bytes(TensorType::new(x.element(), [x.len() + 1]), bytes) else { return Ok(None) };
    let pick = |i: usize| {
        let (line, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let offset = column - line;
        if (upper && offset >= diagonal) || (!upper && offset <= diagonal) { i } else { x.len() }
    };
    Ok(row.picked(x.shape(), (0..x.len()).map(pick)))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let d = r.d()?;
    let mut inputs = r.node.inputs.clone();
    inputs[0] = d;
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let attributes = r.node.attributes.clone();
    let attributes: Vec<(&str, _)> = attributes.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    let dx = r.program.emit("Trilu", &inputs, &attributes)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Trilu").float(&[2, 3, 4]).gradients();
        Case::new("Trilu").float(&[4, 4]).integers(&[], &[-1]).attribute("upper", Attribute::Int(0)).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        let values: Vec<i64> = (1..13).collect();
        for (upper, diagonal) in [(0, 0), (0, 1), (1, 1), (1, -1)] {
            let case = Case::new("Trilu").integers(&[3, 4], &values).integers(&[], &[diagonal]);
            case.attribute("upper", Attribute::Int(upper)).folds();
        }
    }
}
