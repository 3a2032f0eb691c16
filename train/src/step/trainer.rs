//! The step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::compiled::{Feeds, Machine};
use super::estimate::{self, Estimate};
use super::graphs::{self, BIAS, LOG_SCALE, LossShape, Side, TowerGraph};
use super::rows::{Chunk, Rows};
use super::sessions::Sessions;
use super::slots::Slots;
use super::state::{self, Shell, TrainState};
use super::units::{Unit, check_labels, units};
use super::{InputSizes, Objective, Plan, Precision, Residence, StepError, StreamBatch, Towers, TrainError};
use crate::Limits;
use crate::graph::{Model, Tensor};
use crate::select::{self, Lora, TowerChoice, WeightChoice};
use anchorite_encoder::session::Engine;

/// A stream's loss in a step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StreamLoss {
    /// The stream's name.
    pub name: String,
    /// Mean over its pairs, before its weight.
    pub loss: f64,
    /// Its weight.
    pub weight: f32,
}

/// Where a step's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct StepTimes {
    /// Embedding all chunks.
    pub embed: Duration,
    /// Losses and gradients of the embeddings.
    pub loss: Duration,
    /// Forward again and backward, chunk by chunk.
    pub backward: Duration,
    /// Norm, clipping and optimizer.
    pub update: Duration,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: u64,
    /// The weighted sum of the streams' losses, before the update.
    pub loss: f64,
    /// By stream; of accumulated batches, the mean.
    pub streams: Vec<StreamLoss>,
    /// Norm of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// The logit scale as a factor, after the update.
    pub logit_scale: f64,
    /// The sigmoid's bias after the update; none of the other losses has one.
    pub logit_bias: Option<f64>,
    /// Pairs seen.
    pub pairs: usize,
    /// Where the time went.
    pub times: StepTimes,
}

/// Batches whose gradients wait for the update.
#[derive(Debug, Default)]
struct Pending {
    batches: usize,
    pairs: usize,
    streams: Vec<StreamLoss>,
    times: StepTimes,
}

/// Both towers in training.
#[derive(Debug)]
pub struct Trainer {
    pub(super) plan: Plan,
    pub(super) sizes: InputSizes,
    pub(super) limits: Limits,
    pub(super) machine: Machine,
    pub(super) towers: [TowerGraph; 2],
    shells: [Shell; 2],
    pub(super) slots: Slots,
    pub(super) dim: usize,
    pub(super) classes: usize,
    pub(super) step: u64,
    pending: Pending,
    pub(super) threads: rayon::ThreadPool,
    pub(super) sessions: Sessions,
    /// Activations of the larger tower's chunk.
    chunk_bytes: u64,
}

/// One batch on its way through.
pub(super) struct Work<'a> {
    pub(super) streams: &'a [StreamBatch],
    pub(super) rows: &'a [Rows; 2],
    pub(super) units: &'a [Unit],
    pub(super) cancel: &'a AtomicBool,
}

/// Sums of losses by stream, and where the time went.
pub(super) type Outcome = (Vec<f64>, StepTimes);

