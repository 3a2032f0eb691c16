//! Parameters, moments and gradients, by name: in the host's memory, changed by loops over slices, or in a provider's, changed by sessions there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ort::memory::AllocationDevice;
use ort::value::{DynValue, Tensor as Value, TensorValueType};
use rayon::prelude::*;

use super::TrainError;
use super::compiled::Machine;
use super::device::Device;
use super::state::TrainState;
use crate::graph::Tensor;
use crate::optim::{self, Update};

/// What training keeps of a parameter.
#[derive(Debug)]
struct Trained {
    gradient: Option<Gradient>,
    first: Value<f32>,
    second: Value<f32>,
    decays: bool,
}

/// What has arrived since the last update: the first run's own output, which later ones are added to.
#[derive(Debug)]
struct Gradient {
    value: Value<f32>,
    /// Its sum of squares, while nothing was added.
    squares: Option<f64>,
}

/// One parameter.
#[derive(Debug)]
struct Slot {
    shape: Vec<usize>,
    /// Its one copy: sessions read it in place.
    value: Value<f32>,
    trained: Option<Trained>,
}

/// All parameters.
#[derive(Debug, Default)]
pub(super) struct Slots {
    by_name: BTreeMap<String, Slot>,
    /// Where they are, if not in the host's memory.
    device: Option<Device>,
}

/// A tensor in the host's memory.
fn hosted(shape: &[usize], values: Vec<f32>) -> Result<Value<f32>, String> {
    let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Value::from_array((shape, values)).map_err(|e| e.to_string())
}

impl Slots {
    /// Adds a parameter, before [`Slots::settle`].
    pub(super) fn insert(&mut self, name: &str, value: &Tensor, trained: bool) -> Result<(), TrainError> {
        let refused = |reason: String| TrainError::State { name: name.to_owned(), reason };
        let values = value.f32s().ok_or_else(|| refused(format!("it is {}, training needs float32", value.kind())))?;
        let (shape, count) = (value.shape().to_vec(), values.len());
        let zeros = || hosted(&shape, vec![0.0; count]).map_err(refused);
        let decays = optim::decays(&shape);
        let trained = match trained {
            true => Some(Trained { gradient: None, first: zeros()?, second: zeros()?, decays }),
            false => None,
        };
        let value = hosted(&shape, values).map_err(refused)?;
        self.by_name.insert(name.to_owned(), Slot { shape, value, trained });
        Ok(())
    }

    /// Moves everything into the memory that `machine` computes in, and keeps it there.
    pub(super) fn settle(&mut self, machine: &Machine) -> Result<(), String> {
        if self.device.is_some() {
            return Ok(());
        }
        let device = Device::new(machine);
        for slot in self.by_name.values_mut() {
            slot.value = device.take(&slot.value)?;
            if let Some(trained) = &mut slot.trained {
                (trained.first, trained.second) = (device.take(&trained.first)?, device.take(&trained.second)?);
            }
        }
        self.device = Some(device);
        Ok(())
    }

    /// Where parameters are, if not in the host's memory.
    pub(super) fn place(&self) -> Option<AllocationDevice<'static>> {
        self.device.as_ref().map(Device::place)
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value<f32>> {
        self.by_name.get(name).map(|slot| &slot.value)
    }

