//! A graph in ONNX Runtime, and where a value stopped being finite.

use std::num::NonZeroUsize;

use anchorite_encoder::session::{self, Engine, SessionError, SessionOptions};
use ort::session::{Session, SessionInputValue, SessionOutputs};
use ort::value::DynValue;

use super::slots::Slots;
use super::{StepError, TrainError};
use crate::program::{ParametersAs, Program};

/// A graph in ONNX Runtime.
#[derive(Debug)]
pub(super) struct Compiled {
    name: String,
    session: Session,
    inputs: Vec<String>,
    /// Kept to be asked node by node when a result is not finite; it holds no weights.
    program: Program,
}

/// What a run is fed beside the parameters, by name.
pub(super) type Feeds = Vec<(String, DynValue)>;

/// Where and with how many threads graphs run.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) engine: Engine,
    pub(super) threads: usize,
}

impl Machine {
    fn session(&self, name: &str, program: &Program, outputs: &[&str]) -> Result<Session, TrainError> {
        let graph = |source| TrainError::Graph { graph: name.to_owned(), source };
        let failed = |source| TrainError::Session { graph: name.to_owned(), source };
        let model = program.to_model(outputs, ParametersAs::Inputs).map_err(graph)?;
        let options = SessionOptions { count: NonZeroUsize::MIN, threads: self.threads, spinning: false };
        let builder = session::builder(&self.engine, options).map_err(failed)?;
        let refused = |error: String| failed(SessionError::Runtime { reason: error });
        // With it on, the first run's whole arena stays and the second adds one block as large.
        let mut builder = builder.with_memory_pattern(false).map_err(|e| refused(e.to_string()))?;
        builder.commit_from_memory(&model.write()).map_err(|e| refused(e.to_string()))
    }
}

impl Compiled {
    pub(super) fn new(machine: &Machine, name: String, program: Program, outputs: &[&str]) -> Result<Self, TrainError> {
        let session = machine.session(&name, &program, outputs)?;
        let inputs = session.inputs().iter().map(|input| input.name().to_owned()).collect();
        Ok(Self { name, session, inputs, program })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs the graph: each input is one of `feeds`, else a parameter.
    pub(super) fn run(&mut self, step: u64, slots: &Slots, feeds: &Feeds) -> Result<SessionOutputs<'_>, StepError> {
        let failed = |reason: String| StepError::Runtime { step, graph: self.name.clone(), reason };
        let inputs = bind(&self.inputs, slots, feeds).map_err(failed)?;
        self.session.run(inputs).map_err(|e| failed(e.to_string()))
    }

    /// Where the first value that is not finite is for these feeds: an input, a parameter, or in the program's order a node ("graph,
    /// node name (operator)"). Runs the graph once more with every value put out, which takes the memory of all of them.
    pub(super) fn first_not_finite(&self, machine: &Machine, slots: &Slots, feeds: &Feeds) -> Option<String> {
        let bad = |values: &[f32]| values.iter().any(|v| !v.is_finite());
        if let Some((name, _)) = feeds.iter().find(|(_, v)| v.try_extract_tensor::<f32>().is_ok_and(|(_, v)| bad(v))) {
            return Some(format!("{}, what is fed as {name}", self.name));
        }
        if let Some(name) = self.inputs.iter().find(|name| slots.values(name).is_some_and(bad)) {
            return Some(format!("{}, parameter {name}", self.name));
        }
        let floats = |name: &&String| self.program.kind(name).is_some_and(|kind| kind.element.is_differentiable());
        let nodes = self.program.nodes();
        let outputs: Vec<&str> = nodes.iter().flat_map(|n| n.outputs.iter().filter(floats)).map(String::as_str).collect();
        let mut session = machine.session(&self.name, &self.program, &outputs).ok()?;
        let inputs: Vec<String> = session.inputs().iter().map(|input| input.name().to_owned()).collect();
        let results = session.run(bind(&inputs, slots, feeds).ok()?).ok()?;
        let finite = |name: &String| {
            let values = results.get(name).and_then(|value| value.try_extract_tensor::<f32>().ok());
            values.is_none_or(|(_, values)| values.iter().all(|v| v.is_finite()))
        };
        let node = nodes.iter().find(|node| !node.outputs.iter().all(finite))?;
        let label = if node.name.is_empty() { node.outputs.first()? } else { &node.name };
        Some(format!("{}, node {label} ({})", self.name, node.operator))
    }
}

fn bind<'v>(names: &[String], slots: &'v Slots, feeds: &'v Feeds) -> Result<Vec<(String, SessionInputValue<'v>)>, String> {
    let value = |name: &String| {
        let fed = feeds.iter().find(|(fed, _)| fed == name).map(|(_, value)| SessionInputValue::from(value));
        let value = fed.or_else(|| slots.value(name).map(SessionInputValue::from));
        value.map(|value| (name.clone(), value)).ok_or_else(|| format!("nothing is fed for {name:?}"))
    };
    names.iter().map(value).collect()
}
