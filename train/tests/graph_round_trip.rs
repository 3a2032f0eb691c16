//! Promise: a model that was read and written again computes what it computed, to the bit, and bad models are refused.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use std::fs;

use anchorite_encoder::model::ModelLimits;
use anchorite_train::graph::{Element, ExternalFiles, Model, ReadError, Tensor, TensorType};
use support::{fixture, run, session};

fn read(path: &str, files: &ExternalFiles) -> Result<Model, ReadError> {
    Model::read(&fs::read(fixture(path)).unwrap(), files, &ModelLimits::default())
}

fn pictures() -> Tensor {
    let values: Vec<f64> = (0..2 * 3 * 32 * 32).map(|i| (f64::from(i) * 0.37).sin()).collect();
    Tensor::from_floats(TensorType::new(Element::F32, [2, 3, 32, 32]), &values).unwrap()
}

fn captions(length: usize) -> Tensor {
    let values: Vec<i64> = (0..2 * length).map(|i| if i % length == length - 1 { 95 } else { 2 + i as i64 * 7 % 90 }).collect();
    Tensor::from_integers(TensorType::new(Element::I64, [2, length]), &values).unwrap()
}

#[test]
fn exports_compute_the_same_to_the_bit_after_a_round_trip() {
    let (pictures, short, padded) = (pictures(), captions(5), captions(12));
    let cases = [
        ("exports/clip/onnx/vision_model.onnx", &pictures),
        ("exports/clip/onnx/text_model.onnx", &short),
        ("exports/siglip/onnx/vision_model.onnx", &pictures),
        ("exports/siglip/onnx/text_model.onnx", &padded),
    ];
    for (path, feed) in cases {
        let original = fs::read(fixture(path)).unwrap();
        let model = Model::read(&original, &ExternalFiles::new(), &ModelLimits::default()).unwrap();
        let input = model.graph.inputs[0].name.clone();
        let run_bytes = |bytes: &[u8]| run(&mut session(bytes).unwrap(), &[(input.as_str(), feed)]).unwrap();
        assert_eq!(run_bytes(&model.write()), run_bytes(&original), "{path}");
    }
}

#[test]
fn what_was_written_reads_as_what_it_was() {
    for path in ["exports/clip/onnx/vision_model.onnx", "exports/siglip/onnx/text_model.onnx", "layouts/combined/onnx/model.onnx"]
    {
        let model = read(path, &ExternalFiles::new()).unwrap();
        let again = Model::read(&model.write(), &ExternalFiles::new(), &ModelLimits::default()).unwrap();
        assert_eq!(again, model, "{path}");
    }
}

#[test]
fn weights_in_a_file_beside_the_model_come_inside() {
    let data = fs::read(fixture("exports/clip_external/onnx/vision_model.onnx_data")).unwrap();
    let files = ExternalFiles::from([("vision_model.onnx_data".to_owned(), data)]);
    let outside = read("exports/clip_external/onnx/vision_model.onnx", &files).unwrap();
    let inside = read("exports/clip/onnx/vision_model.onnx", &ExternalFiles::new()).unwrap();
    assert_eq!(outside.graph.initializers, inside.graph.initializers);
    assert_eq!(outside.graph.nodes, inside.graph.nodes);
}

#[test]
fn a_weights_file_that_is_missing_or_short_is_an_error_that_names_it() {
    for files in [ExternalFiles::new(), ExternalFiles::from([("vision_model.onnx_data".to_owned(), vec![0; 100])])] {
        let error = read("exports/clip_external/onnx/vision_model.onnx", &files).unwrap_err();
        assert!(matches!(error, ReadError::External { ref file, .. } if file == "vision_model.onnx_data"), "{error}");
    }
}

#[test]
fn control_flow_is_refused_by_name() {
    let error = read("attacks/nesting_3.onnx", &ExternalFiles::new()).unwrap_err();
    assert!(matches!(error, ReadError::Unsupported { .. }), "{error}");
}

#[test]
fn what_the_encoder_refuses_to_scan_is_refused() {
    for attack in ["functions", "graph_twice", "operator_epcontext", "shape_overflow", "location_parent"] {
        let error = read(&format!("attacks/{attack}.onnx"), &ExternalFiles::new()).unwrap_err();
        assert!(matches!(error, ReadError::Scan(_)), "{attack}: {error}");
    }
}

#[test]
fn a_model_cut_anywhere_is_an_error_and_never_a_panic() {
    let bytes = fs::read(fixture("layouts/combined/onnx/model.onnx")).unwrap();
    for end in 0..bytes.len() {
        // Some cuts fall between two fields of the model and leave a smaller one; what matters is that none panics.
        let _ = Model::read(&bytes[..end], &ExternalFiles::new(), &ModelLimits::default());
    }
}
