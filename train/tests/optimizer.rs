//! Promise: AdamW is its formula, as a fused loop and as a graph alike; the rate goes up and down as it says.

mod support;

use std::collections::BTreeMap;

use anchorite_train::graph::Tensor;
use anchorite_train::optim::{AdamW, Schedule, adamw_model, clip_factor, decays, squared_norm, update};
use support::{run, session};

const SHAPES: [&[usize]; 4] = [&[40, 500], &[7], &[1, 1, 9], &[]];

fn wave(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|i| 0.3 * (i as f32 * step + 0.2).sin()).collect()
}

struct Parameter {
    shape: Vec<usize>,
    value: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

fn parameters() -> Vec<Parameter> {
    let of = |shape: &&[usize]| {
        let count = shape.iter().product();
        Parameter { shape: shape.to_vec(), value: wave(count, 0.7), first: vec![0.0; count], second: vec![0.0; count] }
    };
    SHAPES.iter().map(of).collect()
}

fn gradient(step: u64, count: usize) -> Vec<f32> {
    wave(count, 0.11 * step as f32)
}

#[test]
fn the_fused_loop_is_adamw() {
    let settings = AdamW { weight_decay: 0.2, ..AdamW::default() };
    let mut ours = parameters();
    let mut slow: Vec<[Vec<f64>; 3]> = parameters()
        .iter()
        .map(|p| [p.value.iter().map(|v| f64::from(*v)).collect(), vec![0.0; p.value.len()], vec![0.0; p.value.len()]])
        .collect();
    for step in 1..=20 {
        let rate = 1e-2 / step as f64;
        let u = settings.update(step, rate, 0.5);
        for (p, [value, first, second]) in ours.iter_mut().zip(&mut slow) {
            let g = gradient(step, p.value.len());
            update(&u, decays(&p.shape), &mut p.value, [&mut p.first, &mut p.second], &g);
            let states = value.iter_mut().zip(first.iter_mut()).zip(second.iter_mut());
            for (((value, first), second), g) in states.zip(&g) {
                let g = 0.5 * f64::from(*g);
                *first = 0.9 * *first + 0.1 * g;
                *second = 0.999 * *second + 0.001 * g * g;
                let power = step as i32;
                let corrected = [*first / (1.0 - 0.9_f64.powi(power)), *second / (1.0 - 0.999_f64.powi(power))];
                let decay = if decays(&p.shape) { 0.2 } else { 0.0 };
                *value -= rate * decay * *value + rate * corrected[0] / (corrected[1].sqrt() + 1e-6);
            }
        }
    }
    for (p, [value, ..]) in ours.iter().zip(&slow) {
        let worst = p.value.iter().zip(value).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 2e-6, "{:?}: {worst:e}", p.shape);
    }
}

#[test]
fn the_graph_and_the_fused_loop_agree() {
    let shapes: BTreeMap<String, Vec<usize>> =
        SHAPES.iter().enumerate().map(|(i, shape)| (format!("p{i}"), shape.to_vec())).collect();
    let mut graph = session(&adamw_model(&shapes).unwrap().write()).unwrap();
    let names: Vec<String> = graph.outputs().iter().map(|o| o.name().to_owned()).collect();
    let (mut ours, mut theirs) = (parameters(), parameters());
    let settings = AdamW::default();
    for step in 1..=10 {
        let u = settings.update(step, 1e-2, 0.25);
        let scalars = [u.beta1, u.beta2, u.epsilon, u.first, u.second, u.keep, u.scale];
        let labels = ["beta1", "beta2", "epsilon", "first", "second", "keep", "scale"];
        let mut feeds: Vec<(String, Tensor)> =
            labels.iter().zip(scalars).map(|(name, v)| ((*name).to_owned(), Tensor::from_f32([], &[v]).unwrap())).collect();
        for (i, p) in theirs.iter().enumerate() {
            let g = gradient(step, p.value.len());
            for (suffix, values) in [("", &p.value), ("/m", &p.first), ("/v", &p.second), ("/g", &g)] {
                feeds.push((format!("p{i}{suffix}"), Tensor::from_f32(p.shape.clone(), values).unwrap()));
            }
        }
        let feeds: Vec<(&str, &Tensor)> = feeds.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let results = run(&mut graph, &feeds).unwrap();
        let result = |name: String| results[names.iter().position(|n| *n == name).unwrap()].f32s().unwrap();
        for (i, (p, q)) in ours.iter_mut().zip(&mut theirs).enumerate() {
            let g = gradient(step, p.value.len());
            update(&u, decays(&p.shape), &mut p.value, [&mut p.first, &mut p.second], &g);
            q.value = result(format!("p{i}/new"));
            q.first = result(format!("p{i}/m/new"));
            q.second = result(format!("p{i}/v/new"));
        }
    }
    for (p, q) in ours.iter().zip(&theirs) {
        for (a, b) in [(&p.value, &q.value), (&p.first, &q.first), (&p.second, &q.second)] {
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-6, "{:?}: {worst:e}", p.shape);
        }
    }
}

#[test]
fn norms_and_clipping_are_pytorch_s() {
    let values = vec![3.0_f32; 1_000_000];
    assert!((squared_norm(&values) - 9e6).abs() < 1e-3);
    assert_eq!(clip_factor(5.0, None), 1.0);
    assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
    assert!((clip_factor(4.0, Some(1.0)) - 0.25).abs() < 1e-6);
}

#[test]
fn decay_is_for_what_has_two_axes_larger_than_one() {
    for (shape, decay) in [(&[3, 4][..], true), (&[1, 1, 768], false), (&[1, 50, 768], true), (&[9], false), (&[], false)] {
        assert_eq!(decays(shape), decay, "{shape:?}");
    }
}

#[test]
fn the_rate_rises_in_a_line_and_falls_as_half_a_cosine() {
    let schedule = Schedule { peak: 2.0, warmup_steps: 4, total_steps: 14, floor: 0.5 };
    let rates: Vec<f64> = (0..16).map(|step| schedule.rate(step)).collect();
    assert_eq!(rates[..4], [0.5, 1.0, 1.5, 2.0]);
    assert_eq!(rates[4], 2.0);
    assert!((rates[9] - 1.25).abs() < 1e-12, "half way between peak and floor");
    assert_eq!(rates[14..], [0.5, 0.5]);
    assert!(rates[4..].is_sorted_by(|a, b| a >= b));
    let constant = Schedule { peak: 1.0, warmup_steps: 0, total_steps: 0, floor: 0.0 };
    assert_eq!((constant.rate(0), constant.rate(1000)), (1.0, 1.0));
}
