//! Promise: the loss and the gradient of every parameter of a real export are those of PyTorch's autograd.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::fs;
use std::path::Path;

use anchorite_encoder::model::ModelLimits;
use anchorite_train::Limits;
use anchorite_train::graph::{Element, ExternalFiles, Model, Tensor, TensorType};
use anchorite_train::loss::info_nce;
use anchorite_train::program::{NodeProblem, ParametersAs, Program, ProgramError};
use serde_json::Value;
use support::{fixture, run, session};

/// Share of the largest gradient of a tensor; the figure.
const TOLERANCE: f64 = 1e-4;

/// Attention's key biases have no gradient, since softmax is blind to them: PyTorch's is rounding noise of float64, so at most this
/// share of the largest gradient of all tensors, and ours must be noise of float32.
const ZERO: f64 = 1e-12;
const NOISE: f64 = 1e-7;

fn tower(file: &str, input: &str, shape: &[usize]) -> Program {
    let bytes = fs::read(fixture("exports/clip/onnx").join(file)).unwrap();
    let model = Model::read(&bytes, &ExternalFiles::new(), &ModelLimits::default()).unwrap();
    Program::specialise(&model, &[(input, shape)], &Limits::default()).unwrap()
}

fn both(batch: usize, length: usize) -> Program {
    let mut program = Program::empty(Limits::default());
    program.absorb(&tower("vision_model.onnx", "pixel_values", &[batch, 3, 32, 32]), "image/").unwrap();
    program.absorb(&tower("text_model.onnx", "input_ids", &[batch, length]), "text/").unwrap();
    program.add_input("log_scale", TensorType::new(Element::F32, [])).unwrap();
    program
}

/// A gradient by its place in the file of all gradients: float32, little-endian.
fn stored(place: &Value) -> Vec<f64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip_gradients.bin");
    let (start, len) = (place[0].as_u64().unwrap() as usize, place[1].as_u64().unwrap() as usize);
    let bytes = &fs::read(path).unwrap()[4 * start..4 * (start + len)];
    bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn gradients_of_a_transformers_export_are_those_of_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip_gradients.json");
    let golden: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut program = both(3, 5);
    let loss = info_nce(&mut program, "image/image_embeds", "text/text_embeds", "log_scale").unwrap();
    program.add_input("one", TensorType::new(Element::F32, [])).unwrap();
    let parameters = program.parameters().clone();
    let of: Vec<&str> = parameters.keys().map(String::as_str).chain(["log_scale"]).collect();
    assert!(parameters.keys().all(|name| program.is_trainable(name)));
    let gradients = program.gradients(&[(&loss, "one")], &of).unwrap();
    let mut outputs: Vec<&str> = vec![&loss];
    outputs.extend(of.iter().map(|name| gradients[*name].as_str()));

    let scalar = |v: f64| Tensor::from_floats(TensorType::new(Element::F32, []), &[v]).unwrap();
    let pixels: Vec<f64> = (0..3 * 3 * 32 * 32).map(|i| (f64::from(i) * 0.37).sin()).collect();
    let pixels = Tensor::from_floats(TensorType::new(Element::F32, [3, 3, 32, 32]), &pixels).unwrap();
    let ids: Vec<i64> = golden["captions"].as_array().unwrap().iter().flat_map(floats).map(|v| v as i64).collect();
    let ids = Tensor::from_integers(TensorType::new(Element::I64, [3, 5]), &ids).unwrap();
    let (scale, one) = (scalar(golden["log_scale"].as_f64().unwrap()), scalar(1.0));
    let mut feeds: Vec<(&str, &Tensor)> =
        vec![("image/pixel_values", &pixels), ("text/input_ids", &ids), ("log_scale", &scale), ("one", &one)];
    feeds.extend(parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)));

    let model = program.to_model(&outputs, ParametersAs::Inputs).unwrap();
    let results = run(&mut session(&model.write()).unwrap(), &feeds).unwrap();
    let expected_loss = golden["loss"].as_f64().unwrap();
    let found_loss = results[0].floats().unwrap()[0];
    assert!((found_loss - expected_loss).abs() <= 1e-5 * expected_loss, "loss {found_loss}, PyTorch {expected_loss}");

    let expected: Vec<Vec<f64>> = of.iter().map(|name| stored(&golden["gradients"][*name])).collect();
    assert_eq!(golden["gradients"].as_object().unwrap().len(), of.len());
    let largest = |values: &[f64]| values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let overall = expected.iter().map(|v| largest(v)).fold(0.0, f64::max);
    let mut worst = (0.0, "");
    let mut zeros = 0;
    for ((name, expected), found) in of.iter().zip(&expected).zip(&results[1..]) {
        let found = found.floats().unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let difference = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
        if largest(expected) <= ZERO * overall {
            assert!(name.ends_with("k_proj.bias"), "{name} has no gradient");
            assert!(difference <= NOISE * overall, "{name}: {difference:e} of {overall:e}");
            zeros += 1;
            continue;
        }
        let error = difference / largest(expected);
        assert!(error <= TOLERANCE, "{name}: {error:e}");
        if error > worst.0 {
            worst = (error, name);
        }
    }
    assert_eq!(zeros, 4);
    println!("{} tensors, {zeros} zero, worst {:e} ({}), {} nodes", of.len() - zeros, worst.0, worst.1, model.graph.nodes.len());
}

