//! The step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anchorite_encoder::session::Engine;
use ort::value::DynValue;

use super::compiled::{Compiled, Feeds, Machine};
use super::estimate::{self, Estimate};
use super::graphs::{self, BIAS, HEAD, LOG_SCALE, LossShape, Side, TowerGraph};
use super::rows::{Chunk, Rows, floats};
use super::slots::Slots;
use super::state::{self, Shell, TrainState};
use super::units::{Unit, check_labels, units};
use super::{InputSizes, Objective, Plan, StepError, StreamBatch, Towers, TrainError};
use crate::Limits;
use crate::graph::{Model, Tensor};
use crate::select::{self, Lora, TowerChoice, WeightChoice};

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
    plan: Plan,
    sizes: InputSizes,
    limits: Limits,
    machine: Machine,
    towers: [TowerGraph; 2],
    shells: [Shell; 2],
    slots: Slots,
    dim: usize,
    classes: usize,
    step: u64,
    pending: Pending,
    threads: rayon::ThreadPool,
    embed: BTreeMap<(Side, usize), Compiled>,
    backward: BTreeMap<(Side, usize), (Compiled, Vec<String>)>,
    losses: BTreeMap<LossShape, LossSession>,
    estimate: Estimate,
}

/// A loss graph in ONNX Runtime, and what its outputs are called.
#[derive(Debug)]
struct LossSession {
    compiled: Compiled,
    per_pair: String,
    images: String,
    texts: Option<String>,
    others: Vec<(&'static str, String)>,
}

impl Trainer {
    /// Derives the graphs of both towers and makes room for what is trained. Sessions are made by the first step that needs them.
    ///
    /// # Errors
    /// [`TrainError`]: a tower that cannot be differentiated, a choice of parameters that leaves nothing, a setting out of range.
    pub fn new(towers: Towers, plan: &Plan, sizes: InputSizes, engine: &Engine, limits: &Limits) -> Result<Self, TrainError> {
        check(plan, &towers)?;
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
            parts.push((TowerGraph::new(side, &tower, full.parameters(), chosen, lora, limits).map_err(failed)?, shell));
        }
        let [vision, text] = <[_; 2]>::try_from(dims).unwrap_or_default();
        if vision != text {
            return Err(TrainError::Mismatch { vision, text });
        }
        let scalar = |value: f32| Tensor::from_f32([], &[value]).unwrap_or_else(|| Tensor::list(&[]));
        let scale_learns = plan.train.logit_scale && !classifier;
        slots.insert(LOG_SCALE, &scalar(towers.log_scale), scale_learns)?;
        slots.insert(BIAS, &scalar(towers.bias), scale_learns && plan.objective == Objective::Sigmoid)?;
        let classes = towers.head.as_ref().map_or(0, |head| head.shape()[0]);
        if let Some(head) = towers.head.as_ref().filter(|_| classifier) {
            slots.insert(HEAD, head, true)?;
        }
        let threads = rayon::ThreadPoolBuilder::new().num_threads(plan.threads).build();
        let threads = threads.map_err(|e| TrainError::Threads { reason: e.to_string() })?;
        let (towers, shells): (Vec<TowerGraph>, Vec<Shell>) = parts.into_iter().unzip();
        let [vision_graph, text_graph] = <[TowerGraph; 2]>::try_from(towers).expect("one graph was made for each side");
        let shells = <[Shell; 2]>::try_from(shells).expect("one shell was made for each side");
        let largest = estimate::activations(&vision_graph, vision_graph.batch.unwrap_or(plan.chunk), sizes)?
            .max(estimate::activations(&text_graph, text_graph.batch.unwrap_or(plan.chunk), sizes)?);
        Ok(Self {
            estimate: Estimate::new(slots.counts(), largest),
            plan: plan.clone(),
            sizes,
            limits: limits.clone(),
            machine: Machine { engine: engine.clone(), threads: plan.threads },
            towers: [vision_graph, text_graph],
            shells,
            slots,
            dim: vision,
            classes,
            step: 0,
            pending: Pending::default(),
            threads,
            embed: BTreeMap::new(),
            backward: BTreeMap::new(),
            losses: BTreeMap::new(),
        })
    }

