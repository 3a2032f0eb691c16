//! `Conv`: convolution over any number of spatial axes, with strides, pads, dilations and groups.
//!
//! dx = ConvTranspose(d, w) with the same parameters, padded at the end by what the stride skipped. dw: x and d exchange batch
//! and channels, strides and dilations change places; what the stride skipped is cropped. dbias = d summed over all but channels.

use super::site::{Site, bad_attribute, same_element};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Attribute, TensorType};
use crate::program::emit::{Emitted, signed};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Conv", shape, fold: None, gradient: Gradient::Rule(gradient) };

/// Attributes, checked and filled in.
pub(super) struct Window {
    pub(super) strides: Vec<usize>,
    pub(super) before: Vec<usize>,
    pub(super) behind: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) groups: usize,
}

impl Window {
    pub(super) fn read(site: &Site<'_>, spatial: usize) -> Result<Self, NodeProblem> {
        match site.attribute("auto_pad") {
            None => {}
            Some(Attribute::Text(text)) if text == b"NOTSET" => {}
            // No padding, which is also what missing pads mean.
            Some(Attribute::Text(text)) if text == b"VALID" && site.attribute("pads").is_none() => {}
            Some(_) => return Err(bad_attribute("auto_pad", "only explicit pads are understood")),
        }
        let list = |name: &str, count: usize, default: usize, min: usize| {
            let Some(values) = site.int_list(name)? else { return Ok(vec![default; count]) };
            let sizes: Option<Vec<usize>> = values.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v >= min)).collect();
            sizes.filter(|s| s.len() == count).ok_or_else(|| bad_attribute(name, "not one size for each spatial axis"))
        };
        let pads = list("pads", 2 * spatial, 0, 0)?;
        let (before, behind) = pads.split_at(spatial);
        let groups = usize::try_from(site.int("group", 1)?).ok().filter(|&g| g > 0);
        Ok(Self {
            strides: list("strides", spatial, 1, 1)?,
            before: before.to_vec(),
            behind: behind.to_vec(),
            dilations: list("dilations", spatial, 1, 1)?,
            groups: groups.ok_or_else(|| bad_attribute("group", "not a positive number"))?,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("strides", Attribute::Ints(signed(&self.strides))),
            ("pads", Attribute::Ints(signed(&[&self.before[..], &self.behind].concat()))),
            ("dilations", Attribute::Ints(signed(&self.dilations))),
            ("group", Attribute::Int(self.groups as i64)),
        ]
    }
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let (x, w) = (site.input(0)?, site.input(1)?);
    let element = same_element(&[x, w])?;
    let refuse = || NodeProblem::inputs(format!("{:?} cannot be convolved with {:?}", x.shape, w.shape));
    let ([batch, channels, spatial @ ..], [out, in_group, kernel @ ..]) = (&x.shape[..], &w.shape[..]) else {
        return Err(refuse());
    };
    let window = Window::read(site, spatial.len())?;
    if kernel.len() != spatial.len() || in_group.checked_mul(window.groups) != Some(*channels) || out % window.groups != 0 {
        return Err(refuse());
    }
    let mut shape = vec![*batch, *out];
    for (i, (&size, &taps)) in spatial.iter().zip(kernel).enumerate() {
        let reach = taps.checked_sub(1).and_then(|t| t.checked_mul(window.dilations[i])).and_then(|t| t.checked_add(1));
        let padded = size.checked_add(window.before[i]).and_then(|s| s.checked_add(window.behind[i]));
        let room = padded.zip(reach).and_then(|(padded, reach)| padded.checked_sub(reach)).ok_or_else(refuse)?;
        shape.push(room / window.strides[i] + 1);
    }
    Ok(vec![TensorType::new(element, shape)])
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (x, w) = (r.shape(0)?, r.shape(1)?);
    let window = r.with_site(|site| Window::read(site, x.len() - 2))?;
    if r.wants(0) {
        let dx = input_gradient(r, &window, &x, &w)?;
        r.give(0, dx);
    }
    if r.wants(1) {
        let dw = weight_gradient(r, &window, &x, &w)?;
        r.give(1, dw);
    }
    if r.wants(2) {
        let d = r.d()?;
        let axes: Vec<usize> = (0..x.len()).filter(|&i| i != 1).collect();
        let sum = r.program.sum(&d, &axes)?;
        let db = r.program.reshape(&sum, &w[..1])?;
        r.give(2, db);
    }
    Ok(())
}

