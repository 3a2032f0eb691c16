//! Promise: every loss is a run file away. A run's first loss is the loss's formula on the model's own embeddings, what it learns comes out whole, and
//! an interrupted run goes on exactly.

use std::{fs, path::Path};

use anchorite::{
    encoder::{
        Embedding, Encode, EncoderOptions, Tokens,
        model::{Folder, ModelOptions, Similarity, SimilarityKind},
        open,
        runtime::{self, Provider, RuntimeOptions},
    },
    train::graph::Tensor,
};
use serde_json::Value as Json;

use crate::{datasets::samples, program::finish, program::program, runs::Bench};

const PAIRS: usize = 64;
/// One batch holds all pairs, so that the first loss does not depend on their order.
const ALL: &str = "batch = 64\nsteps = 20\n[task]\nsources = [\"pairs.parquet\"]\ntemplates = [\"w1 {}\", \"w2 w3 {}\"]\n\
    [schedule]\nrate = 1e-2\nwarmup = 0\n[checkpoint]\nevery = 5\n[step]\nthreads = 1\nchunk = 64\n";
/// Losses are float32 sums over 64 pairs.
const TOLERANCE: f64 = 1e-4;

type Rows = Vec<Vec<f64>>;

/// What the model that a run starts from makes of its pairs.
struct Reference {
    images: Rows,
    /// Unit embeddings of each class's prompts, template by template.
    prompts: [Rows; 2],
    similarity: Similarity,
}

impl Reference {
    fn of(model: &Path) -> Self {
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ()).unwrap();
        let encoder = open(runtime, Provider::Cpu, model, &ModelOptions::default(), EncoderOptions::default()).unwrap();
        let wide = |rows: Vec<Embedding>| rows.into_iter().map(|e| e.into_vec().into_iter().map(f64::from).collect()).collect();
        let pictures: Vec<_> = samples(PAIRS).iter().map(|s| encoder.prepare_image(&s.picture).unwrap()).collect();
        let images = wide(encoder.encode_images(&pictures).unwrap());
        let prompts = ["w1", "w2 w3"].map(|words| {
            let texts: Vec<Tokens> =
                (0..8).map(|class| encoder.prepare_text(&format!("{words} w{}", 80 + class)).unwrap()).collect();
            wide(encoder.encode_texts(&texts).unwrap())
        });
        Self { images, prompts, similarity: encoder.similarity() }
    }

    fn scale(&self) -> f64 {
        f64::from(self.similarity.scale)
    }

    /// Class rows: the mean of the prompts, of unit length, times the scale.
    fn head(&self) -> Rows {
        let class = |class: usize| {
            let sum: Vec<f64> = self.prompts[0][class].iter().zip(&self.prompts[1][class]).map(|(a, b)| a + b).collect();
            let length = dot(&sum, &sum).sqrt();
            sum.iter().map(|v| v / length * self.scale()).collect()
        };
        (0..8).map(class).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn products(images: &Rows, texts: &Rows) -> Rows {
    images.iter().map(|image| texts.iter().map(|text| dot(image, text)).collect()).collect()
}

/// -log of the softmax's share of `own`.
fn cross_entropy(logits: &[f64], own: usize) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln() + top - logits[own]
}

