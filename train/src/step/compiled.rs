//! A graph in ONNX Runtime, and where a value stopped being finite.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use anchorite_encoder::session::{self, Engine, SessionError, SessionOptions};
use ort::memory::AllocationDevice;
use ort::session::{IoBinding, Session, SessionInputValue, SessionOutputs};
use ort::value::DynValue;

use super::device::memory;
use super::slots::Slots;
use super::{Precision, StepError, TrainError};
use crate::graph::{Element, Model};
use crate::program::{Narrow, ParametersAs, Program};

/// A graph in ONNX Runtime.
#[derive(Debug)]
pub(super) struct Compiled {
    name: String,
    session: Session,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Outputs that stay where parameters are.
    gradients: Vec<String>,
    /// Of the last run, where parameters are not in the host's memory. The lock is for the compiler: it is never waited for.
    binding: Mutex<Option<IoBinding>>,
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
    pub(super) compute: Precision,
    pub(super) spin: bool,
}

impl Machine {
    fn session(&self, name: &str, program: &Program, outputs: &[&str]) -> Result<Session, TrainError> {
        let graph = |source| TrainError::Graph { graph: name.to_owned(), source };
        let model = match self.narrow() {
            None => program.to_model(outputs, ParametersAs::Inputs),
            Some(narrow) => program.clone().narrowed(narrow).to_model(outputs, ParametersAs::Inputs),
        };
        self.load(name, &model.map_err(graph)?)
    }

    fn narrow(&self) -> Option<Narrow> {
        let element = match self.compute {
            Precision::F32 => return None,
            Precision::Bf16 => Element::Bf16,
            Precision::F16 => Element::F16,
        };
        Some(if self.engine.has_half() { Narrow::Computed(element) } else { Narrow::Rounded(element) })
    }

    /// A session of a model whose parameters are inputs.
    pub(super) fn load(&self, name: &str, model: &Model) -> Result<Session, TrainError> {
        let failed = |source| TrainError::Session { graph: name.to_owned(), source };
        let options = SessionOptions { count: NonZeroUsize::MIN, threads: self.threads, spinning: self.spin };
        let builder = session::builder(&self.engine, options).map_err(failed)?;
        let refused = |error: String| failed(SessionError::Runtime { reason: error });
        // With it on, the first run's whole arena stays and the second adds one block as large.
        let mut builder = builder.with_memory_pattern(false).map_err(|e| refused(e.to_string()))?;
        // Between kernels, not between runs, when the optimizer has the cores.
        builder = builder.with_config_entry("session.force_spinning_stop", "1").map_err(|e| refused(e.to_string()))?;
        // One step's sessions run one after the other: what one has given back serves the next.
        builder = builder.with_config_entry("session.use_env_allocators", "1").map_err(|e| refused(e.to_string()))?;
        builder.commit_from_memory(&model.write()).map_err(|e| refused(e.to_string()))
    }
}

impl Compiled {
    /// A session that gives `outputs`; those that are among `gradients` stay where parameters are.
    pub(super) fn new(
        machine: &Machine,
        name: String,
        program: Program,
        outputs: &[&str],
        gradients: &[&str],
    ) -> Result<Self, TrainError> {
        let session = machine.session(&name, &program, outputs)?;
        let inputs = session.inputs().iter().map(|input| input.name().to_owned()).collect();
        let [outputs, gradients] = [outputs, gradients].map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Ok(Self { name, session, inputs, outputs, gradients, binding: Mutex::default(), program })
    }

    /// Runs the graph: each input is one of `feeds`, else a parameter.
    pub(super) fn run(&mut self, step: u64, slots: &Slots, feeds: &Feeds) -> Result<SessionOutputs<'_>, StepError> {
        let failed = |reason: String| StepError::Runtime { step, graph: self.name.clone(), reason };
        match slots.place() {
            None => {
                let inputs = bind(&self.inputs, slots, feeds).map_err(failed)?;
                self.session.run(inputs).map_err(|e| failed(e.to_string()))
            }
            Some(place) => {
                let binding = self.bound(&place, slots, feeds).map_err(failed)?;
                let binding = self.binding.get_mut().unwrap_or_else(PoisonError::into_inner).insert(binding);
                self.session.run_binding(binding).map_err(|e| failed(e.to_string()))
            }
        }
    }

    /// Made anew for each run: one that is used again writes into the outputs of the run before.
    fn bound(&self, place: &AllocationDevice<'static>, slots: &Slots, feeds: &Feeds) -> Result<IoBinding, String> {
        let mut binding = self.session.create_binding().map_err(|e| e.to_string())?;
        for name in &self.inputs {
            let bound = match (feeds.iter().find(|(fed, _)| fed == name), slots.value(name)) {
                (Some((_, value)), _) => binding.bind_input(name, value),
                (None, Some(value)) => binding.bind_input(name, value),
                (None, None) => return Err(format!("nothing is fed for {name:?}")),
            };
            bound.map_err(|e| e.to_string())?;
        }
        for name in &self.outputs {
            let place = if self.gradients.contains(name) { place.clone() } else { AllocationDevice::CPU };
            binding.bind_output_to_device(name, &memory(place)?).map_err(|e| e.to_string())?;
        }
        Ok(binding)
    }

    /// Where the first value that is not finite is for these feeds: an input, a parameter, or in the program's order a node ("graph,
    /// node name (operator)"). Runs the graph once more with every value put out, which takes the memory of all of them.
    pub(super) fn first_not_finite(&self, machine: &Machine, slots: &Slots, feeds: &Feeds) -> Option<String> {
        let bad = |values: &[f32]| values.iter().any(|v| !v.is_finite());
        if let Some((name, _)) = feeds.iter().find(|(_, v)| v.try_extract_tensor::<f32>().is_ok_and(|(_, v)| bad(v))) {
            return Some(format!("{}, what is fed as {name}", self.name));
        }
        if let Some(name) = self.inputs.iter().find(|name| slots.values(name).is_some_and(|values| bad(&values))) {
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
