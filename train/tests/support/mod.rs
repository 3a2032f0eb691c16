//! ONNX Runtime for the tests of this crate: models and tensors in, tensors out. Shared by the tests in `tests/` and those beside
//! the operators.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "test code; each test binary uses a part of it"
)]

use std::path::PathBuf;
use std::sync::OnceLock;

use anchorite_encoder::model::{Folder, ModelOptions};
use anchorite_encoder::runtime::{self, RuntimeOptions};
use anchorite_encoder::session::Engine;
use anchorite_train::Limits;
use anchorite_train::graph::{Element, Model, Tensor, TensorType};
use anchorite_train::step::{InputSizes, Plan, Towers, Trainer};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, Tensor as Value, TensorElementType};

/// ONNX Runtime, found or fetched as the program finds it, loaded once.
pub fn environment() -> Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let load = || {
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ()).expect("ONNX Runtime is found or can be fetched");
        runtime.environment().clone()
    };
    ENVIRONMENT.get_or_init(load).clone()
}

/// A path among the encoder's checked-in models.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../encoder/tests/fixtures/models").join(path)
}

/// The towers of one of the encoder's checked-in model folders.
pub fn towers(folder: &str) -> Towers {
    let folder = Folder::open(&fixture(folder), &ModelOptions::default()).unwrap();
    Towers::open(&folder, &Limits::default()).unwrap()
}

/// A trainer on the CPU.
pub fn trainer(towers: Towers, plan: &Plan, sizes: InputSizes) -> Trainer {
    Trainer::new(towers, plan, sizes, &Engine::cpu(environment()), &Limits::default()).unwrap()
}

/// Pictures that differ from each other and are the same every time.
pub fn pixels(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f64 * 0.37).sin() as f32).collect()
}

/// A session of one thread, as the runtime optimizes it by default.
pub fn session(bytes: &[u8]) -> Result<Session, String> {
    let builder = Session::builder(&environment()).map_err(|e| e.to_string())?;
    let builder = builder.with_intra_threads(1).map_err(|e| e.to_string())?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|e| e.to_string())?;
    let mut builder = builder.with_config_entry("session.intra_op.allow_spinning", "0").map_err(|e| e.to_string())?;
    builder.commit_from_memory(bytes).map_err(|e| e.to_string())
}

fn value(tensor: &Tensor) -> DynValue {
    let shape: Vec<i64> = tensor.shape().iter().map(|&d| d as i64).collect();
    let floats = || tensor.floats().unwrap();
    let integers = || tensor.integers().unwrap();
    match tensor.element() {
        Element::F32 => Value::from_array((shape, floats().iter().map(|&v| v as f32).collect::<Vec<f32>>())).unwrap().into_dyn(),
        Element::F64 => Value::from_array((shape, floats())).unwrap().into_dyn(),
        Element::I64 => Value::from_array((shape, integers())).unwrap().into_dyn(),
        Element::I32 => {
            Value::from_array((shape, integers().iter().map(|&v| v as i32).collect::<Vec<i32>>())).unwrap().into_dyn()
        }
        Element::Bool => {
            Value::from_array((shape, integers().iter().map(|&v| v != 0).collect::<Vec<bool>>())).unwrap().into_dyn()
        }
        other => panic!("the tests feed no {other}"),
    }
}

fn tensor(value: &DynValue) -> Tensor {
    let shape: Vec<usize> = value.shape().iter().map(|&d| d as usize).collect();
    let floats = |element, values: Vec<f64>| Tensor::from_floats(TensorType::new(element, shape.clone()), &values).unwrap();
    let integers = |element, values: Vec<i64>| Tensor::from_integers(TensorType::new(element, shape.clone()), &values).unwrap();
    match value.data_type() {
        TensorElementType::Float32 => {
            floats(Element::F32, value.try_extract_tensor::<f32>().unwrap().1.iter().map(|&v| f64::from(v)).collect())
        }
        TensorElementType::Float64 => floats(Element::F64, value.try_extract_tensor::<f64>().unwrap().1.to_vec()),
        TensorElementType::Int64 => integers(Element::I64, value.try_extract_tensor::<i64>().unwrap().1.to_vec()),
        TensorElementType::Int32 => {
            integers(Element::I32, value.try_extract_tensor::<i32>().unwrap().1.iter().map(|&v| v.into()).collect())
        }
        TensorElementType::Bool => {
            integers(Element::Bool, value.try_extract_tensor::<bool>().unwrap().1.iter().map(|&v| v.into()).collect())
        }
        other => panic!("the tests read no {other}"),
    }
}

/// Runs the session with what it asks for among `feeds`; all outputs, in the session's order.
pub fn run(session: &mut Session, feeds: &[(&str, &Tensor)]) -> Result<Vec<Tensor>, String> {
    let names: Vec<String> = session.inputs().iter().map(|i| i.name().to_owned()).collect();
    let inputs: Vec<(String, DynValue)> = names
        .into_iter()
        .map(|name| {
            let tensor = feeds.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name} is fed")).1;
            (name, value(tensor))
        })
        .collect();
    let outputs: Vec<String> = session.outputs().iter().map(|o| o.name().to_owned()).collect();
    let results = session.run(inputs).map_err(|e| e.to_string())?;
    Ok(outputs.iter().map(|name| tensor(&results[name.as_str()])).collect())
}

/// Makes a session of the model and runs it once.
pub fn run_model(model: &Model, feeds: &[(&str, &Tensor)]) -> Result<Vec<Tensor>, String> {
    run(&mut session(&model.write())?, feeds)
}