fn transposed(rows: &Rows) -> Rows {
    (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / PAIRS as f64
}

fn losses(bench: &Bench, run: &str) -> Vec<f64> {
    bench.curve(run).iter().map(|m| m["loss"].as_f64().unwrap()).collect()
}

fn first_is(bench: &Bench, run: &str, expected: f64) {
    let all = losses(bench, run);
    assert!((all[0] - expected).abs() <= TOLERANCE * expected, "{run}: {} is not {expected}", all[0]);
    assert!(*all.last().unwrap() < 0.9 * all[0], "{run} does not learn: {all:?}");
}

/// Runs to the end in `whole`; and in `run` in two parts, which must not show.
fn whole_and_in_parts(bench: &Bench, more: &[&str]) {
    bench.finetune(&[more, &["--set", "output=whole"]].concat()).with(0);
    bench.finetune(&[more, &["--set", "checkpoint.keep=9"]].concat()).with(0);
    for step in ["step-000000015", "step-000000020"] {
        fs::remove_dir_all(bench.folder().join("run/checkpoints").join(step)).unwrap();
    }
    bench.finetune(&[more, &["--resume"]].concat()).with(0);
    assert_eq!(bench.curve("run"), bench.curve("whole"));
    let weights = |run: &str| fs::read(bench.folder().join(run).join("model/model.safetensors")).unwrap();
    assert_eq!(weights("run"), weights("whole"));
}

fn config(bench: &Bench) -> Json {
    serde_json::from_slice(&fs::read(bench.folder().join("run/model/config.json")).unwrap()).unwrap()
}

/// Tensors of a safetensors file.
fn tensor(path: &Path, name: &str) -> Tensor {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head: Json = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let number = |v: &Json| v.as_u64().unwrap() as usize;
    let entry = &head[name];
    let shape: Vec<usize> = entry["shape"].as_array().unwrap().iter().map(number).collect();
    let (from, to) = (8 + length + number(&entry["data_offsets"][0]), 8 + length + number(&entry["data_offsets"][1]));
    let values: Vec<f32> = bytes[from..to].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Tensor::from_f32(shape, &values).unwrap()
}

#[test]
fn class_prompts_alone_are_flyp() {
    let bench = Bench::new(PAIRS, ALL);
    let reference = Reference::of(Path::new(&bench.path("tiny-clip")));
    bench.finetune(&["--set", "task.templates=[\"w1 {}\"]"]).with(0);
    let texts: Rows = (0..PAIRS).map(|i| reference.prompts[0][i % 8].clone()).collect();
    let mut logits = products(&reference.images, &texts);
    logits.iter_mut().flatten().for_each(|v| *v *= reference.scale());
    // Pictures of one class are each other's negatives, as FLYP has it.
    let side = |logits: &Rows| mean(logits.iter().enumerate().map(|(i, row)| cross_entropy(row, i)));
    first_is(&bench, "run", 0.5 * (side(&logits) + side(&transposed(&logits))));
    assert_eq!(bench.curve("run")[0]["losses"].as_object().unwrap().keys().collect::<Vec<_>>(), ["task"]);
}

#[test]
fn a_clip_goes_on_with_siglips_sigmoid() {
    let bench = Bench::new(PAIRS, ALL);
    let reference = Reference::of(Path::new(&bench.path("tiny-clip")));
    assert_eq!(reference.similarity.kind, SimilarityKind::Softmax);
    whole_and_in_parts(&bench, &["--set", "step.objective=sigmoid", "--set", "task.templates=[\"w1 {}\"]"]);
    let texts: Rows = (0..PAIRS).map(|i| reference.prompts[0][i % 8].clone()).collect();
    let cosines = products(&reference.images, &texts);
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let each = |(i, row): (usize, &Vec<f64>)| -> f64 {
        let one = |(j, cosine): (usize, &f64)| softplus((10.0 * cosine - 10.0) * if i == j { -1.0 } else { 1.0 });
        row.iter().enumerate().map(one).sum()
    };
    first_is(&bench, "run", mean(cosines.iter().enumerate().map(each)));

    // Scale and bias have learned, and the model says so to whoever opens it.
    let last = bench.curve("run").last().unwrap().clone();
    let (scale, bias) = (last["logit_scale"].as_f64().unwrap(), last["logit_bias"].as_f64().unwrap());
    assert!((scale - 10.0).abs() > 1e-3 && (bias + 10.0).abs() > 1e-5, "{last}");
    assert!((config(&bench)["logit_bias"].as_f64().unwrap() - bias).abs() < 1e-5);
    let folder = Folder::open(&bench.folder().join("run/model"), &ModelOptions::default()).unwrap();
    let similarity = folder.similarity();
    assert_eq!(similarity.kind, SimilarityKind::Sigmoid);
    assert!((f64::from(similarity.scale) - scale).abs() < 1e-4 && (f64::from(similarity.bias) - bias).abs() < 1e-4);
    let weights = bench.folder().join("run/model/model.safetensors");
    assert!((f64::from(tensor(&weights, "logit_bias").f32s().unwrap()[0]) - bias).abs() < 1e-5);
    // A run that goes on from it starts where it ended.
    let model = format!("model={:?}", bench.path("run/model"));
    let more = [
        "--set",
        &model,
        "--set",
        "step.objective=sigmoid",
        "--set",
        "output=on",
        "--set",
        "steps=1",
        "--set",
        "schedule.rate=0",
    ];
    bench.finetune(&more).with(0);
    let on = &bench.curve("on")[0];
    assert!((on["logit_bias"].as_f64().unwrap() - bias).abs() < 1e-4, "{on}");
}

const CLASSIFIER: [&str; 2] = ["--set", "step.objective=classifier"];

#[test]
fn a_classifier_starts_from_its_zero_shot_head() {
    let bench = Bench::new(PAIRS, ALL);
    let reference = Reference::of(Path::new(&bench.path("tiny-clip")));
    whole_and_in_parts(&bench, &CLASSIFIER);
    let logits = products(&reference.images, &reference.head());
    first_is(&bench, "run", mean(logits.iter().enumerate().map(|(i, row)| cross_entropy(row, i % 8))));

    // The head comes out with the names of its classes, changed by training; the text tower is as it was.
    let classes: Vec<String> = serde_json::from_slice(&fs::read(bench.path("run/model/classes.json")).unwrap()).unwrap();
    assert_eq!(classes, (80..88).map(|w| format!("w{w}")).collect::<Vec<_>>());
    let head = tensor(&bench.folder().join("run/model/head.safetensors"), "weight");
    assert_eq!(head.shape(), [8, reference.images[0].len()]);
    let difference = |(now, before): (f32, f64)| (f64::from(now) - before).abs();
    let pairs = head.f32s().unwrap().into_iter().zip(reference.head().into_iter().flatten());
    let largest = pairs.map(difference).fold(0.0, f64::max);
    assert!((1e-3..1.0).contains(&largest), "{largest}");
    let card = fs::read_to_string(bench.path("run/model/README.md")).unwrap();
    assert!(card.contains("head.safetensors") && card.contains("objective = \"classifier\""), "{card}");

    // Twenty steps on: what is written classifies as the live model did.
    let trained = Reference::of(&bench.folder().join("run/model"));
    for (before, after) in reference.prompts.iter().flatten().flatten().zip(trained.prompts.iter().flatten().flatten()) {
        assert!((before - after).abs() < 1e-5);
    }
    let rows: Rows =
        head.f32s().unwrap().chunks(trained.images[0].len()).map(|r| r.iter().copied().map(f64::from).collect()).collect();
    let now = mean(products(&trained.images, &rows).iter().enumerate().map(|(i, row)| cross_entropy(row, i % 8)));
    assert!(now < losses(&bench, "run")[19], "{now} after the last step, {:?}", losses(&bench, "run"));

    // One graph gives the same logits, from pixels.
    let found = classified(&bench.folder().join("run/model"));
    for (found, expected) in found.iter().flatten().zip(products(&trained.images, &rows).iter().flatten()) {
        assert!((f64::from(*found) - expected).abs() < 1e-3 * reference.scale(), "{found} {expected}");
    }
}

/// Logits of all pictures by the folder's `classifier.onnx`.
fn classified(model: &Path) -> Vec<Vec<f32>> {
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ()).unwrap();
    let encoder = open(runtime, Provider::Cpu, model, &ModelOptions::default(), EncoderOptions::default()).unwrap();
    let pixels: Vec<f32> = samples(PAIRS).iter().flat_map(|s| encoder.prepare_image(&s.picture).unwrap().values).collect();
    let mut session = ort::session::Session::builder(runtime.environment()).unwrap();
    let mut session = session.commit_from_file(model.join("classifier.onnx")).unwrap();
    let name = session.inputs()[0].name().to_owned();
    let pixels = ort::value::Tensor::from_array(([PAIRS as i64, 3, 32, 32], pixels)).unwrap();
    let results = session.run(vec![(name, pixels)]).unwrap();
    let (shape, values) = results["logits"].try_extract_tensor::<f32>().unwrap();
    assert_eq!(shape[..], [PAIRS as i64, 8]);
    values.chunks(8).map(<[f32]>::to_vec).collect()
}