    /// What training takes, stated before any session is made.
    #[must_use]
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
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
        let result = self.try_accumulate(streams, cancel);
        if result.is_err() {
            self.discard();
        }
        result
    }

    /// Forgets what was accumulated.
    pub fn discard(&mut self) {
        self.pending = Pending::default();
        let slots = &mut self.slots;
        self.threads.install(|| slots.clear_gradients());
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
        let mean = 1.0 / pending.batches as f64;
        let slots = &mut self.slots;
        let norm = self.threads.install(|| slots.gradient_norm()) * mean;
        if !norm.is_finite() {
            self.discard();
            let stream = pending.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let place = "the sum over chunks".to_owned();
            return Err(StepError::NotFinite { step: self.step + 1, what: "the gradient", stream, place });
        }
        let clip = crate::optim::clip_factor(norm, self.plan.optimizer.clip_norm);
        self.step += 1;
        let update = self.plan.optimizer.update(self.step, rate, mean * clip);
        self.threads.install(|| {
            slots.update(&update);
            slots.clear_gradients();
        });
        let limit = self.plan.max_logit_scale.ln() as f32;
        let log_scale = self.slots.scalar(LOG_SCALE).unwrap_or_default();
        if self.plan.train.logit_scale && log_scale > limit {
            self.slots.set_scalar(LOG_SCALE, limit);
        }
        let streams: Vec<StreamLoss> = pending.streams.into_iter().map(|s| StreamLoss { loss: s.loss * mean, ..s }).collect();
        let mut times = pending.times;
        times.update = start.elapsed();
        Ok(StepReport {
            step: self.step,
            loss: streams.iter().map(|s| s.loss * f64::from(s.weight)).sum(),
            streams,
            gradient_norm: norm,
            logit_scale: f64::from(self.slots.scalar(LOG_SCALE).unwrap_or_default()).exp(),
            pairs: pending.pairs,
            times,
        })
    }

    /// Gradients that wait for the update, by name: sums over the accumulated batches.
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

    /// What cosines are multiplied with now.
    #[must_use]
    pub fn logit_scale(&self) -> f64 {
        f64::from(self.slots.scalar(LOG_SCALE).unwrap_or_default()).exp()
    }

    /// Embeddings of all pictures and captions as the towers are now, `[rows, values]` each, streams one after another; not brought to
    /// unit length.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn embeddings(&mut self, streams: &[StreamBatch], cancel: &AtomicBool) -> Result<[Vec<f32>; 2], StepError> {
        for (i, stream) in streams.iter().enumerate() {
            stream.check(i, self.sizes, true)?;
        }
        let [images, texts] = Side::BOTH.map(|side| Rows::of(side, streams));
        Ok([self.embed(Side::Vision, &images, streams, cancel)?, self.embed(Side::Text, &texts, streams, cancel)?])
    }

    fn try_accumulate(&mut self, streams: &[StreamBatch], cancel: &AtomicBool) -> Result<(), StepError> {
        let captions = self.plan.objective != Objective::Classifier;
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
        let mut times = StepTimes::default();

        let start = Instant::now();
        let mut embeddings = [Vec::new(), Vec::new()];
        for side in Side::BOTH.into_iter().filter(|side| captions || *side == Side::Vision) {
            embeddings[side as usize] = self.embed(side, &rows[side as usize], streams, cancel)?;
        }
        times.embed = start.elapsed();

        let start = Instant::now();
        let mut seeds = [vec![0.0; embeddings[0].len()], vec![0.0; embeddings[1].len()]];
        let mut sums = vec![0.0_f64; streams.len()];
        for unit in &units {
            self.loss(unit, &embeddings, &rows, streams, (&mut seeds, &mut sums))?;
        }
        times.loss = start.elapsed();

        let start = Instant::now();
        for side in Side::BOTH.into_iter().filter(|side| captions || *side == Side::Vision) {
            self.back(side, &rows[side as usize], streams, &seeds[side as usize], cancel)?;
        }
        times.backward = start.elapsed();
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

    fn feeds(&self, side: Side, rows: &Rows, chunk: &Chunk, streams: &[StreamBatch]) -> Result<Feeds, StepError> {
        let tower = &self.towers[side as usize];
        let feed = |(name, feed): &(String, super::Feed)| {
            let value = rows.feed(*feed, chunk, streams, self.sizes)?;
            Ok((format!("{}{name}", side.prefix()), value))
        };
        tower.inputs.iter().map(feed).collect::<Result<_, String>>().map_err(|reason| self.runtime(side.name(), reason))
    }

    fn runtime(&self, graph: &str, reason: String) -> StepError {
        StepError::Runtime { step: self.step + 1, graph: graph.to_owned(), reason }
    }

    /// Embeddings of all rows, `[rows, values]`.
    fn embed(&mut self, side: Side, rows: &Rows, streams: &[StreamBatch], cancel: &AtomicBool) -> Result<Vec<f32>, StepError> {
        let mut all = Vec::with_capacity(rows.len() * self.dim);
        for chunk in rows.chunks(self.plan.chunk, self.towers[side as usize].batch) {
            stop_if(cancel)?;
            let feeds = self.feeds(side, rows, &chunk, streams)?;
            self.make_embed(side, chunk.rows)?;
            let (step, output) = (self.step + 1, &self.towers[side as usize].output);
            let compiled = self.embed.get_mut(&(side, chunk.rows)).expect("made above");
            let name = compiled.name().to_owned();
            let results = compiled.run(step, &self.slots, &feeds)?;
            let values = output_of(&results, output).map_err(|reason| StepError::Runtime { step, graph: name, reason })?;
            let real = &values[..chunk.real * self.dim];
            let finite = real.iter().all(|v| v.is_finite());
            all.extend_from_slice(real);
            drop(results);
            if !finite {
                let place = self.embed[&(side, chunk.rows)].first_not_finite(&self.machine, &self.slots, &feeds);
                return Err(self.not_finite("the embedding", rows.names(&chunk, streams), place, side));
            }
        }
        Ok(all)
    }

    fn not_finite(&self, what: &'static str, stream: String, place: Option<String>, side: Side) -> StepError {
        let place = place.unwrap_or_else(|| format!("the {} tower; running it again gave finite values", side.name()));
        StepError::NotFinite { step: self.step + 1, what, stream, place }
    }

    fn make_embed(&mut self, side: Side, rows: usize) -> Result<(), TrainError> {
        if self.embed.contains_key(&(side, rows)) {
            return Ok(());
        }
        let tower = &self.towers[side as usize];
        let name = format!("{} tower", side.name());
        let program = tower.program(rows, self.sizes).map_err(|source| TrainError::Graph { graph: name.clone(), source })?;
        let compiled = Compiled::new(&self.machine, name, program, &[&tower.output])?;
        self.embed.insert((side, rows), compiled);
        Ok(())
    }

    fn make_backward(&mut self, side: Side, rows: usize) -> Result<(), TrainError> {
        if self.backward.contains_key(&(side, rows)) {
            return Ok(());
        }
        let tower = &self.towers[side as usize];
        let name = format!("{} tower's gradient", side.name());
        let failed = |source| TrainError::Graph { graph: name.clone(), source };
        let mut program = tower.program(rows, self.sizes).map_err(failed)?;
        let gradients = tower.backward(&mut program).map_err(failed)?;
        let outputs: Vec<&str> = gradients.iter().map(String::as_str).collect();
        let compiled = Compiled::new(&self.machine, name.clone(), program, &outputs)?;
        self.backward.insert((side, rows), (compiled, gradients));
        Ok(())
    }

    /// One unit's loss; adds gradients of embeddings to the seeds and losses to the streams' sums.
    fn loss(
        &mut self,
        unit: &Unit,
        embeddings: &[Vec<f32>; 2],
        rows: &[Rows; 2],
        streams: &[StreamBatch],
        (seeds, sums): (&mut [Vec<f32>; 2], &mut [f64]),
    ) -> Result<(), StepError> {
        let step = self.step + 1;
        let (n, dim) = (unit.pairs.len(), self.dim);
        let objective = self.plan.objective;
        let shape = LossShape { pairs: n, classes: if objective == Objective::Classifier { self.classes } else { 0 } };
        self.make_loss(shape)?;
        let row = |side: usize, at: usize| &embeddings[side][at * dim..(at + 1) * dim];
        let gathered = |side: usize| -> Result<DynValue, String> {
            let rows = unit.pairs.iter().flat_map(|&(_, image, text)| row(side, [image, text][side]).iter().copied());
            floats([n, dim], rows.collect())
        };
        let build = || {
            let mut feeds = unit.feeds(objective, self.classes)?;
            feeds.push(("images".to_owned(), gathered(0)?));
            if objective != Objective::Classifier {
                feeds.push(("texts".to_owned(), gathered(1)?));
            }
            Ok(feeds)
        };
        let feeds = build().map_err(|reason: String| self.runtime("loss", reason))?;
        let session = self.losses.get_mut(&shape).expect("made above");
        let failed = |reason| StepError::Runtime { step, graph: "loss".to_owned(), reason };
        let results = session.compiled.run(step, &self.slots, &feeds)?;
        let per_pair = output_of(&results, &session.per_pair).map_err(failed)?;
        let mut bad: Option<usize> = None;
        for (&(stream, ..), &loss) in unit.pairs.iter().zip(per_pair) {
            sums[stream] += f64::from(loss);
            bad = bad.or((!loss.is_finite()).then_some(stream));
        }
        let sides = [Some(&session.images), session.texts.as_ref()];
        for (side, name) in sides.into_iter().enumerate() {
            let Some(name) = name else { continue };
            let values = output_of(&results, name).map_err(failed)?;
            for (&(stream, image, text), gradient) in unit.pairs.iter().zip(values.chunks_exact(dim)) {
                let at = [image, text][side] * dim;
                seeds[side][at..at + dim].iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                bad = bad.or((!gradient.iter().all(|g| g.is_finite())).then_some(stream));
            }
        }
        for (of, name) in &session.others {
            let values = output_of(&results, name).map_err(failed)?;
            self.slots.add_gradient(of, values);
        }
        drop(results);
        let Some(stream) = bad else { return Ok(()) };
        let place = session.compiled.first_not_finite(&self.machine, &self.slots, &feeds);
        let place = place.unwrap_or_else(|| "the loss; running it again gave finite values".to_owned());
        // Rows are asked for their streams only where chunks mix them; here the pair itself says.
        debug_assert!(rows.iter().all(|rows| rows.starts.len() == streams.len()));
        Err(StepError::NotFinite { step, what: "the loss", stream: streams[stream].name.clone(), place })
    }

    fn make_loss(&mut self, shape: LossShape) -> Result<(), TrainError> {
        if self.losses.contains_key(&shape) {
            return Ok(());
        }
        let graph = graphs::loss_graph(self.plan.objective, shape, self.dim, &self.limits)?;
        let outputs: Vec<&str> = [graph.per_pair.as_str(), &graph.images]
            .into_iter()
            .chain(graph.texts.as_deref())
            .chain(graph.others.iter().map(|(_, name)| name.as_str()))
            .collect();
        let compiled = Compiled::new(&self.machine, "loss".to_owned(), graph.program.clone(), &outputs)?;
        let session =
            LossSession { compiled, per_pair: graph.per_pair, images: graph.images, texts: graph.texts, others: graph.others };
        self.losses.insert(shape, session);
        Ok(())
    }

    /// Forward again and backward through a tower; adds to the parameters' gradients.
    fn back(
        &mut self,
        side: Side,
        rows: &Rows,
        streams: &[StreamBatch],
        seeds: &[f32],
        cancel: &AtomicBool,
    ) -> Result<(), StepError> {
        if self.towers[side as usize].trained.is_empty() {
            return Ok(());
        }
        let step = self.step + 1;
        for chunk in rows.chunks(self.plan.chunk, self.towers[side as usize].batch) {
            stop_if(cancel)?;
            let mut feeds = self.feeds(side, rows, &chunk, streams)?;
            let mut seed = seeds[chunk.start * self.dim..(chunk.start + chunk.real) * self.dim].to_vec();
            seed.resize(chunk.rows * self.dim, 0.0);
            let seed = floats([chunk.rows, self.dim], seed).map_err(|reason| self.runtime(side.name(), reason))?;
            feeds.push((graphs::seed(side), seed));
            self.make_backward(side, chunk.rows)?;
            let (compiled, gradients) = self.backward.get_mut(&(side, chunk.rows)).expect("made above");
            let name = compiled.name().to_owned();
            let slots = &mut self.slots;
            let mut results = compiled.run(step, slots, &feeds)?;
            let mut taken: Vec<(&String, DynValue)> = Vec::with_capacity(gradients.len());
            for (of, output) in self.towers[side as usize].trained.iter().zip(gradients.iter()) {
                let missing = || StepError::Runtime { step, graph: name.clone(), reason: format!("it gave no {output:?}") };
                taken.push((of, results.remove(output).ok_or_else(missing)?));
            }
            drop(results);
            let mut finite = true;
            for (of, value) in taken {
                let failed = |e: ort::Error| StepError::Runtime { step, graph: name.clone(), reason: e.to_string() };
                let values = value.try_extract_tensor::<f32>().map_err(failed)?.1;
                finite &= self.threads.install(|| slots.add_gradient(of, values));
            }
            if !finite {
                let place = self.backward[&(side, chunk.rows)].0.first_not_finite(&self.machine, &self.slots, &feeds);
                return Err(self.not_finite("the gradient", rows.names(&chunk, streams), place, side));
            }
        }
        Ok(())
    }
}

