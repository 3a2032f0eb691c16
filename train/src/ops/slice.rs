//! `Slice`: a range of each named axis. With steps of 1 dx is d with zeros around it; other steps are folded but have no gradient.

use super::site::{Site, axis, positions, strides};
use super::{Gradient, Operator, Reverse};
use crate::graph::{Tensor, TensorType};
use crate::program::{NodeProblem, ProgramError};

pub(super) const RULES: Operator = Operator { name: "Slice", shape, fold: Some(fold), gradient: Gradient::Rule(gradient) };

/// What is taken of one axis.
#[derive(Clone, Copy)]
struct Range {
    start: i64,
    step: i64,
    count: usize,
}

fn ranges(site: &Site<'_>) -> Result<Vec<Range>, NodeProblem> {
    let shape = &site.input(0)?.shape;
    let (starts, ends) = (site.ints(1)?, site.ints(2)?);
    let axes = site.optional_ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = site.optional_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(NodeProblem::inputs("starts, ends, axes and steps are not equally many"));
    }
    let mut ranges: Vec<Range> = shape.iter().map(|&size| Range { start: 0, step: 1, count: size }).collect();
    for (i, &named) in axes.iter().enumerate() {
        let axis = axis(named, shape.len())?;
        ranges[axis] = range(shape[axis] as i64, starts[i], ends[i], steps[i])?;
    }
    Ok(ranges)
}

fn range(size: i64, start: i64, end: i64, step: i64) -> Result<Range, NodeProblem> {
    let from_front = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
    let (start, end) = (from_front(start), from_front(end));
    let (start, end, span) = match step {
        1.. => {
            let (start, end) = (start.clamp(0, size), end.clamp(0, size));
            (start, end, end - start)
        }
        0 => return Err(NodeProblem::inputs("a step of 0")),
        _ => {
            let (start, end) = (start.clamp(0, (size - 1).max(0)), end.clamp(-1, size - 1));
            (start, end, start - end)
        }
    };
    debug_assert!(start <= size && end <= size);
    let stride = step.unsigned_abs();
    let count = u64::try_from(span).map_or(0, |span| span.div_ceil(stride));
    Ok(Range { start, step, count: usize::try_from(count).unwrap_or(0) })
}

fn shape(site: &Site<'_>) -> Result<Vec<TensorType>, NodeProblem> {
    let sizes: Vec<usize> = ranges(site)?.iter().map(|r| r.count).collect();
    Ok(vec![TensorType::new(site.input(0)?.element, sizes)])
}

fn fold(site: &Site<'_>) -> Result<Option<Tensor>, NodeProblem> {
    let Some(mut x) = site.value(0).cloned() else { return Ok(None) };
    for (axis, range) in ranges(site)?.into_iter().enumerate() {
        let mut shape = x.shape().to_vec();
        let all = strides(&shape);
        shape[axis] = 1;
        let step = all[axis];
        let starts = positions(&shape[..axis], &all[..axis], 0);
        let mut order = Vec::new();
        for start in starts {
            for i in 0..range.count as i64 {
                let at = usize::try_from(range.start + i * range.step)
                    .unwrap_or(usize::MAX)
                    .saturating_mul(step)
                    .saturating_add(start);
                order.extend(positions(&shape[axis + 1..], &all[axis + 1..], at));
            }
        }
        shape[axis] = range.count;
        let Some(next) = x.picked(&shape, order) else { return Ok(None) };
        x = next;
    }
    Ok(Some(x))
}

fn gradient(r: &mut Reverse<'_>) -> Result<(), ProgramError> {
    let (ranges, shape) = (r.with_site(ranges)?, r.shape(0)?);
    if ranges.iter().any(|range| range.step != 1) {
        return Err(r.refuse("a slice with steps"));
    }
    let before: Vec<usize> = ranges.iter().map(|range| range.start.unsigned_abs() as usize).collect();
    let behind: Vec<usize> = ranges.iter().zip(&before).zip(&shape).map(|((range, b), size)| size - b - range.count).collect();
    let d = r.d()?;
    let dx = r.program.pad(&d, &before, &behind)?;
    r.give(0, dx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::Case;

    #[test]
    fn gradients_match_central_differences() {
        Case::new("Slice").float(&[4, 5]).integers(&[1], &[1]).integers(&[1], &[3]).gradients();
        let case = Case::new("Slice").float(&[2, 5, 3]).integers(&[2], &[-3, 0]).integers(&[2], &[i64::MAX, -1]);
        case.integers(&[2], &[1, -1]).integers(&[2], &[1, 1]).gradients();
    }

    #[test]
    fn constants_fold_to_what_the_runtime_computes() {
        let values: Vec<i64> = (0..24).collect();
        for (start, end, step) in [(1, 3, 1), (0, i64::MAX, 2), (-1, i64::MIN, -1), (3, 0, -2), (5, 2, 1), (0, -1, 1)] {
            let case = Case::new("Slice").integers(&[2, 4, 3], &values).integers(&[1], &[start]).integers(&[1], &[end]);
            case.integers(&[1], &[1]).integers(&[1], &[step]).folds();
        }
    }
}
