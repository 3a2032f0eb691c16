//! Orders that prefer difference: maximal marginal relevance and greedy facility location over a shortlist.

use crate::policy::Diversity;

/// Partial sums kept apart, so that the compiler can use wide registers. The order of additions is fixed: the same on every machine.
const LANES: usize = 16;

/// The scalar product of two vectors of one length.
#[must_use]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

/// A shortlist's places in the order in which they are to be taken. A member is its score and its vector; without a vector it is
/// taken as unlike everything. Ties go to the earlier place.
#[must_use]
pub(crate) fn order(diversity: Diversity, shortlist: &[(f32, Option<&[f32]>)]) -> Vec<usize> {
    match diversity {
        Diversity::None => (0..shortlist.len()).collect(),
        Diversity::Mmr { lambda, .. } => mmr(lambda, shortlist),
        Diversity::Coverage { lambda, .. } => coverage(lambda, shortlist),
    }
}

fn cosine(a: Option<&[f32]>, b: Option<&[f32]>) -> f32 {
    match (a, b) {
        (Some(a), Some(b)) => dot(a, b),
        _ => 0.0,
    }
}

/// Values nearer than this are one: what rounding makes of equal ones must not decide.
const ROUNDING: f32 = 1e-6;

/// Where the first of the greatest values among those left is.
fn best(left: &[usize], value: impl Fn(usize) -> f32) -> Option<usize> {
    let values: Vec<f32> = left.iter().map(|&place| value(place)).collect();
    let top = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter().position(|v| *v >= top - ROUNDING)
}

/// Keeps for each member its nearest taken one: one comparison a member and step.
fn mmr(lambda: f32, shortlist: &[(f32, Option<&[f32]>)]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..shortlist.len()).collect();
    let mut nearest = vec![f32::NEG_INFINITY; shortlist.len()];
    let mut order = Vec::with_capacity(left.len());
    let penalty = |near: f32| if near == f32::NEG_INFINITY { 0.0 } else { near };
    while let Some(at) = best(&left, |i| lambda * shortlist[i].0 - (1.0 - lambda) * penalty(nearest[i])) {
        let taken = left.remove(at);
        order.push(taken);
        for &i in &left {
            nearest[i] = nearest[i].max(cosine(shortlist[i].1, shortlist[taken].1));
        }
    }
    order
}

/// Each step adds what gains most: `lambda * score + (1 - lambda) * mean growth of each member's nearest taken cosine`.
fn coverage(lambda: f32, shortlist: &[(f32, Option<&[f32]>)]) -> Vec<usize> {
    let n = shortlist.len();
    let mut covered = vec![0.0_f32; n];
    let mut left: Vec<usize> = (0..n).collect();
    let mut order = Vec::with_capacity(n);
    let near: Vec<f32> =
        (0..n * n).map(|at| if at / n == at % n { 1.0 } else { cosine(shortlist[at / n].1, shortlist[at % n].1) }).collect();
    let gain = |i: usize, covered: &[f32]| {
        let growth: f32 = covered.iter().zip(&near[i * n..(i + 1) * n]).map(|(c, v)| (v - c).max(0.0)).sum();
        lambda * shortlist[i].0 + (1.0 - lambda) * growth / n as f32
    };
    while let Some(at) = best(&left, |i| gain(i, &covered)) {
        let taken = left.remove(at);
        order.push(taken);
        for (c, v) in covered.iter_mut().zip(&near[taken * n..(taken + 1) * n]) {
            *c = c.max(*v);
        }
    }
    order
}
