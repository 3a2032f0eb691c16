//! `Pad`: constant values around each axis; dx is the part of d that was x. Negative widths and the other modes are refused.

use super::site::{Site, bad_attribute};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Pad", shape, fold: None, gradient: Gradient::Rule(gradient) };

/// Widths before and behind, by axis.
fn widths(site: &Site<'_>) -> Result<Vec<(usize, usize)>, NodeProblem> {
    if !matches!(site.attribute("mode"), None | Some(Attribute::Text(_)))
        || matches!(site.attribute("mode"), Some(Attribute::Text(mode)) if mode != b"constant")
    {
        return Err(bad_attribute("mode", "only constant padding is understood"));
    }
    if site.optional(3).is_some() {
        return Err(NodeProblem::inputs("padding of named axes is not understood; export without the input axes"));
    }
    let rank = site.input(0)?.shape.len();
    let pads = site.ints(1)?.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>();
    let pads = pads.ok().filter(|pads| pads.len() == 2 * rank);
    let pads = pads.ok_or_else(|| NodeProblem::inputs(format!("two widths of at least 0 are needed for each of {rank} axes")))?;
    Ok((0..rank).map(|i| (pads[i], pads[rank + i])).collect())
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let kind = site.input(0)?;
    let padded = |(&size, &(before, behind)): (&usize, &(usize, usize))| size.checked_add(before)?.checked_add(behind);
    let sizes: Option<Vec<usize>> = kind.shape.iter().zip(&widths(site)?).map(padded).collect();
    Ok(vec![TensorType::new(kind.element, sizes.ok_or_else(|| NodeProblem::inputs("too many elements"))?)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (widths, shape) = (r.with_site(widths)?, r.shape(0)?);
    let mut dx = r.d()?;
    for (axis, (&(before, behind), size)) in widths.iter().zip(shape).enumerate() {
        if before + behind > 0 {
            dx = r.program.slice(&dx, axis, before, before + size)?;
        }
    }
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Pad").float(&[2, 3]).integers(&[4], &[1, 0, 0, 2]).gradients();
    }
}
