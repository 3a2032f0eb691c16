//! Memory that a provider computes in: copies to and from it, and what training does with parameters there.
//!
//! ```text
//!   gradient of a run ──add──► sum ──squares──► one number, for the norm
//!   parameter, moments, gradient ──AdamW──► parameter, moments, in their own memory
//! ```
//!
//! Each is a session over one tensor's shape whose output is bound to its input's memory. ONNX Runtime does not look whether the two overlap; it is
//! right because every node of these graphs is elementwise and the last to read what it writes (`optim::adamw_model`). A graph that reads a
//! parameter twice, as a tower's does, must never be bound so.

use std::collections::BTreeMap;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::{Tensor as Value, ValueTypeMarker};

use super::compiled::Machine;
use crate::Limits;
use crate::graph::{Element, Model, TensorType};
use crate::optim::{Update, adamw_model};
use crate::program::{ParametersAs, Program, ProgramError};

/// What is done with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kernel {
    Add,
    Squares,
    AdamW,
}

/// A provider's memory, and sessions that work in it.
#[derive(Debug)]
pub(super) struct Device {
    machine: Machine,
    place: AllocationDevice<'static>,
    kernels: BTreeMap<(Kernel, Vec<usize>), Session>,
}

/// The memory of a place, as bindings name it.
pub(super) fn memory(place: AllocationDevice<'static>) -> Result<MemoryInfo<'static>, String> {
    MemoryInfo::new(place, 0, AllocatorType::Device, MemoryType::Default).map_err(|e| e.to_string())
}

impl Device {
    pub(super) fn new(machine: &Machine) -> Self {
        let place = machine.engine.device().unwrap_or(AllocationDevice::CPU);
        Self { machine: machine.clone(), place, kernels: BTreeMap::new() }
    }

    pub(super) fn place(&self) -> AllocationDevice<'static> {
        self.place.clone()
    }

    /// A copy here. Also of what is here already, so that the runtime owns it: only such a tensor can be bound to an output.
    pub(super) fn take(&self, value: &Value<f32>) -> Result<Value<f32>, String> {
        value.to(self.place(), 0).map_err(|e| e.to_string())
    }

    /// Adds to a sum in its place.
    pub(super) fn add<T: ValueTypeMarker + ?Sized>(
        &mut self,
        shape: &[usize],
        sum: &mut Value<f32>,
        value: &ort::value::Value<T>,
    ) -> Result<(), String> {
        let session = self.kernel(Kernel::Add, shape)?;
        let mut binding = session.create_binding().map_err(|e| e.to_string())?;
        binding.bind_input("a", sum).map_err(|e| e.to_string())?;
        binding.bind_input("b", value).map_err(|e| e.to_string())?;
        binding.bind_output("sum", sum).map_err(|e| e.to_string())?;
        session.run_binding(&binding).map(drop).map_err(|e| e.to_string())
    }

    /// The sum of squares; not finite where a value is not.
    pub(super) fn squares(&mut self, shape: &[usize], value: &Value<f32>) -> Result<f64, String> {
        let session = self.kernel(Kernel::Squares, shape)?;
        let mut binding = session.create_binding().map_err(|e| e.to_string())?;
        binding.bind_input("x", value).map_err(|e| e.to_string())?;
        binding.bind_output_to_device("squares", &memory(AllocationDevice::CPU)?).map_err(|e| e.to_string())?;
        let results = session.run_binding(&binding).map_err(|e| e.to_string())?;
        let (_, values) = results["squares"].try_extract_tensor::<f32>().map_err(|e| e.to_string())?;
        values.first().map(|&sum| f64::from(sum)).ok_or_else(|| "it gave no sum".to_owned())
    }

    /// AdamW on one parameter and its moments, in their place.
    pub(super) fn update(
        &mut self,
        shape: &[usize],
        update: &Update,
        (parameter, first, second): (&mut Value<f32>, &mut Value<f32>, &mut Value<f32>),
        gradient: &Value<f32>,
    ) -> Result<(), String> {
        let session = self.kernel(Kernel::AdamW, shape)?;
        let mut binding = session.create_binding().map_err(|e| e.to_string())?;
        for (name, number) in update.named() {
            let scalar = Value::from_array((Vec::<i64>::new(), vec![number])).map_err(|e| e.to_string())?;
            // Passed over where the shape has no use for it: `keep` is for what decays.
            if session.inputs().iter().any(|input| input.name() == name) {
                binding.bind_input(name, &scalar).map_err(|e| e.to_string())?;
            }
        }
        binding.bind_input("p/g", gradient).map_err(|e| e.to_string())?;
        for (name, value) in [("p", parameter), ("p/m", first), ("p/v", second)] {
            binding.bind_input(name, value).map_err(|e| e.to_string())?;
            binding.bind_output(format!("{name}/new"), value).map_err(|e| e.to_string())?;
        }
        session.run_binding(&binding).map(drop).map_err(|e| e.to_string())
    }

    fn kernel(&mut self, kernel: Kernel, shape: &[usize]) -> Result<&mut Session, String> {
        let key = (kernel, shape.to_vec());
        if !self.kernels.contains_key(&key) {
            let model = match kernel {
                Kernel::Add => adding(shape),
                Kernel::Squares => squaring(shape),
                Kernel::AdamW => adamw_model(&BTreeMap::from([("p".to_owned(), shape.to_vec())])),
            };
            let model = model.map_err(|e| e.to_string())?;
            let session = self.machine.load("optimizer", &model).map_err(|e| e.to_string())?;
            self.kernels.insert(key.clone(), session);
        }
        self.kernels.get_mut(&key).ok_or_else(|| "it was not made".to_owned())
    }
}

fn adding(shape: &[usize]) -> Result<Model, ProgramError> {
    let mut p = Program::empty(Limits::default());
    for name in ["a", "b"] {
        p.add_input(name, TensorType::new(Element::F32, shape))?;
    }
    let sum = p.add("a", "b")?;
    let sum = p.named(&sum, "sum")?;
    p.to_model(&[&sum], ParametersAs::Inputs)
}

fn squaring(shape: &[usize]) -> Result<Model, ProgramError> {
    let mut p = Program::empty(Limits::default());
    p.add_input("x", TensorType::new(Element::F32, shape))?;
    let squares = p.mul("x", "x")?;
    let axes: Vec<usize> = (0..shape.len()).collect();
    let sum = p.sum(&squares, &axes)?;
    let sum = p.reshape(&sum, &[])?;
    let sum = p.named(&sum, "squares")?;
    p.to_model(&[&sum], ParametersAs::Inputs)
}
