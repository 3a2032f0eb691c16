//! What a checkpoint holds, and the towers retrained.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::graphs::{LOG_SCALE, Side, adapters};
use super::slots::Slots;
use crate::graph::{Model, Tensor};
use crate::select::Lora;

/// Everything a step changes. Names are the export's, with "vision." or "text." before them; the logit scale is "logit_scale".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// Trained parameters; frozen ones are those of the model that training started from.
    pub parameters: BTreeMap<String, Tensor>,
    /// AdamW's first moments.
    pub first_moments: BTreeMap<String, Tensor>,
    /// AdamW's second moments.
    pub second_moments: BTreeMap<String, Tensor>,
}

impl TrainState {
    /// The logit scale as a factor, where it is trained.
    #[must_use]
    pub fn logit_scale(&self) -> Option<f32> {
        self.parameters.get(LOG_SCALE)?.f32s()?.first().map(|v| v.exp())
    }
}

/// An export without the weights that training changes, to be filled with what they have become.
#[derive(Debug)]
pub(super) struct Shell {
    side: Side,
    model: Model,
    /// Names of stored tensors in the file's order, and those that were taken out, prefixed.
    order: Vec<(String, Option<String>)>,
    lora: Option<Lora>,
}

impl Shell {
    /// `changing`: prefixed names of the matrices and vectors that training changes; `initial`: their values now.
    pub(super) fn new(
        side: Side,
        mut model: Model,
        changing: &BTreeMap<String, Tensor>,
        lora: Option<Lora>,
    ) -> Result<Self, String> {
        let own: BTreeMap<String, Tensor> = changing
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(side.prefix())?.to_owned(), value.clone())))
            .collect();
        model.set_weights(&own)?;
        let full = |name: &String| own.contains_key(name).then(|| format!("{}{name}", side.prefix()));
        let order = model.graph.initializers.iter().map(|(name, _)| (name.clone(), full(name))).collect();
        model.graph.initializers.retain(|(name, _)| !own.contains_key(name));
        Ok(Self { side, model, order, lora })
    }

    /// The export with its weights as they are now; adapters are merged.
    pub(super) fn fill(&self, slots: &Slots) -> Option<Model> {
        let mut model = self.model.clone();
        let mut kept = std::mem::take(&mut model.graph.initializers).into_iter();
        for (name, taken) in &self.order {
            let entry = match taken {
                None => kept.next()?,
                Some(full) => (name.clone(), self.merged(full, slots)?),
            };
            model.graph.initializers.push(entry);
        }
        Some(model)
    }

    fn merged(&self, name: &str, slots: &Slots) -> Option<Tensor> {
        let base = slots.tensor(name)?;
        let [a, b] = adapters(name);
        let (Some(lora), Some(a), Some(b)) = (self.lora, slots.values(&a), slots.values(&b)) else { return Some(base) };
        let &[_, columns] = base.shape() else { return None };
        let scale = (lora.alpha / lora.rank as f64) as f32;
        let mut values = base.f32s()?;
        for (row, a) in values.chunks_exact_mut(columns).zip(a.chunks_exact(lora.rank)) {
            for (j, value) in row.iter_mut().enumerate() {
                *value += scale * a.iter().enumerate().map(|(k, a)| a * b[k * columns + j]).sum::<f32>();
            }
        }
        Tensor::from_f32(base.shape(), &values)
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }
}

/// First values of a matrix's adapters: A uniform within +-1/sqrt(rows), B zero, so that the model starts as it was.
pub(super) fn new_adapters(shape: &[usize], rank: usize, random: &mut ChaCha8Rng) -> Option<[Tensor; 2]> {
    let &[rows, columns] = shape else { return None };
    let bound = 1.0 / (rows as f32).sqrt();
    let a: Vec<f32> = (0..rows * rank).map(|_| random.random_range(-bound..=bound)).collect();
    Some([Tensor::from_f32([rows, rank], &a)?, Tensor::from_f32([rank, columns], &vec![0.0; rank * columns])?])
}

/// The random numbers of a plan's seed.
pub(super) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}