#[test]
fn a_classifier_starts_from_a_probe() {
    let bench = Bench::new(PAIRS, ALL);
    let probe = [&CLASSIFIER[..], &["--set", "head.start=probe", "--set", "head.l2=1e-3"]].concat();
    // At rate 0 the head stays what it started as.
    bench.finetune(&[&probe[..], &["--set", "steps=1", "--set", "schedule.rate=0"]].concat()).with(0);
    let reference = Reference::of(Path::new(&bench.path("tiny-clip")));
    let head = tensor(&bench.folder().join("run/model/head.safetensors"), "weight");
    let head: Rows =
        head.f32s().unwrap().chunks(reference.images[0].len()).map(|r| r.iter().copied().map(f64::from).collect()).collect();
    let first = losses(&bench, "run")[0];
    let own = mean(products(&reference.images, &head).iter().enumerate().map(|(i, row)| cross_entropy(row, i % 8)));
    assert!((first - own).abs() <= TOLERANCE * own, "{first} {own}");
    // It is at rest: the gradient of cross-entropy and decay vanishes.
    let mut gradient: Rows = head.iter().map(|row| row.iter().map(|w| 1e-3 * w).collect()).collect();
    for (i, image) in reference.images.iter().enumerate() {
        let logits: Vec<f64> = head.iter().map(|row| dot(row, image)).collect();
        for (class, row) in gradient.iter_mut().enumerate() {
            let share = (-cross_entropy(&logits, class)).exp() - f64::from(u8::from(class == i % 8));
            row.iter_mut().zip(image).for_each(|(g, x)| *g += share * x / PAIRS as f64);
        }
    }
    let largest = gradient.iter().flatten().fold(0.0_f64, |m, g| m.max(g.abs()));
    assert!(largest < 1e-6, "{largest:e}");
    assert!(first < 8.0_f64.ln(), "{first} is no better than no head at all");
}

#[test]
fn what_does_not_go_with_a_loss_is_refused() {
    let bench = Bench::new(PAIRS, ALL);
    let refused = |more: &[&str], parts: &[&str]| {
        bench.finetune(&[&CLASSIFIER[..], more].concat()).with(1).says(parts);
    };
    refused(&["--set", "captions.column=caption"], &["step.objective is refused", "classes only"]);
    refused(&["--set", "task.text=caption"], &["step.objective is refused"]);
    refused(&["--set", "head.l2=0"], &["head.l2"]);
    refused(&["--set", "step.train.towers=text"], &["train.towers", "no use for the text tower"]);
    refused(&["--set", "step.objective=hinge"], &["hinge"]);
    let pretrain = ["pretrain", "run.toml", "--set", "step.objective=classifier", "--set", "task.text=caption"];
    finish(program().current_dir(bench.folder()).args(pretrain)).with(1).says(&["step.objective is refused"]);
}
