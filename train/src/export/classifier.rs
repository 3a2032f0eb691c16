//! A classifier as one graph: the image tower, its embedding at unit length, the head.
//!
//! ```text
//!   pixels ──image tower──► embedding ──LpNormalization──► unit ──Gemm with the head's rows──► logits [batch, classes]
//! ```

use std::{collections::BTreeMap, fs, num::NonZeroUsize, path::Path};

use anchorite_encoder::session::{self, Engine, SessionOptions};
use ort::value::Tensor as Value;

use super::{ClassifierHead, ExportError, Live, TowerFile, folder::graph};
use crate::{
    checkpoint::io,
    graph::{Attribute, Dim, Element, Model, Node, Port},
};

/// The classifier's file in an exported folder: pixels in, a logit for each class out.
pub const CLASSIFIER_FILE: &str = "classifier.onnx";
/// Its output, with the prefix where a tower has a value of this name.
const LOGITS: &str = "logits";
/// Before the names of what is not the tower's.
const PREFIX: &str = "classifier.";

/// Writes the tower with the head behind it.
pub(super) fn write(tower: &TowerFile, head: &ClassifierHead, folder: &Path) -> Result<(), ExportError> {
    graph(&joined(&tower.model, head), &folder.join(CLASSIFIER_FILE))
}

fn joined(tower: &Model, head: &ClassifierHead) -> Model {
    let mut model = tower.cut_to(&[&head.embedding]);
    let [rows, unit, other] = ["head", "unit", LOGITS].map(|name| format!("{PREFIX}{name}"));
    let taken = model.graph.nodes.iter().any(|node| node.outputs.iter().any(|name| name == LOGITS));
    let logits = if taken { other } else { LOGITS.to_owned() };
    let node = |operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]| Node {
        name: format!("{PREFIX}{operator}"),
        operator: operator.to_owned(),
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes: attributes.iter().map(|&(name, value)| (name.to_owned(), Attribute::Int(value))).collect::<BTreeMap<_, _>>(),
        ..Node::default()
    };
    model.graph.nodes.push(node("LpNormalization", &[&head.embedding], &unit, &[("axis", -1), ("p", 2)]));
    model.graph.nodes.push(node("Gemm", &[&unit, &rows], &logits, &[("transB", 1)]));
    model.graph.initializers.push((rows, head.weights.clone()));
    let batch = model.graph.inputs.first().and_then(|port| port.shape.as_ref()?.first().cloned());
    let shape = vec![batch.unwrap_or(Dim::Dynamic("batch".to_owned())), Dim::Fixed(head.classes.len() as u64)];
    model.graph.outputs = vec![Port { name: logits, element: Element::F32, shape: Some(shape) }];
    model
}

/// Opens the classifier that was written into `folder`, and compares its logits with the live embeddings times the live head; the greatest
/// difference, as a share of the head's longest row.
///
/// # Errors
/// [`ExportError::Classifier`]: it does not run. [`ExportError::Differs`] beyond `tolerance`.
pub fn compare_classifier(
    folder: &Path,
    engine: &Engine,
    live: &Live,
    head: &ClassifierHead,
    tolerance: f32,
) -> Result<f32, ExportError> {
    let path = folder.join(CLASSIFIER_FILE);
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    let found = logits(&bytes, engine, live).map_err(|reason| ExportError::Classifier { reason })?;
    let rows = head.weights.f32s().unwrap_or_default();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let dim = head.weights.shape().get(1).copied().unwrap_or(1).max(1);
    let longest = rows.chunks_exact(dim).map(|row| dot(row, row).sqrt()).fold(f64::MIN_POSITIVE, f64::max);
    let expected = live.images.iter().flat_map(|image| rows.chunks_exact(dim).map(move |row| dot(image, row)));
    let differences = found.iter().zip(expected).map(|(found, expected)| ((f64::from(*found) - expected).abs() / longest) as f32);
    // A NaN is no small difference.
    let difference = differences.fold(0.0_f32, |worst, d| if d > worst || d.is_nan() { d } else { worst });
    match !live.images.is_empty() && difference <= tolerance {
        true => Ok(difference),
        false => Err(ExportError::Differs { tower: "classifier's", difference, tolerance }),
    }
}

/// Logits of the live pictures, as many as one run takes.
fn logits(bytes: &[u8], engine: &Engine, live: &Live) -> Result<Vec<f32>, String> {
    let options = SessionOptions { count: NonZeroUsize::MIN, threads: 0, spinning: false };
    let mut session = session::builder(engine, options).map_err(|e| e.to_string())?;
    let mut session = session.commit_from_memory(bytes).map_err(|e| e.to_string())?;
    let input = session.inputs().first().ok_or("it has no input")?;
    let fixed = input.dtype().tensor_shape().and_then(|shape| shape.first().copied()).filter(|&batch| batch > 0);
    let name = input.name().to_owned();
    let first = live.pictures.first().ok_or("there is no picture to compare on")?;
    let count = fixed.map_or(live.pictures.len(), |batch| batch as usize);
    let pixels: Vec<f32> = live.pictures.iter().cycle().take(count).flat_map(|p| p.values.iter().copied()).collect();
    let shape = [count as i64, 3, first.height as i64, first.width as i64];
    let pixels = Value::from_array((shape, pixels)).map_err(|e| e.to_string())?;
    let results = session.run(vec![(name, pixels)]).map_err(|e| e.to_string())?;
    let values = results.values().next().ok_or("it gave no logits")?;
    values.try_extract_tensor::<f32>().map(|(_, values)| values.to_vec()).map_err(|e| e.to_string())
}