impl Trainer {
    /// Derives the graphs of both towers and makes room for what is trained. Sessions are made by the first step that needs them.
    ///
    /// # Errors
    /// [`TrainError`]: a tower that cannot be differentiated, a choice of parameters that leaves nothing, a setting out of range.
    pub fn new(towers: Towers, plan: &Plan, sizes: InputSizes, engine: &Engine, limits: &Limits) -> Result<Self, TrainError> {
        check(plan)?;
        let mut slots = Slots::default();
        let mut random = state::random(plan.seed);
        let lora = match plan.train.weights {
            WeightChoice::Lora(lora) => Some(lora),
            _ => None,
        };
        let classifier = plan.objective == Objective::Classifier;
        let mut parts = Vec::new();
        let mut dims = Vec::new();
        for (side, tower) in Side::BOTH.into_iter().zip([towers.vision, towers.text]) {
            let failed = |source| TrainError::Graph { graph: format!("{} tower", side.name()), source };
            let full = TowerGraph::full(side, &tower, sizes, limits).map_err(failed)?;
            let output = format!("{}{}", side.prefix(), tower.output);
            dims.push(embedding_size(side, &full, &output)?);
            let learns = learns(plan.train.towers, side) && !(classifier && side == Side::Text);
            let chosen = match learns {
                true => select::select(&full, &output, &plan.train.weights, side.name())?,
                false => BTreeSet::new(),
            };
            for (name, value) in full.parameters() {
                slots.insert(name, value, lora.is_none() && chosen.contains(name))?;
            }
            for name in chosen.iter().filter(|_| lora.is_some()) {
                add_adapters(&mut slots, name, full.parameters(), lora.unwrap_or_default(), &mut random)?;
            }
            let changing: BTreeMap<String, Tensor> = full
                .parameters()
                .iter()
                .filter(|(name, _)| chosen.contains(*name))
                .map(|(n, t)| (n.clone(), t.clone()))
                .collect();
            let lacks = |name| TrainError::State { name, reason: "the export has no such stored tensor".to_owned() };
            let shell = Shell::new(side, tower.model.clone(), &changing, lora).map_err(lacks)?;
            let mut graph = TowerGraph::new(side, &tower, full.parameters(), chosen, lora, limits).map_err(failed)?;
            graph.recompute = plan.recompute;
            parts.push((graph, shell));
        }
        let [vision, text] = <[_; 2]>::try_from(dims).unwrap_or_default();
        if vision != text {
            return Err(TrainError::Mismatch { vision, text });
        }
        let scalar = |value: f32| Tensor::from_f32([], &[value]).unwrap_or_else(|| Tensor::list(&[]));
        let scale_learns = plan.train.logit_scale && !classifier;
        slots.insert(LOG_SCALE, &scalar(towers.log_scale), scale_learns)?;
        slots.insert(BIAS, &scalar(towers.bias), scale_learns && plan.objective == Objective::Sigmoid)?;
        let threads = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build();
        let threads = threads.map_err(|e| TrainError::Threads { reason: e.to_string() })?;
        let (towers, shells): (Vec<TowerGraph>, Vec<Shell>) = parts.into_iter().unzip();
        let [vision_graph, text_graph] = <[TowerGraph; 2]>::try_from(towers).expect("one graph was made for each side");
        let shells = <[Shell; 2]>::try_from(shells).expect("one shell was made for each side");
        let of_chunk = |tower: &TowerGraph| estimate::activations(tower, tower.batch.unwrap_or(plan.chunk), sizes);
        // Here it is found out whether gradients can be derived at all.
        let chunk_bytes = of_chunk(&vision_graph)?.max(of_chunk(&text_graph)?);
        Ok(Self {
            chunk_bytes,
            plan: plan.clone(),
            sizes,
            limits: limits.clone(),
            machine: Machine { engine: engine.clone(), threads: plan.threads, compute: plan.compute, spin: plan.spin },
            towers: [vision_graph, text_graph],
            shells,
            slots,
            dim: vision,
            classes: 0,
            step: 0,
            pending: Pending::default(),
            threads,
            sessions: Sessions::default(),
        })
    }

    /// What a step over so many pictures and captions takes, stated before any session is made: chunk by chunk that of one chunk, in one run
    /// that of both towers.
    ///
    /// # Errors
    /// [`TrainError::Graph`].
    pub fn estimate(&self, rows: [usize; 2]) -> Result<Estimate, TrainError> {
        let shape = LossShape { pairs: rows[0].max(rows[1]), classes: self.classes };
        let mut activations =
            estimate::loss(self.plan.objective, shape, self.dim, &self.limits)? + estimate::fed(rows, self.sizes);
        if self.fits_one_run(rows) {
            for &side in self.sides() {
                activations += estimate::activations(&self.towers[side as usize], rows[side as usize], self.sizes)?;
            }
        } else {
            activations += self.chunk_bytes;
        }
        Ok(Estimate::new(self.slots.counts(), activations))
    }

