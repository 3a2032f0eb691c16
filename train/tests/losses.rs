//! Promise: every loss graph computes the formula it states, and its gradients are those of the formula: both against a slow
//! float64 reference, the gradients by central differences of it.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use anchorite_train::Limits;
use anchorite_train::graph::{Element, Tensor, TensorType};
use anchorite_train::loss::{self, SameGroup, Softmax, Targets};
use anchorite_train::program::{ParametersAs, Program};
use support::run_model;

const N: usize = 6;
const D: usize = 4;
/// Of float32 results, as a share of the largest.
const TOLERANCE: f64 = 1e-5;

/// What the formulas are functions of, flat: embeddings, then scalars or the head.
type Formula<'a> = &'a dyn Fn(&[Vec<f64>]) -> f64;

fn wave(count: usize, step: f64) -> Vec<f64> {
    (0..count).map(|i| f64::from((1.3 * (i as f64 * step).sin() + 0.1) as f32)).collect()
}

fn unit(rows: &[f64]) -> Vec<Vec<f64>> {
    let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
    rows.chunks(D).map(|row| row.iter().map(|v| v / norm(row)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn log_softmax(values: &[f64], at: usize) -> f64 {
    values[at] - values.iter().map(|v| v.exp()).sum::<f64>().ln()
}

fn weights() -> Vec<f64> {
    (0..N).map(|i| [0.2, 0.1, 0.35][i % 3]).collect()
}

/// The program's loss and gradients of `of` against the formula at `at`; `fed` are further inputs.
fn check(
    program: &mut Program,
    total: &str,
    of: &[(&str, Vec<usize>, Vec<f64>)],
    fed: &[(&str, Vec<usize>, Vec<f64>)],
    formula: Formula<'_>,
) {
    let names: Vec<&str> = of.iter().map(|(name, ..)| *name).collect();
    let gradients = program.gradients(&[(total, "one")], &names).unwrap();
    let mut outputs = vec![total];
    outputs.extend(names.iter().map(|name| gradients[*name].as_str()));
    let model = program.to_model(&outputs, ParametersAs::Inputs).unwrap();
    let one = vec![("one", vec![], vec![1.0])];
    let tensors: Vec<(&str, Tensor)> = of
        .iter()
        .chain(fed)
        .chain(&one)
        .map(|(name, shape, values)| (*name, Tensor::from_floats(TensorType::new(Element::F32, shape.clone()), values).unwrap()))
        .collect();
    let feeds: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let results = run_model(&model, &feeds).unwrap();
    let point: Vec<Vec<f64>> = of.iter().map(|(.., values)| values.clone()).collect();
    let (found, expected) = (results[0].floats().unwrap()[0], formula(&point));
    assert!((found - expected).abs() <= TOLERANCE * expected.abs(), "{found} {expected}");
    for (i, result) in results[1..].iter().enumerate() {
        let slope = |k: usize| {
            let moved = |by: f64| {
                let mut point = point.clone();
                point[i][k] += by;
                formula(&point)
            };
            (moved(1e-5) - moved(-1e-5)) / 2e-5
        };
        let expected: Vec<f64> = (0..point[i].len()).map(slope).collect();
        let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for (found, expected) in result.floats().unwrap().iter().zip(&expected) {
            assert!((found - expected).abs() <= TOLERANCE * largest, "{}: {found} {expected}", names[i]);
        }
    }
}

fn inputs(program: &mut Program, of: &[(&str, Vec<usize>, Vec<f64>)]) {
    for (name, shape, _) in of {
        program.add_input(name, TensorType::new(Element::F32, shape.clone())).unwrap();
    }
}

fn floats(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// The batches that are told apart: groups of two and three, pictures that are the same.
fn batches() -> Vec<Targets> {
    let groups = vec![7, 8, 7, 9, 8, 7];
    let mut all: Vec<Targets> = [SameGroup::Ignore, SameGroup::Positive, SameGroup::Negative]
        .into_iter()
        .flat_map(|same| {
            let plain = Targets::new(groups.clone(), same);
            [plain.clone(), plain.with_pictures(vec![0, 1, 2, 0, 1, 5])]
        })
        .collect();
    all.push(Targets::diagonal(N));
    all
}

/// The relation in words, again, so that the matrices are checked as well: (positives of i, ignored by i).
fn relations(targets: &Targets, i: usize) -> (Vec<usize>, Vec<usize>) {
    let row = |matrix: Vec<f32>| matrix[i * N..(i + 1) * N].to_vec();
    let pick = |values: Vec<f32>, test: fn(f32) -> bool| (0..N).filter(|&j| test(values[j])).collect();
    (pick(row(targets.positives()), |v| v > 0.0), pick(row(targets.penalties()), |v| v < 0.0))
}

#[test]
fn groups_and_pictures_make_the_relations_they_say() {
    let groups = vec![7, 8, 7, 9, 8, 7];
    let pictures = vec![0, 1, 2, 0, 1, 5];
    let of = |same| relations(&Targets::new(groups.clone(), same).with_pictures(pictures.clone()), 0);
    assert_eq!(of(SameGroup::Ignore), (vec![0], vec![2, 3, 5]));
    assert_eq!(of(SameGroup::Positive), (vec![0, 2, 5], vec![3]));
    assert_eq!(of(SameGroup::Negative), (vec![0], vec![3]));
    let targets = Targets::new(groups, SameGroup::Positive).with_pictures(pictures);
    assert_eq!(targets.signs()[..N], [1.0, -1.0, 1.0, 0.0, -1.0, 1.0]);
    let third = 1.0 / 3.0;
    assert_eq!(targets.positives()[..N], [third, 0.0, third, 0.0, 0.0, third]);
    assert_eq!(relations(&Targets::diagonal(N), 4), (vec![4], vec![]));
}

#[test]
fn the_softmax_loss_is_its_formula() {
    for targets in batches() {
        let of =
            [("images", vec![N, D], wave(N * D, 0.7)), ("texts", vec![N, D], wave(N * D, 1.1)), ("scale", vec![], vec![0.75])];
        let fed = [
            ("targets", vec![N, N], floats(&targets.positives())),
            ("penalties", vec![N, N], floats(&targets.penalties())),
            ("weights", vec![N], weights()),
            ("one", vec![], vec![1.0]),
        ];
        let mut program = Program::empty(Limits::default());
        inputs(&mut program, &of);
        inputs(&mut program, &fed);
        let names =
            Softmax { images: "images", texts: "texts", log_scale: "scale", targets: "targets", penalties: Some("penalties") };
        let per_pair = loss::softmax(&mut program, names).unwrap();
        let total = loss::weighted_sum(&mut program, &per_pair, "weights").unwrap();
        let formula = |x: &[Vec<f64>]| {
            let (images, texts, scale) = (unit(&x[0]), unit(&x[1]), x[2][0].exp());
            let pair = |i: usize| {
                let (positives, ignored) = relations(&targets, i);
                let asked: Vec<usize> = (0..N).filter(|j| !ignored.contains(j)).collect();
                let side = |own: &[f64], others: &[Vec<f64>]| {
                    let logits: Vec<f64> = asked.iter().map(|&j| scale * dot(own, &others[j])).collect();
                    let at = |j: &usize| asked.iter().position(|a| a == j).unwrap();
                    positives.iter().map(|j| log_softmax(&logits, at(j))).sum::<f64>() / positives.len() as f64
                };
                -0.5 * (side(&images[i], &texts) + side(&texts[i], &images))
            };
            (0..N).map(|i| weights()[i] * pair(i)).sum()
        };
        check(&mut program, &total, &of, &fed[..3], &formula);
    }
}

#[test]
fn the_sigmoid_loss_is_its_formula() {
    for targets in batches() {
        let of = [
            ("images", vec![N, D], wave(N * D, 0.7)),
            ("texts", vec![N, D], wave(N * D, 1.1)),
            ("scale", vec![], vec![1.25]),
            ("bias", vec![], vec![-2.5]),
        ];
        let fed = [("signs", vec![N, N], floats(&targets.signs())), ("weights", vec![N], weights()), ("one", vec![], vec![1.0])];
        let mut program = Program::empty(Limits::default());
        inputs(&mut program, &of);
        inputs(&mut program, &fed);
        let per_pair = loss::sigmoid(&mut program, ["images", "texts"], ["scale", "bias"], "signs").unwrap();
        let total = loss::weighted_sum(&mut program, &per_pair, "weights").unwrap();
        let signs = floats(&targets.signs());
        let formula = |x: &[Vec<f64>]| {
            let (images, texts, scale, bias) = (unit(&x[0]), unit(&x[1]), x[2][0].exp(), x[3][0]);
            let term = |i: usize, j: usize| match signs[i * N + j] {
                0.0 => 0.0,
                sign => -(1.0 / (1.0 + (-sign * (scale * dot(&images[i], &texts[j]) + bias)).exp())).ln(),
            };
            (0..N).map(|i| weights()[i] * (0..N).map(|j| term(i, j)).sum::<f64>()).sum()
        };
        check(&mut program, &total, &of, &fed[..2], &formula);
    }
}

#[test]
fn the_classifier_is_its_formula() {
    let of = [("images", vec![N, D], wave(N * D, 0.7)), ("head", vec![3, D], wave(3 * D, 0.4))];
    let labels: Vec<f64> = (0..N * 3).map(|i| f64::from(u8::from(i % 3 == (i / 3) * 2 % 3))).collect();
    let fed = [("labels", vec![N, 3], labels), ("weights", vec![N], weights()), ("one", vec![], vec![1.0])];
    let mut program = Program::empty(Limits::default());
    inputs(&mut program, &of);
    inputs(&mut program, &fed);
    let per_pair = loss::classifier(&mut program, "images", "head", "labels").unwrap();
    let total = loss::weighted_sum(&mut program, &per_pair, "weights").unwrap();
    let formula = |x: &[Vec<f64>]| {
        let images = unit(&x[0]);
        let pair = |i: usize| {
            let logits: Vec<f64> = x[1].chunks(D).map(|row| dot(&images[i], row)).collect();
            -log_softmax(&logits, i * 2 % 3)
        };
        (0..N).map(|i| weights()[i] * pair(i)).sum()
    };
    check(&mut program, &total, &of, &fed[..2], &formula);
}

#[test]
fn the_plain_form_is_the_general_one_on_a_diagonal() {
    let of = [("images", vec![N, D], wave(N * D, 0.7)), ("texts", vec![N, D], wave(N * D, 1.1)), ("scale", vec![], vec![0.75])];
    let mut program = Program::empty(Limits::default());
    inputs(&mut program, &of);
    inputs(&mut program, &[("one", vec![], vec![1.0])]);
    let total = loss::info_nce(&mut program, "images", "texts", "scale").unwrap();
    let formula = |x: &[Vec<f64>]| {
        let (images, texts, scale) = (unit(&x[0]), unit(&x[1]), x[2][0].exp());
        let side = |a: &[Vec<f64>], b: &[Vec<f64>], i: usize| {
            log_softmax(&b.iter().map(|other| scale * dot(&a[i], other)).collect::<Vec<_>>(), i)
        };
        -(0..N).map(|i| side(&images, &texts, i) + side(&texts, &images, i)).sum::<f64>() / (2.0 * N as f64)
    };
    check(&mut program, &total, &of, &[], &formula);
}
