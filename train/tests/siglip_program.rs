//! Promise: the SigLIP exports, which no golden gradients exist for, are understood too: specialised they compute what they did,
//! and every weight that leads to the embedding gets a gradient.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::fs;

use anchorite_encoder::model::ModelLimits;
use anchorite_train::Limits;
use anchorite_train::graph::{Element, ExternalFiles, Model, Tensor, TensorType};
use anchorite_train::program::{ParametersAs, Program};
use support::{fixture, run, session};

fn check(file: &str, feed: &Tensor) {
    let bytes = fs::read(fixture("exports/siglip/onnx").join(file)).unwrap();
    let model = Model::read(&bytes, &ExternalFiles::new(), &ModelLimits::default()).unwrap();
    let input = model.graph.inputs[0].name.clone();
    let mut program = Program::specialise(&model, &[(&input, feed.shape())], &Limits::default()).unwrap();
    let forward = program.to_model(&["pooler_output"], ParametersAs::Initializers).unwrap();
    let run = |bytes: &[u8]| run(&mut session(bytes).unwrap(), &[(&input, feed)]).unwrap().pop().unwrap();
    let (before, after) = (run(&bytes).floats().unwrap(), run(&forward.write()).floats().unwrap());
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= 1e-5), "{file}");

    let kind = program.kind("pooler_output").unwrap().clone();
    program.add_input("seed", kind).unwrap();
    let names: Vec<String> = program.parameters().keys().filter(|name| program.is_trainable(name)).cloned().collect();
    let of: Vec<&str> = names.iter().map(String::as_str).collect();
    let gradients = program.gradients(&[("pooler_output", "seed")], &of).unwrap();
    for (name, gradient) in gradients {
        assert_eq!(program.kind(&name), program.kind(&gradient), "{file} {name}");
    }
}

#[test]
fn the_image_tower_is_understood() {
    let values: Vec<f64> = (0..2 * 3 * 32 * 32).map(|i| (f64::from(i) * 0.37).sin()).collect();
    check("vision_model.onnx", &Tensor::from_floats(TensorType::new(Element::F32, [2, 3, 32, 32]), &values).unwrap());
}

#[test]
fn the_text_tower_is_understood() {
    let values: Vec<i64> = (0..24).map(|i| 2 + i * 7 % 90).collect();
    check("text_model.onnx", &Tensor::from_integers(TensorType::new(Element::I64, [2, 12]), &values).unwrap());
}
