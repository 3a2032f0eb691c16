//! `AveragePool`: the mean of each window; padding counts only where `count_include_pad` says so.
//!
//! dx = every window's d / count put back over the window: a ConvTranspose with a kernel of ones, channel by channel.

use super::conv::Window;
use super::site::bad_attribute;
use super::{Gradient, Operator, Reverse, Site};
use crate::graph::{Attribute, Tensor, TensorType};
use crate::program::emit::signed;
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "AveragePool", shape, fold: None, gradient: Gradient::Rule(gradient) };

/// A pooling node's window and the sizes of its kernel.
pub(super) fn window(site: &Site<'_>) -> Result<(Window, Vec<usize>), NodeProblem> {
    let x = site.input(0)?;
    let spatial = x.shape.len().checked_sub(2).filter(|&n| n > 0);
    let spatial = spatial.ok_or_else(|| NodeProblem::inputs(format!("{x} has no spatial axes")))?;
    if site.int("ceil_mode", 0)? != 0 {
        return Err(bad_attribute("ceil_mode", "only windows that fit are understood"));
    }
    let sizes = site.int_list("kernel_shape")?.unwrap_or_default();
    let kernel: Vec<usize> = sizes.iter().filter_map(|&v| usize::try_from(v).ok().filter(|&v| v > 0)).collect();
    if kernel.len() != spatial {
        return Err(bad_attribute("kernel_shape", "not one size for each spatial axis"));
    }
    Ok((Window::read(site, spatial)?, kernel))
}

/// The shape of a pooling.
pub(super) fn pooled(site: &Site<'_>) -> Result<Vec<usize>, NodeProblem> {
    let x = site.input(0)?;
    let (window, kernel) = window(site)?;
    let mut shape = x.shape[..2].to_vec();
    for (i, &size) in x.shape[2..].iter().enumerate() {
        let reach = window.dilations[i].checked_mul(kernel[i] - 1).and_then(|r| r.checked_add(1));
        let padded = size.checked_add(window.before[i]).and_then(|s| s.checked_add(window.behind[i]));
        let room = padded.zip(reach).and_then(|(padded, reach)| padded.checked_sub(reach));
        let room = room.ok_or_else(|| NodeProblem::inputs(format!("a window of {kernel:?} does not fit {:?}", x.shape)))?;
        shape.push(room / window.strides[i] + 1);
    }
    Ok(shape)
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    Ok(vec![TensorType::new(site.input(0)?.element, pooled(site)?)])
}

/// How many values each window averages, row-major over the output's spatial axes.
fn counts(window: &Window, kernel: &[usize], x: &[usize], y: &[usize], padding: bool) -> Vec<f64> {
    let along = |axis: usize, at: usize| {
        let inside = |tap: &usize| {
            let place = at * window.strides[axis] + tap * window.dilations[axis];
            padding || (place >= window.before[axis] && place < window.before[axis] + x[axis])
        };
        (0..kernel[axis]).filter(inside).count() as f64
    };
    let axes = y.iter().enumerate().map(|(axis, &size)| (0..size).map(|at| along(axis, at)).collect::<Vec<f64>>());
    axes.fold(vec![1.0], |all, axis| all.iter().flat_map(|a| axis.iter().map(move |b| a * b)).collect())
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let kind = r.kind(0)?;
    let (x, spatial) = (kind.shape.clone(), kind.shape.len() - 2);
    let (window, kernel) = r.with_site(window)?;
    let padding = r.with_site(|site| site.int("count_include_pad", 0))? != 0;
    let d = r.d()?;
    let y = r.program.shape(&d)?;
    let shares: Vec<f64> = counts(&window, &kernel, &x[2..], &y[2..], padding).iter().map(|c| 1.0 / c).collect();
    let refused = || r.refuse("elements that are no float32 or float64");
    let shares = Tensor::from_floats(TensorType::new(kind.element, &y[2..]), &shares).ok_or_else(refused)?;
    let ones = TensorType::new(kind.element, [&[1, 1], &kernel[..]].concat());
    let p = &mut *r.program;
    let shares = p.tensor(shares);
    let d = p.mul(&d, &shares)?;
    let d = p.reshape(&d, &[&[x[0] * x[1], 1], &y[2..]].concat())?;
    let ones = p.filled(1.0, &ones)?;
    let rest = |i: usize| {
        x[i + 2] + window.before[i] + window.behind[i]
            - ((y[i + 2] - 1) * window.strides[i] + window.dilations[i] * (kernel[i] - 1) + 1)
    };
    let rests: Vec<usize> = (0..spatial).map(rest).collect();
    let attributes = [
        ("strides", Attribute::Ints(signed(&window.strides))),
        ("pads", Attribute::Ints(signed(&[&window.before[..], &window.behind].concat()))),
        ("dilations", Attribute::Ints(signed(&window.dilations))),
        ("output_padding", Attribute::Ints(signed(&rests))),
    ];
    let dx = p.emit("ConvTranspose", &[&d, &ones], &attributes)?;
    let dx = p.reshape(&dx, &x)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::Case;

    fn pool(x: &[usize], lists: &[(&str, &[i64])], padding: i64) -> Case {
        let case = Case::new("AveragePool").float(x).attribute("count_include_pad", Attribute::Int(padding));
        lists.iter().fold(case, |case, (name, values)| case.attribute(name, Attribute::Ints(values.to_vec())))
    }

    #[test]
    fn gradients_match_central_differences() {
        pool(&[2, 3, 4, 4], &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])], 0).gradients();
        pool(&[1, 2, 5, 6], &[("kernel_shape", &[3, 2]), ("strides", &[2, 1]), ("pads", &[1, 0, 1, 1])], 0).gradients();
        pool(&[1, 2, 5, 6], &[("kernel_shape", &[3, 2]), ("strides", &[2, 3]), ("pads", &[1, 1, 1, 0])], 1).gradients();
        pool(&[2, 2, 7], &[("kernel_shape", &[3])], 0).gradients();
    }

    #[test]
    fn float32_gradients_match_those_of_float64() {
        pool(&[1, 2, 5, 6], &[("kernel_shape", &[3, 2]), ("strides", &[2, 1]), ("pads", &[1, 0, 1, 1])], 0)
            .gradients_in_float32();
        pool(&[1, 2, 5, 6], &[("kernel_shape", &[3, 2]), ("pads", &[1, 1, 1, 0])], 1).gradients_in_float32();
    }
}