    /// Names of what is trained.
    #[must_use]
    pub fn trained(&self) -> Vec<String> {
        self.slots.state(0).parameters.into_keys().collect()
    }

    /// Steps done.
    #[must_use]
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// One step: gradients of these streams, and the update at this learning rate.
    ///
    /// # Errors
    /// [`StepError`]; the parameters are then those of the step before, and what was accumulated is gone.
    pub fn step(&mut self, streams: &[StreamBatch], rate: f64, cancel: &AtomicBool) -> Result<StepReport, StepError> {
        self.accumulate(streams, cancel)?;
        self.apply(rate)
    }

    /// Adds the gradients of these streams to those that wait for [`Trainer::apply`]. Every call must bring the same streams.
    ///
    /// # Errors
    /// [`StepError`]; what was accumulated is gone then.
    pub fn accumulate(&mut self, streams: &[StreamBatch], cancel: &AtomicBool) -> Result<(), StepError> {
        let result = self.settle().and_then(|()| self.try_accumulate(streams, cancel));
        if result.is_err() {
            self.discard();
        }
        result
    }

    /// Forgets what was accumulated.
    pub fn discard(&mut self) {
        self.pending = Pending::default();
        self.slots.clear_gradients();
    }

    /// What gradients of the loss are multiplied with while they flow back.
    pub(super) fn seed(&self) -> f32 {
        if self.plan.compute == Precision::F16 { self.plan.loss_scale as f32 } else { 1.0 }
    }

    /// Sees to it that parameters are where the plan wants them.
    fn settle(&mut self) -> Result<(), StepError> {
        let there = match self.plan.residence {
            Residence::Auto => self.machine.engine.device().is_some(),
            Residence::Host => false,
            Residence::Provider => true,
        };
        if !there {
            return Ok(());
        }
        self.slots.settle(&self.machine).map_err(|reason| self.runtime("parameters", reason))
    }

    /// The update: the mean of the accumulated batches' gradients, clipped, through AdamW.
    ///
    /// # Errors
    /// [`StepError::NothingAccumulated`]; [`StepError::NotFinite`] where finite gradients add up to one that is not.
    pub fn apply(&mut self, rate: f64) -> Result<StepReport, StepError> {
        let start = Instant::now();
        let pending = std::mem::take(&mut self.pending);
        if pending.batches == 0 {
            return Err(StepError::NothingAccumulated);
        }
        let mean = 1.0 / (pending.batches as f64 * f64::from(self.seed()));
        let slots = &mut self.slots;
        let norm =
            self.threads.install(|| slots.gradient_norm()).map_err(|reason| self.runtime("gradient's norm", reason))? * mean;
        if !norm.is_finite() {
            self.discard();
            let stream = pending.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let place = "the sum over chunks".to_owned();
            return Err(StepError::NotFinite { step: self.step + 1, what: "the gradient", stream, place });
        }
        let clip = crate::optim::clip_factor(norm, self.plan.optimizer.clip_norm);
        self.step += 1;
        let update = self.plan.optimizer.update(self.step, rate, mean * clip);
        let slots = &mut self.slots;
        self.threads.install(|| slots.update(&update)).map_err(|reason| self.runtime("update", reason))?;
        let limit = self.plan.max_logit_scale.ln() as f32;
        let log_scale = self.slots.scalar(LOG_SCALE).unwrap_or_default();
        let bounded = self.plan.objective == Objective::Softmax && self.plan.train.logit_scale;
        if bounded && log_scale > limit {
            self.slots.set_scalar(LOG_SCALE, limit).map_err(|reason| self.runtime("update", reason))?;
        }
        let streams: Vec<StreamLoss> =
            pending.streams.into_iter().map(|s| StreamLoss { loss: s.loss / pending.batches as f64, ..s }).collect();
        let mut times = pending.times;
        times.update = start.elapsed();
        Ok(StepReport {
            step: self.step,
            loss: streams.iter().map(|s| s.loss * f64::from(s.weight)).sum(),
            streams,
            gradient_norm: norm,
            logit_scale: self.logit_scale(),
            logit_bias: self.logit_bias(),
            pairs: pending.pairs,
            times,
        })
    }

