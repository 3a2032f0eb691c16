//! `Shape`: the sizes of an input's axes, always known here. No gradient.

use super::site::Site;
use super::{Gradient, Operator};
use crate::graph::{Element, Tensor, TensorType};
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "Shape", shape, fold: Some(fold), gradient: Gradient::Stops };

fn sizes(site: &Site<'_>) -> Result<Vec<i64>, NodeProblem> {
    let shape = &site.input(0)?.shape;
    let rank = shape.len() as i64;
    let cut = |v: i64| if v < 0 { v.saturating_add(rank) } else { v }.clamp(0, rank) as usize;
    let (start, end) = (cut(site.int("start", 0)?), cut(site.int("end", rank)?));
    Ok(shape.get(start..end).unwrap_or_default().iter().map(|&size| size as i64).collect())
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    Ok(vec![TensorType::new(Element::I64, [sizes(site)?.len()])])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    Ok(Some(Tensor::list(&sizes(site)?)))
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    #[test]
    fn shapes_fold_to_what_the_runtime_computes() {
        Case::new("Shape").float(&[2, 3, 4]).folds();
        Case::new("Shape").float(&[2, 3, 4]).attribute("start", Attribute::Int(-2)).attribute("end", Attribute::Int(9)).folds();
    }
}
