//! `ConvTranspose`: a convolution turned around. Appears in backward graphs only, so it has no gradient rule.

use super::conv::Window;
use super::site::{Site, bad_attribute, same_element};
use super::{Gradient, Operator};
use crate::graph::TensorType;
use crate::program::NodeProblem;

pub(super) const RULES: Operator = Operator { name: "ConvTranspose", shape, fold: None, gradient: Gradient::Missing };

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (x, w) = (site.input(0)?, site.input(1)?);
    let element = same_element(&[x, w])?;
    let refuse = || NodeProblem::inputs(format!("{:?} cannot be spread with {:?}", x.shape, w.shape));
    let ([batch, channels, spatial @ ..], [w_channels, out, kernel @ ..]) = (&x.shape[..], &w.shape[..]) else {
        return Err(refuse());
    };
    let window = Window::read(site, spatial.len())?;
    if kernel.len() != spatial.len() || w_channels != channels || site.attribute("output_shape").is_some() {
        return Err(refuse());
    }
    let extra = site.int_list("output_padding")?.unwrap_or_default();
    let mut shape = vec![*batch, out.checked_mul(window.groups).ok_or_else(refuse)?];
    for (i, (&size, &taps)) in spatial.iter().zip(kernel).enumerate() {
        let extra =
            usize::try_from(extra.get(i).copied().unwrap_or(0)).map_err(|_| bad_attribute("output_padding", "negative"))?;
        let reached = size.checked_sub(1).and_then(|s| s.checked_mul(window.strides[i]));
        let reach = taps.checked_sub(1).and_then(|t| t.checked_mul(window.dilations[i]));
        let all = reached.zip(reach).and_then(|(a, b)| a.checked_add(b)?.checked_add(1)?.checked_add(extra));
        shape.push(all.and_then(|all| all.checked_sub(window.before[i].checked_add(window.behind[i])?)).ok_or_else(refuse)?);
    }
    Ok(vec![TensorType::new(element, shape)])
}
