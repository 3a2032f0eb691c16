//! `MaxPool`: the largest of each window. The node is asked for its optional second output, the place of each, and d is added there.

use super::average_pool::pooled;
use super::site::bad_attribute;
use super::{Gradient, Operator, Reverse, Site};
use crate::graph::{Attribute, Element, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "MaxPool", shape, fold: None, gradient: Gradient::Rule(gradient) };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    if site.int("storage_order", 0)? != 0 {
        return Err(bad_attribute("storage_order", "only row-major places are understood"));
    }
    let shape = pooled(site)?;
    Ok(vec![TensorType::new(site.input(0)?.element, shape.clone()), TensorType::new(Element::I64, shape)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (d, kind) = (r.d()?, r.kind(0)?);
    let kinds = r.with_site(shape)?;
    let places = r.extra_outputs(&kinds)[1].clone();
    let (count, given): (usize, usize) = (kind.shape.iter().product(), kinds[0].shape.iter().product());
    let p = &mut *r.program;
    let zeros = p.zeros(&TensorType::new(kind.element, [count]))?;
    let places = p.reshape(&places, &[given])?;
    let d = p.reshape(&d, &[given])?;
    let add = [("axis", Attribute::Int(0)), ("reduction", Attribute::Text(b"add".to_vec()))];
    let flat = p.emit("ScatterElements", &[&zeros, &places, &d], &add)?;
    let dx = p.reshape(&flat, &kind.shape)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    fn pool(x: &[usize], lists: &[(&str, &[i64])]) -> Case {
        let case = Case::new("MaxPool").float(x);
        lists.iter().fold(case, |case, (name, values)| case.attribute(name, Attribute::Ints(values.to_vec())))
    }

    #[test]
    fn gradients_match_central_differences() {
        pool(&[2, 3, 4, 4], &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]).gradients();
        pool(&[1, 2, 5, 6], &[("kernel_shape", &[3, 3]), ("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])]).gradients();
        pool(&[2, 2, 7], &[("kernel_shape", &[3])]).gradients();
    }
}
