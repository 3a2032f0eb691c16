//! Parameters, moments and gradients, by name.

use std::collections::BTreeMap;

use ort::value::Tensor as Value;
use rayon::prelude::*;

use super::TrainError;
use super::state::TrainState;
use crate::graph::Tensor;
use crate::optim::{self, Update};

/// What training keeps of a parameter.
#[derive(Debug)]
struct Trained {
    gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    decays: bool,
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
}

impl Slots {
    /// Adds a parameter.
    pub(super) fn insert(&mut self, name: &str, value: &Tensor, trained: bool) -> Result<(), TrainError> {
        let refused = |reason: String| TrainError::State { name: name.to_owned(), reason };
        let values = value.f32s().ok_or_else(|| refused(format!("it is {}, training needs float32", value.kind())))?;
        let trained = trained.then(|| Trained {
            gradient: vec![0.0; values.len()],
            first: vec![0.0; values.len()],
            second: vec![0.0; values.len()],
            decays: optim::decays(value.shape()),
        });
        let shape: Vec<i64> = value.shape().iter().map(|&d| d as i64).collect();
        let made = Value::from_array((shape, values)).map_err(|e| refused(e.to_string()))?;
        self.by_name.insert(name.to_owned(), Slot { shape: value.shape().to_vec(), value: made, trained });
        Ok(())
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value<f32>> {
        self.by_name.get(name).map(|slot| &slot.value)
    }

    pub(super) fn values(&self, name: &str) -> Option<&[f32]> {
        self.value(name).map(|value| value.extract_tensor().1)
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Tensor> {
        let slot = self.by_name.get(name)?;
        Tensor::from_f32(slot.shape.clone(), slot.value.extract_tensor().1)
    }

    /// The only value of a scalar parameter.
    pub(super) fn scalar(&self, name: &str) -> Option<f32> {
        self.values(name).and_then(|values| values.first().copied())
    }

    pub(super) fn set_scalar(&mut self, name: &str, to: f32) {
        if let Some(slot) = self.by_name.get_mut(name) {
            slot.value.extract_tensor_mut().1.fill(to);
        }
    }

    /// Number of values: trained ones, and all.
    pub(super) fn counts(&self) -> (u64, u64) {
        let size = |slot: &Slot| slot.shape.iter().product::<usize>() as u64;
        let trained = self.by_name.values().filter(|slot| slot.trained.is_some()).map(size).sum();
        (trained, self.by_name.values().map(size).sum())
    }

    /// Adds to a gradient; gives whether all of it was finite. What is not trained takes none.
    pub(super) fn add_gradient(&mut self, name: &str, values: &[f32]) -> bool {
        let Some(trained) = self.by_name.get_mut(name).and_then(|slot| slot.trained.as_mut()) else { return true };
        let add = |(sum, values): (&mut [f32], &[f32])| {
            let mut finite = true;
            for (sum, &value) in sum.iter_mut().zip(values) {
                *sum += value;
                finite &= value.is_finite();
            }
            finite
        };
        let pieces = trained.gradient.par_chunks_mut(1 << 14).zip(values.par_chunks(1 << 14));
        pieces.map(add).reduce(|| true, |a, b| a & b)
    }

    pub(super) fn clear_gradients(&mut self) {
        let trained = self.by_name.values_mut().filter_map(|slot| slot.trained.as_mut());
        trained.for_each(|t| t.gradient.par_chunks_mut(1 << 16).for_each(|piece| piece.fill(0.0)));
    }

    /// The gradient of a parameter as it stands.
    pub(super) fn gradient(&self, name: &str) -> Option<Tensor> {
        let slot = self.by_name.get(name)?;
        Tensor::from_f32(slot.shape.clone(), &slot.trained.as_ref()?.gradient)
    }

    /// Norm of all gradients together.
    pub(super) fn gradient_norm(&self) -> f64 {
        let trained = self.by_name.values().filter_map(|slot| slot.trained.as_ref());
        trained.map(|t| optim::squared_norm(&t.gradient)).sum::<f64>().sqrt()
    }

    /// One step of the optimizer on everything trained.
    pub(super) fn update(&mut self, update: &Update) {
        for slot in self.by_name.values_mut() {
            if let Some(t) = &mut slot.trained {
                let values = slot.value.extract_tensor_mut().1;
                optim::update(update, t.decays, values, [&mut t.first, &mut t.second], &t.gradient);
            }
        }
    }

    pub(super) fn state(&self, step: u64) -> TrainState {
        let mut state = TrainState { step, ..TrainState::default() };
        for (name, slot) in &self.by_name {
            let Some(trained) = &slot.trained else { continue };
            let keep = |map: &mut BTreeMap<String, Tensor>, values: &[f32]| {
                map.extend(Tensor::from_f32(slot.shape.clone(), values).map(|tensor| (name.clone(), tensor)));
            };
            keep(&mut state.parameters, slot.value.extract_tensor().1);
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
        for (name, slot) in &mut self.by_name {
            let Some(trained) = &mut slot.trained else { continue };
            let put = |map: &BTreeMap<String, Tensor>, to: &mut [f32]| {
                if let Some(values) = map.get(name).and_then(Tensor::f32s) {
                    to.copy_from_slice(&values);
                }
            };
            put(&state.parameters, slot.value.extract_tensor_mut().1);
            put(&state.first_moments, &mut trained.first);
            put(&state.second_moments, &mut trained.second);
            trained.gradient.fill(0.0);
        }
        Ok(())
    }
}
