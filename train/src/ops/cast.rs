//! `Cast`: the same values in another element type. Between floats dx = d, cast back; to and from integers nothing flows.

use super::site::{Site, bad_attribute};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Element, Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Cast", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let to = Element::from_onnx(site.int("to", 0)?).ok_or_else(|| bad_attribute("to", "no type of number"))?;
    Ok(vec![TensorType::new(to, site.input(0)?.shape.clone())])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(x) = site.value(0) else { return Ok(None) };
    let Some(kind) = shape(site)?.pop() else { return Ok(None) };
    if kind.element == x.element() {
        return Ok(Some(x.clone()));
    }
    let to_bool = kind.element == Element::Bool;
    Ok(match (x.integers(), x.floats()) {
        (Some(values), _) if kind.element.is_differentiable() => {
            Tensor::from_floats(kind, &values.into_iter().map(|v| v as f64).collect::<Vec<_>>())
        }
        (Some(values), _) => {
            let cast = |v| if to_bool { i64::from(v != 0) } else { v };
            Tensor::from_integers(kind, &values.into_iter().map(cast).collect::<Vec<_>>())
        }
        (_, Some(values)) if kind.element.is_differentiable() => Tensor::from_floats(kind, &values),
        (_, Some(values)) => {
            let cast = |v: f64| if to_bool { i64::from(v != 0.0) } else { v as i64 };
            Tensor::from_integers(kind, &values.into_iter().map(cast).collect::<Vec<_>>())
        }
        _ => None,
    })
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, element) = (r.d()?, r.kind(0)?.element);
    let dx = r.program.cast(&d, element)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::{Attribute, Element};
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Cast").float(&[2, 3]).attribute("to", Attribute::Int(Element::F64.onnx())).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        for to in [Element::F32, Element::I64, Element::I32, Element::Bool] {
            Case::new("Cast").integers(&[3], &[0, -2, 3]).attribute("to", Attribute::Int(to.onnx())).folds();
            Case::new("Cast").constant(&[3], &[0.0, -2.7, 3.2]).attribute("to", Attribute::Int(to.onnx())).folds();
        }
    }
}
