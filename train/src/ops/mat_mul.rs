//! `MatMul`: y = a b over the last two axes, the others broadcast. da = d b^T, db = a^T d, summed over what was broadcast.
//!
//! With a two-dimensional b the leading axes of a are flattened, so that both products are one Gemm each.

use super::site::{Site, broadcast, same_element};
use super::{Gradient, Operator, Reverse};
use crate::graph::TensorType;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "MatMul", shape, fold: None, gradient: Gradient::Rule(gradient) };

/// A shape as batch, rows, columns; a vector on the left is a row, on the right a column.
fn parts(shape: &[usize], left: bool) -> Result<(&[usize], usize, usize), NodeProblem> {
    match shape {
        [] => Err(NodeProblem::inputs("a scalar is no matrix")),
        [n] if left => Ok((&[], 1, *n)),
        [n] => Ok((&[], *n, 1)),
        [batch @ .., rows, columns] => Ok((batch, *rows, *columns)),
    }
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let element = same_element(&[a, b])?;
    let ((a_batch, rows, inner), (b_batch, b_inner, columns)) = (parts(&a.shape, true)?, parts(&b.shape, false)?);
    if inner != b_inner {
        return Err(NodeProblem::inputs(format!("matrices of shapes {:?} and {:?} have no product", a.shape, b.shape)));
    }
    let mut shape = broadcast(a_batch, b_batch)?;
    shape.extend((a.shape.len() > 1).then_some(rows));
    shape.extend((b.shape.len() > 1).then_some(columns));
    Ok(vec![TensorType::new(element, shape)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (a_shape, b_shape) = (r.shape(0)?, r.shape(1)?);
    if a_shape.len() >= 2 && b_shape.len() == 2 { flat(r, &a_shape, &b_shape) } else { batched(r, &a_shape, &b_shape) }
}

fn flat(r: &mut Reverse<'_>, a_shape: &[usize], b_shape: &[usize]) -> Result<(), ProgramError> {
    let (a, b, d) = (r.x(0), r.x(1), r.d()?);
    let (inner, columns) = (b_shape[0], b_shape[1]);
    let rows = a_shape[..a_shape.len() - 1].iter().product();
    let d = r.program.reshape(&d, &[rows, columns])?;
    if r.wants(0) {
        let product = r.program.gemm((&d, false), (&b, true))?;
        let da = r.program.reshape(&product, a_shape)?;
        r.give(0, da);
    }
    if r.wants(1) {
        let a = r.program.reshape(&a, &[rows, inner])?;
        let db = r.program.gemm((&a, true), (&d, false))?;
        r.give(1, db);
    }
    Ok(())
}

fn batched(r: &mut Reverse<'_>, a_shape: &[usize], b_shape: &[usize]) -> Result<(), ProgramError> {
    let matrix = |shape: &[usize], left: bool| match (shape, left) {
        ([n], true) => vec![1, *n],
        ([n], false) => vec![*n, 1],
        _ => shape.to_vec(),
    };
    let (a_full, b_full) = (matrix(a_shape, true), matrix(b_shape, false));
    let (a, b, d) = (r.x(0), r.x(1), r.d()?);
    let y_shape = r.program.shape(&r.y())?;
    // The axes that vectors lost come back, so that d is a batch of matrices again.
    let kept = y_shape.len() - usize::from(a_shape.len() > 1) - usize::from(b_shape.len() > 1);
    let mut d_shape = y_shape[..kept].to_vec();
    d_shape.extend([a_full[a_full.len() - 2], b_full[b_full.len() - 1]]);
    let d = r.program.reshape(&d, &d_shape)?;
    if r.wants(0) {
        let b = r.program.reshape(&b, &b_full)?;
        let turned = r.program.matrix_transpose(&b)?;
        let product = r.program.matmul(&d, &turned)?;
        let fitted = r.program.fit(&product, &a_full)?;
        let da = r.program.reshape(&fitted, a_shape)?;
        r.give(0, da);
    }
    if r.wants(1) {
        let a = r.program.reshape(&a, &a_full)?;
        let turned = r.program.matrix_transpose(&a)?;
        let product = r.program.matmul(&turned, &d)?;
        let fitted = r.program.fit(&product, &b_full)?;
        let db = r.program.reshape(&fitted, b_shape)?;
        r.give(1, db);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        let cases: [(&[usize], &[usize]); 9] = [
            (&[2, 3], &[3, 4]),
            (&[2, 5, 3], &[3, 4]),
            (&[1, 3], &[3, 1]),
            (&[2, 2, 3], &[2, 3, 4]),
            (&[2, 1, 2, 3], &[5, 3, 4]),
            (&[2, 3], &[5, 3, 4]),
            (&[3], &[3, 4]),
            (&[2, 4, 3], &[3]),
            (&[3], &[3]),
        ];
        for (a, b) in cases {
            Case::new("MatMul").float(a).float(b).gradients();
        }
    }
}
