//! `ConstantOfShape`: one value in a given shape, float 0 unless it says otherwise. No gradient.

use super::site::{Site, bad_attribute};
use super::{Gradient, Operator};
use crate::graph::{Attribute, Element, Tensor, TensorType, element_count};
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "ConstantOfShape", shape, fold: Some(fold), gradient: Gradient::Stops };

fn value(site: &Site<'_>) -> Result<Tensor, NodeProblem> {
    let zero = || Tensor::from_floats(TensorType::new(Element::F32, [1]), &[0.0]);
    let found = match site.attribute("value") {
        None => zero(),
        Some(Attribute::Tensor(tensor)) if tensor.len() == 1 => Some(tensor.clone()),
        Some(_) => None,
    };
    found.ok_or_else(|| bad_attribute("value", "not a tensor of one element"))
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let sizes =
        site.ints(0)?.into_iter().map(|v| usize::try_from(v).map_err(|_| NodeProblem::inputs(format!("an axis of size {v}"))));
    Ok(vec![TensorType::new(value(site)?.element(), sizes.collect::<Result<Vec<_>, _>>()?)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(kind) = shape(site)?.pop() else { return Ok(None) };
    let count = element_count(&kind.shape).unwrap_or(0);
    Ok(value(site)?.picked(&kind.shape, std::iter::repeat_n(0, count)))
}

#[cfg(test)]
mod tests {
    use crate::graph::{Attribute, Element, Tensor, TensorType};
    use crate::ops::check::Case;

    #[test]
    fn values_fold_to_what_the_runtime_computes() {
        Case::new("ConstantOfShape").integers(&[2], &[2, 3]).folds();
        let one = Tensor::from_integers(TensorType::new(Element::I64, [1]), &[-1]).unwrap();
        Case::new("ConstantOfShape").integers(&[1], &[3]).attribute("value", Attribute::Tensor(one)).folds();
    }
}