    /// Gradients that wait for the update, by name: sums over the accumulated batches, times [`Plan::loss_scale`] in float16.
    #[must_use]
    pub fn gradients(&self) -> BTreeMap<String, Tensor> {
        self.trained().into_iter().filter_map(|name| Some((name.clone(), self.slots.gradient(&name)?))).collect()
    }

    /// Everything a step changes.
    #[must_use]
    pub fn state(&self) -> TrainState {
        self.slots.state(self.step)
    }

    /// Goes on from a state. What was accumulated is gone.
    ///
    /// # Errors
    /// [`TrainError::State`]: it is not of this model or plan; nothing has changed then.
    pub fn restore(&mut self, state: &TrainState) -> Result<(), TrainError> {
        self.slots.restore(state)?;
        self.step = state.step;
        self.pending = Pending::default();
        Ok(())
    }

    /// Both exports with their weights as they are now: names, inputs, outputs and nodes as they came. Vision first.
    ///
    /// # Errors
    /// [`TrainError::State`]: a weight is gone, which would be a defect here.
    pub fn export_towers(&self) -> Result<(Model, Model), TrainError> {
        let fill = |shell: &Shell| {
            let reason = "a weight of this tower is not in memory".to_owned();
            shell.fill(&self.slots).ok_or_else(|| TrainError::State { name: shell.side().name().to_owned(), reason })
        };
        Ok((fill(&self.shells[0])?, fill(&self.shells[1])?))
    }

    fn try_accumulate(&mut self, streams: &[StreamBatch], cancel: &AtomicBool) -> Result<(), StepError> {
        let captions = self.plan.objective != Objective::Classifier;
        if streams.is_empty() {
            return Err(StepError::Batch { stream: String::new(), reason: "a step needs at least one stream".to_owned() });
        }
        for (i, stream) in streams.iter().enumerate() {
            stream.check(i, self.sizes, captions)?;
            if !captions {
                check_labels(stream, self.classes)?;
            }
            if let super::Pictures::SameAs(other) = stream.pictures
                && streams[other].pairs != stream.pairs
            {
                let reason = format!("it has {} pairs and the pictures of a stream of {}", stream.pairs, streams[other].pairs);
                return Err(StepError::Batch { stream: stream.name.clone(), reason });
            }
        }
        let rows = Side::BOTH.map(|side| Rows::of(side, streams));
        let units = units(&self.plan, streams, &rows[0], &rows[1]);
        let work = Work { streams, rows: &rows, units: &units, cancel };
        let (sums, times) =
            if self.fits_one_run([work.rows[0].len(), work.rows[1].len()]) { self.direct(&work)? } else { self.cached(&work)? };
        self.remember(streams, &sums, times);
        Ok(())
    }

    fn remember(&mut self, streams: &[StreamBatch], sums: &[f64], times: StepTimes) {
        let pending = &mut self.pending;
        pending.batches += 1;
        pending.pairs += streams.iter().map(|s| s.pairs).sum::<usize>();
        pending.times.embed += times.embed;
        pending.times.loss += times.loss;
        pending.times.backward += times.backward;
        for (i, (stream, sum)) in streams.iter().zip(sums).enumerate() {
            let loss = sum / stream.pairs as f64;
            match pending.streams.get_mut(i) {
                Some(before) => before.loss += loss,
                None => pending.streams.push(StreamLoss { name: stream.name.clone(), loss, weight: stream.weight }),
            }
        }
    }