fn input_gradient(r: &mut Reverse<'_>, window: &Window, x: &[usize], w: &[usize]) -> Emitted {
    let (weights, d) = (r.x(1), r.d()?);
    let y = r.program.shape(&d)?;
    let rest = |i: usize| {
        let reached = (y[i + 2] - 1) * window.strides[i] + window.dilations[i] * (w[i + 2] - 1) + 1;
        x[i + 2] + window.before[i] + window.behind[i] - reached
    };
    let rests: Vec<usize> = (0..x.len() - 2).map(rest).collect();
    let mut attributes = window.attributes();
    attributes.push(("output_padding", Attribute::Ints(signed(&rests))));
    r.program.emit("ConvTranspose", &[&d, &weights], &attributes)
}

/// With groups: x as [channels of a group, groups x batch, ..] and d as [out, batch, ..] are convolved in those same groups.
fn weight_gradient(r: &mut Reverse<'_>, window: &Window, x: &[usize], w: &[usize]) -> Emitted {
    let (input, d) = (r.x(0), r.d()?);
    let p = &mut *r.program;
    let (batch, groups, rank) = (x[0], window.groups, x.len());
    let split = [&[batch, groups, w[1]][..], &x[2..]].concat();
    let input = p.reshape(&input, &split)?;
    let order: Vec<usize> = [2, 1, 0].into_iter().chain(3..=rank).collect();
    let input = p.transpose(&input, &order)?;
    let input = p.reshape(&input, &[&[w[1], groups * batch][..], &x[2..]].concat())?;
    let exchange: Vec<usize> = [1, 0].into_iter().chain(2..rank).collect();
    let d = p.transpose(&d, &exchange)?;
    let crossed = Window {
        strides: window.dilations.clone(),
        before: window.before.clone(),
        behind: window.behind.clone(),
        dilations: window.strides.clone(),
        groups,
    };
    let mut dw = p.emit("Conv", &[&input, &d], &crossed.attributes())?;
    for (axis, &size) in w.iter().enumerate().skip(2) {
        if p.shape(&dw)?[axis] > size {
            dw = p.slice(&dw, axis, 0, size)?;
        }
    }
    p.transpose(&dw, &exchange)
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    fn conv(x: &[usize], w: &[usize], lists: &[(&str, &[i64])], groups: i64) -> Case {
        let case = Case::new("Conv").float(x).float(w).float(&w[..1]).attribute("group", Attribute::Int(groups));
        lists.iter().fold(case, |case, (name, values)| case.attribute(name, Attribute::Ints(values.to_vec())))
    }

    /// The runtime has no float64 Conv on the CPU: forward and backward run on the reference in `check`.
    #[test]
    fn gradients_match_central_differences() {
        conv(&[2, 3, 4, 4], &[2, 3, 2, 2], &[("strides", &[2, 2])], 1).gradients();
        conv(&[2, 2, 5, 4], &[3, 2, 3, 2], &[("pads", &[1, 0, 2, 1])], 1).gradients();
        conv(&[1, 1, 6, 7], &[1, 1, 2, 3], &[("strides", &[3, 2]), ("dilations", &[2, 1])], 1).gradients();
        conv(&[2, 4, 5, 5], &[4, 2, 3, 3], &[("pads", &[1, 1, 1, 1]), ("strides", &[2, 2])], 2).gradients();
        conv(&[2, 3, 4, 4], &[3, 1, 3, 3], &[("pads", &[1, 1, 1, 1])], 3).gradients();
        conv(&[2, 2, 6], &[3, 2, 3], &[("strides", &[2])], 1).gradients();
        let valid = Attribute::Text(b"VALID".to_vec());
        conv(&[2, 2, 5], &[3, 2, 2], &[], 1).attribute("auto_pad", valid).gradients();
    }

    /// The same on the runtime's own kernels.
    #[test]
    fn float32_gradients_match_those_of_float64() {
        conv(&[2, 3, 4, 4], &[2, 3, 2, 2], &[("strides", &[2, 2])], 1).gradients_in_float32();
        conv(&[2, 4, 5, 5], &[4, 2, 3, 3], &[("pads", &[1, 1, 1, 1]), ("strides", &[2, 2])], 2).gradients_in_float32();
    }
}