    /// A parameter's values as they are; a copy where they are on a device. None of a name that is not there, or that cannot be copied.
    pub(super) fn values(&self, name: &str) -> Option<Cow<'_, [f32]>> {
        self.value(name).and_then(|value| self.read(value))
    }

    fn read<'v>(&self, value: &'v Value<f32>) -> Option<Cow<'v, [f32]>> {
        match self.device {
            None => Some(Cow::Borrowed(value.extract_tensor().1)),
            Some(_) => Some(Cow::Owned(value.to(AllocationDevice::CPU, 0).ok()?.extract_tensor().1.to_vec())),
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Tensor> {
        Tensor::from_f32(self.by_name.get(name)?.shape.clone(), &self.values(name)?)
    }

    pub(super) fn is_trained(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|slot| slot.trained.is_some())
    }

    /// The only value of a scalar parameter.
    pub(super) fn scalar(&self, name: &str) -> Option<f32> {
        self.values(name).and_then(|values| values.first().copied())
    }

    pub(super) fn set_scalar(&mut self, name: &str, to: f32) -> Result<(), String> {
        let Self { by_name, device } = self;
        let Some(slot) = by_name.get_mut(name) else { return Ok(()) };
        put(device.as_ref(), &mut slot.value, &slot.shape, &[to])
    }

    /// Number of values: trained ones, and all.
    pub(super) fn counts(&self) -> (u64, u64) {
        let size = |slot: &Slot| slot.shape.iter().product::<usize>() as u64;
        let trained = self.by_name.values().filter(|slot| slot.trained.is_some()).map(size).sum();
        (trained, self.by_name.values().map(size).sum())
    }

    /// Adds to a gradient; gives whether all of it was finite. What is not trained takes none.
    pub(super) fn add_gradient(&mut self, name: &str, value: DynValue) -> Result<bool, String> {
        let Self { by_name, device } = self;
        let Some(slot) = by_name.get_mut(name) else { return Ok(true) };
        let Some(trained) = &mut slot.trained else { return Ok(true) };
        let value: Value<f32> = value.downcast::<TensorValueType<f32>>().map_err(|e| e.to_string())?;
        let squares = squares(device.as_mut(), &slot.shape, &value)?;
        match &mut trained.gradient {
            None => trained.gradient = Some(Gradient { value: arrived(device.as_ref(), value)?, squares: Some(squares) }),
            Some(sum) => {
                sum.squares = None;
                match device {
                    Some(device) => device.add(&slot.shape, &mut sum.value, &value)?,
                    None => add(sum.value.extract_tensor_mut().1, value.extract_tensor().1),
                }
            }
        }
        Ok(squares.is_finite())
    }

    pub(super) fn clear_gradients(&mut self) {
        self.by_name.values_mut().filter_map(|slot| slot.trained.as_mut()).for_each(|t| t.gradient = None);
    }

    /// The gradient of a parameter as it stands; zeros where none has arrived.
    pub(super) fn gradient(&self, name: &str) -> Option<Tensor> {
        let slot = self.by_name.get(name)?;
        match &slot.trained.as_ref()?.gradient {
            Some(gradient) => Tensor::from_f32(slot.shape.clone(), &self.read(&gradient.value)?),
            None => Tensor::from_f32(slot.shape.clone(), &vec![0.0; slot.shape.iter().product()]),
        }
    }

    /// Norm of all gradients together.
    pub(super) fn gradient_norm(&mut self) -> Result<f64, String> {
        let Self { by_name, device } = self;
        let mut sum = 0.0;
        for slot in by_name.values() {
            let Some(gradient) = slot.trained.as_ref().and_then(|t| t.gradient.as_ref()) else { continue };
            sum += match gradient.squares {
                Some(known) => known,
                None => squares(device.as_mut(), &slot.shape, &gradient.value)?,
            };
        }
        Ok(sum.sqrt())
    }

    /// One step of the optimizer on everything trained. Each gradient is let go of as it is used.
    pub(super) fn update(&mut self, update: &Update) -> Result<(), String> {
        let Self { by_name, device } = self;
        for slot in by_name.values_mut() {
            let Some(t) = &mut slot.trained else { continue };
            // Moments fade, and weights decay, without a gradient as well.
            let gradient = match t.gradient.take() {
                Some(gradient) => gradient.value,
                None => arrived(device.as_ref(), hosted(&slot.shape, vec![0.0; slot.shape.iter().product()])?)?,
            };
            match device {
                Some(device) => {
                    device.update(&slot.shape, update, (&mut slot.value, &mut t.first, &mut t.second), &gradient)?;
                }
                None => {
                    let moments = [t.first.extract_tensor_mut().1, t.second.extract_tensor_mut().1];
                    optim::update(update, t.decays, slot.value.extract_tensor_mut().1, moments, gradient.extract_tensor().1);
                }
            }
        }
        Ok(())
    }

    pub(super) fn state(&self, step: u64) -> TrainState {
        let mut state = TrainState { step, ..TrainState::default() };
        for (name, slot) in &self.by_name {
            let Some(trained) = &slot.trained else { continue };
            let keep = |map: &mut BTreeMap<String, Tensor>, value: &Value<f32>| {
                let tensor = self.read(value).and_then(|values| Tensor::from_f32(slot.shape.clone(), &values));
                map.extend(tensor.map(|tensor| (name.clone(), tensor)));
            };
            keep(&mut state.parameters, &slot.value);
            keep(&mut state.first_moments, &trained.first);
            keep(&mut state.second_moments, &trained.second);
        }
        state
    }

    /// Puts a state back. It must hold exactly what is trained here; nothing is changed where it does not.
    pub(super) fn restore(&mut self, state: &TrainState) -> Result<(), TrainError> {
        let refuse = |name: &str, reason: String| Err(TrainError::State { name: name.to_owned(), reason });
        for map in [&state.parameters, &state.first_moments, &state.second_moments] {
            for (name, slot) in self.by_name.iter().filter(|(_, slot)| slot.trained.is_some()) {
                match map.get(name) {
                    None => return refuse(name, "it is trained here, but not in the state".to_owned()),
                    Some(tensor) if tensor.shape() != slot.shape || tensor.f32s().is_none() => {
                        return refuse(name, format!("it is float32{:?} here and {} in the state", slot.shape, tensor.kind()));
                    }
                    Some(_) => {}
                }
            }
            let trained = |name: &String| self.by_name.get(name).is_some_and(|slot| slot.trained.is_some());
            if let Some(name) = map.keys().find(|name| !trained(name)) {
                return refuse(name, "it is in the state, but not trained here".to_owned());
            }
        }
        let Self { by_name, device } = self;
        for (name, slot) in by_name {
            let Some(trained) = &mut slot.trained else { continue };
            let put = |map: &BTreeMap<String, Tensor>, to: &mut Value<f32>| {
                let values = map.get(name).and_then(Tensor::f32s).unwrap_or_default();
                let refused = |reason: String| TrainError::State { name: name.clone(), reason };
                put(device.as_ref(), to, &slot.shape, &values).map_err(refused)
            };
            put(&state.parameters, &mut slot.value)?;
            put(&state.first_moments, &mut trained.first)?;
            put(&state.second_moments, &mut trained.second)?;
            trained.gradient = None;
        }
        Ok(())
    }
}

/// Puts values into a parameter.
fn put(device: Option<&Device>, to: &mut Value<f32>, shape: &[usize], values: &[f32]) -> Result<(), String> {
    match device {
        None => to.extract_tensor_mut().1.copy_from_slice(values),
        Some(device) => *to = device.take(&hosted(shape, values.to_vec())?)?,
    }
    Ok(())
}

/// A gradient where gradients are: a run that was bound gives it there, the loss alone gives its own in the host's memory.
fn arrived(device: Option<&Device>, value: Value<f32>) -> Result<Value<f32>, String> {
    match device {
        Some(device) if value.memory_info().allocation_device() != device.place() => device.take(&value),
        _ => Ok(value),
    }
}

fn squares(device: Option<&mut Device>, shape: &[usize], value: &Value<f32>) -> Result<f64, String> {
    match device {
        Some(device) => device.squares(shape, value),
        None => Ok(optim::squared_norm(value.extract_tensor().1)),
    }
}

fn add(sum: &mut [f32], values: &[f32]) {
    let piece = |(sum, values): (&mut [f32], &[f32])| sum.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
    sum.par_chunks_mut(optim::PIECE).zip(values.par_chunks(optim::PIECE)).for_each(piece);
}