    /// The sides that this objective embeds.
    pub(super) fn sides(&self) -> &'static [Side] {
        if self.plan.objective == Objective::Classifier { &[Side::Vision] } else { &Side::BOTH }
    }

    /// What a tower is fed for a chunk.
    pub(super) fn feeds(&self, side: Side, chunk: &Chunk, work: &Work<'_>) -> Result<Feeds, StepError> {
        let feed = |(name, feed): &(String, super::Feed)| {
            let value = work.rows[side as usize].feed(*feed, chunk, work.streams, self.sizes)?;
            Ok((format!("{}{name}", side.prefix()), value))
        };
        let feeds = self.towers[side as usize].inputs.iter().map(feed).collect::<Result<_, String>>();
        feeds.map_err(|reason| self.runtime(side.name(), reason))
    }

    pub(super) fn runtime(&self, graph: &str, reason: String) -> StepError {
        StepError::Runtime { step: self.step + 1, graph: graph.to_owned(), reason }
    }
}

fn learns(choice: TowerChoice, side: Side) -> bool {
    match choice {
        TowerChoice::Both => true,
        TowerChoice::Vision => side == Side::Vision,
        TowerChoice::Text => side == Side::Text,
        TowerChoice::Neither => false,
    }
}

fn add_adapters(
    slots: &mut Slots,
    name: &str,
    parameters: &BTreeMap<String, Tensor>,
    lora: Lora,
    random: &mut rand_chacha::ChaCha8Rng,
) -> Result<(), TrainError> {
    let shape = parameters.get(name).map(|t| t.shape().to_vec()).unwrap_or_default();
    let made = state::new_adapters(&shape, lora.rank, random);
    let made = made.ok_or_else(|| TrainError::State { name: name.to_owned(), reason: "it is no matrix".to_owned() })?;
    for (name, value) in graphs::adapters(name).iter().zip(&made) {
        slots.insert(name, value, true)?;
    }
    Ok(())
}

/// Values of an embedding.
fn embedding_size(side: Side, program: &crate::program::Program, output: &str) -> Result<usize, TrainError> {
    let graph = |source| TrainError::Graph { graph: format!("{} tower", side.name()), source };
    let kind = program.known(output).map_err(graph)?;
    match (kind.element, &kind.shape[..]) {
        (crate::graph::Element::F32, [_, dim]) => Ok(*dim),
        _ => Err(TrainError::Output { tower: side.name(), found: kind.to_string() }),
    }
}

fn check(plan: &Plan) -> Result<(), TrainError> {
    let refuse = |field, reason: String| Err(TrainError::Setting { field, reason });
    if plan.chunk == 0 {
        return refuse("chunk", "it is 0; one row at least must be run at a time".to_owned());
    }
    if !plan.max_logit_scale.is_finite() || plan.max_logit_scale <= 0.0 {
        return refuse("max_logit_scale", format!("it is {}; it must be more than zero", plan.max_logit_scale));
    }
    if !plan.loss_scale.is_finite() || plan.loss_scale < 1.0 {
        return refuse("loss_scale", format!("it is {}; it must be 1 or more", plan.loss_scale));
    }
    if let Some(problem) = plan.optimizer.problem() {
        return refuse("optimizer", problem);
    }
    if let WeightChoice::Lora(lora) = plan.train.weights
        && (lora.rank == 0 || !lora.alpha.is_finite())
    {
        return refuse("lora", format!("rank {} and alpha {}; rank must be at least 1, alpha a number", lora.rank, lora.alpha));
    }
    if plan.objective == Objective::Classifier && plan.train.towers == TowerChoice::Text {
        let reason =
            "the classifier has no use for the text tower: choose \"vision\", \"both\", or \"neither\" for the head alone";
        return refuse("train.towers", reason.to_owned());
    }
    if plan.objective != Objective::Classifier && plan.train.towers == TowerChoice::Neither {
        return refuse("train.towers", "\"neither\" leaves nothing to train: only a classifier has a head of its own".to_owned());
    }
    Ok(())
}