#[test]
fn shape_arithmetic_leaves_the_graph() {
    let program = tower("text_model.onnx", "input_ids", &[2, 5]);
    let model = program.to_model(&["text_embeds"], ParametersAs::Initializers).unwrap();
    for operator in ["Shape", "Constant", "ConstantOfShape", "Range", "Concat"] {
        assert!(model.graph.nodes.iter().all(|node| node.operator != operator), "{operator} is left");
    }
}

#[test]
fn a_specialised_tower_computes_what_the_export_does() {
    let bytes = fs::read(fixture("exports/clip/onnx/text_model.onnx")).unwrap();
    let ids = Tensor::from_integers(TensorType::new(Element::I64, [2, 5]), &[94, 5, 6, 7, 95, 94, 8, 95, 95, 95]).unwrap();
    let model = tower("text_model.onnx", "input_ids", &[2, 5]).to_model(&["text_embeds"], ParametersAs::Initializers).unwrap();
    let run = |bytes: &[u8]| run(&mut session(bytes).unwrap(), &[("input_ids", &ids)]).unwrap()[0].floats().unwrap();
    for (a, b) in run(&bytes).iter().zip(run(&model.write())) {
        assert!((a - b).abs() <= 1e-5, "{a} {b}");
    }
}

#[test]
fn an_unknown_operator_is_an_error_that_names_node_and_operator() {
    let bytes = fs::read(fixture("exports/clip/onnx/text_model.onnx")).unwrap();
    let mut model = Model::read(&bytes, &ExternalFiles::new(), &ModelLimits::default()).unwrap();
    let node = model.graph.nodes.iter_mut().find(|node| node.operator == "Softmax").unwrap();
    node.operator = "Attention".to_owned();
    node.domain = "com.microsoft".to_owned();
    let name = node.name.clone();
    let error = Program::specialise(&model, &[("input_ids", &[2, 5])], &Limits::default()).unwrap_err();
    let expected =
        ProgramError::Node { node: name, operator: "com.microsoft.Attention".to_owned(), problem: NodeProblem::Unknown };
    assert_eq!(error, expected);
}

#[test]
fn a_dynamic_input_without_a_shape_is_refused_by_name() {
    let bytes = fs::read(fixture("exports/clip/onnx/text_model.onnx")).unwrap();
    let model = Model::read(&bytes, &ExternalFiles::new(), &ModelLimits::default()).unwrap();
    let error = Program::specialise(&model, &[], &Limits::default()).unwrap_err();
    assert!(matches!(&error, ProgramError::Value { name, .. } if name == "input_ids"), "{error}");
}