fn output_of<'r>(results: &'r ort::session::SessionOutputs<'_>, name: &str) -> Result<&'r [f32], String> {
    let value = results.get(name).ok_or_else(|| format!("it gave no {name:?}"))?;
    value.try_extract_tensor::<f32>().map(|(_, values)| values).map_err(|e| e.to_string())
}

fn stop_if(cancel: &AtomicBool) -> Result<(), StepError> {
    if cancel.load(Ordering::Relaxed) { Err(StepError::Cancelled) } else { Ok(()) }
}

fn learns(choice: TowerChoice, side: Side) -> bool {
    match choice {
        TowerChoice::Both => true,
        TowerChoice::Vision => side == Side::Vision,
        TowerChoice::Text => side == Side::Text,
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

fn check(plan: &Plan, towers: &Towers) -> Result<(), TrainError> {
    let refuse = |field, reason: String| Err(TrainError::Setting { field, reason });
    if plan.chunk == 0 {
        return refuse("chunk", "it is 0; one row at least must be run at a time".to_owned());
    }
    if !plan.max_logit_scale.is_finite() || plan.max_logit_scale <= 0.0 {
        return refuse("max_logit_scale", format!("it is {}; it must be more than zero", plan.max_logit_scale));
    }
    if let Some(problem) = plan.optimizer.problem() {
        return refuse("optimizer", problem);
    }
    if let WeightChoice::Lora(lora) = plan.train.weights
        && (lora.rank == 0 || !lora.alpha.is_finite())
    {
        return refuse("lora", format!("rank {} and alpha {}; rank must be at least 1, alpha a number", lora.rank, lora.alpha));
    }
    match (plan.objective, &towers.head) {
        (Objective::Classifier, None) => refuse("objective", "the classifier needs a head".to_owned()),
        (Objective::Classifier, Some(head)) if head.shape().len() != 2 => {
            refuse("head", format!("it is {}; it must be [classes, values]", head.kind()))
        }
        _ => Ok(()),
    }
}
