//! L-BFGS (Nocedal and Wright, algorithm 7.5) with step halving, for smooth convex functions of some hundred thousand unknowns.

use std::collections::VecDeque;

/// Pairs that the inverse Hessian is remembered by.
const MEMORY: usize = 10;
/// Share of the predicted decrease that a step must bring (Armijo).
const SUFFICIENT: f64 = 1e-4;
/// Halvings of one step.
const HALVINGS: usize = 60;

/// Where the search ended.
#[derive(Clone, Debug)]
pub(crate) struct Minimum {
    pub(crate) at: Vec<f64>,
    pub(crate) value: f64,
    /// Largest part of the gradient.
    pub(crate) gradient: f64,
    pub(crate) steps: usize,
}

/// A step and the change of gradient along it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    curvature: f64,
}

/// Walks from `start` until no part of the gradient is larger than `tolerance`, no step brings a decrease, or `max_steps` are done.
/// `function` writes the gradient and returns the value.
pub(crate) fn minimise(
    function: impl Fn(&[f64], &mut [f64]) -> f64,
    start: Vec<f64>,
    tolerance: f64,
    max_steps: usize,
) -> Minimum {
    let mut at = start;
    let mut gradient = vec![0.0; at.len()];
    let mut value = function(&at, &mut gradient);
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    let mut steps = 0;
    while steps < max_steps && largest(&gradient) > tolerance {
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        let Some((next, next_value, next_gradient)) = halve(&function, &at, &direction, value, slope) else { break };
        let step = minus(&next, &at);
        let change = minus(&next_gradient, &gradient);
        let curvature = dot(&step, &change);
        if curvature > 1e-12 * dot(&step, &step) {
            pairs.push_back(Pair { step, change, curvature });
            if pairs.len() > MEMORY {
                pairs.pop_front();
            }
        }
        (at, value, gradient) = (next, next_value, next_gradient);
        steps += 1;
    }
    Minimum { gradient: largest(&gradient), at, value, steps }
}

type Found = (Vec<f64>, f64, Vec<f64>);

/// The longest of 1, 1/2, 1/4 ... of `direction` that brings a sufficient decrease.
fn halve(function: &impl Fn(&[f64], &mut [f64]) -> f64, at: &[f64], direction: &[f64], value: f64, slope: f64) -> Option<Found> {
    let mut length = 1.0;
    let mut gradient = vec![0.0; at.len()];
    for _ in 0..HALVINGS {
        let next: Vec<f64> = at.iter().zip(direction).map(|(a, d)| a + length * d).collect();
        let found = function(&next, &mut gradient);
        if found <= value + SUFFICIENT * length * slope {
            return Some((next, found, gradient));
        }
        length *= 0.5;
    }
    None
}

/// Minus the gradient through the remembered inverse Hessian (the two-loop recursion).
fn direction(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = dot(&pair.step, &q) / pair.curvature;
        add(&mut q, -share, &pair.change);
        shares.push(share);
    }
    if let Some(last) = pairs.back() {
        let scale = last.curvature / dot(&last.change, &last.change);
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for (pair, share) in pairs.iter().zip(shares.into_iter().rev()) {
        let back = dot(&pair.change, &q) / pair.curvature;
        add(&mut q, share - back, &pair.step);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(to: &mut [f64], share: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += share * f);
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, v| v.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badly_scaled_quadratic_is_minimised() {
        // f(x) = sum i^2 (x_i - i)^2, minimum 0 at x_i = i.
        let weight = |i: usize| ((i + 1) * (i + 1)) as f64;
        let function = |x: &[f64], gradient: &mut [f64]| {
            for (i, g) in gradient.iter_mut().enumerate() {
                *g = 2.0 * weight(i) * (x[i] - i as f64);
            }
            x.iter().enumerate().map(|(i, x)| weight(i) * (x - i as f64).powi(2)).sum()
        };
        let found = minimise(function, vec![0.0; 30], 1e-9, 500);
        assert!(found.gradient <= 1e-9, "{found:?}");
        assert!(found.at.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-9));
    }
}
