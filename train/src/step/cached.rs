//! Gradients chunk by chunk: embed all, loss on all embeddings, forward again and backward.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ort::session::SessionOutputs;
use ort::value::DynValue;

use super::StepError;
use super::compiled::Feeds;
use super::graphs::{self, LossShape, Side};
use super::rows::floats;
use super::slots::Slots;
use super::trainer::{Outcome, StepTimes, Trainer, Work};
use super::units::Unit;

impl Trainer {
    /// Adds the gradients of a batch, whatever its size.
    pub(super) fn cached(&mut self, work: &Work<'_>) -> Result<Outcome, StepError> {
        let mut times = StepTimes::default();
        let start = Instant::now();
        let mut embeddings = [Vec::new(), Vec::new()];
        for &side in self.sides() {
            embeddings[side as usize] = self.embed(side, work)?;
        }
        times.embed = start.elapsed();
        let start = Instant::now();
        let mut seeds = [vec![0.0; embeddings[0].len()], vec![0.0; embeddings[1].len()]];
        let mut sums = vec![0.0_f64; work.streams.len()];
        for unit in work.units {
            self.loss(unit, &embeddings, work, (&mut seeds, &mut sums))?;
        }
        times.loss = start.elapsed();
        let start = Instant::now();
        for &side in self.sides() {
            self.back(side, &seeds[side as usize], work)?;
        }
        times.backward = start.elapsed();
        Ok((sums, times))
    }

    /// Embeddings of all rows, `[rows, values]`.
    pub(super) fn embed(&mut self, side: Side, work: &Work<'_>) -> Result<Vec<f32>, StepError> {
        let rows = &work.rows[side as usize];
        let (step, dim) = (self.step + 1, self.dim);
        let mut all = Vec::with_capacity(rows.len() * dim);
        for chunk in rows.chunks(self.plan.chunk, self.towers[side as usize].batch) {
            stop_if(work.cancel)?;
            let feeds = self.feeds(side, &chunk, work)?;
            let tower = &self.towers[side as usize];
            let compiled = self.sessions.embed(&self.machine, tower, chunk.rows, self.sizes)?;
            let results = compiled.run(step, &self.slots, &feeds)?;
            let values = output_of(&results, &tower.output).map_err(failed(step, side.name()))?;
            let real = &values[..chunk.real * dim];
            let finite = real.iter().all(|v| v.is_finite());
            all.extend_from_slice(real);
            drop(results);
            if !finite {
                let place = compiled.first_not_finite(&self.machine, &self.slots, &feeds);
                return Err(not_finite(step, "the embedding", rows.names(&chunk, work.streams), place));
            }
        }
        Ok(all)
    }

    /// One loss; adds gradients of embeddings to the seeds, and losses to the streams' sums.
    fn loss(
        &mut self,
        unit: &Unit,
        embeddings: &[Vec<f32>; 2],
        work: &Work<'_>,
        (seeds, sums): (&mut [Vec<f32>; 2], &mut [f64]),
    ) -> Result<(), StepError> {
        let (step, dim, n, seed) = (self.step + 1, self.dim, unit.pairs.len(), self.seed());
        let shape = LossShape { pairs: n, classes: self.classes };
        let gathered = |side: Side| -> Result<DynValue, String> {
            let row = |pair: &(usize, usize, usize)| {
                let at = row_of(pair, side) * dim;
                embeddings[side as usize][at..at + dim].iter().copied()
            };
            floats([n, dim], unit.pairs.iter().flat_map(row).collect())
        };
        let names = [(Side::Vision, "images"), (Side::Text, "texts")];
        let embedded = || names.into_iter().filter(|(side, _)| self.sides().contains(side));
        let build = || {
            let mut feeds = unit.feeds(self.plan.objective, self.classes, "")?;
            feeds.push(("one".to_owned(), floats([], vec![seed])?));
            for (side, name) in embedded() {
                feeds.push((name.to_owned(), gathered(side)?));
            }
            Ok(feeds)
        };
        let feeds: Feeds = build().map_err(failed(step, "loss"))?;
        let sides: Vec<(Side, &str)> = embedded().collect();
        let session = self.sessions.loss(&self.machine, (self.plan.objective, shape), dim, &self.limits)?;
        let mut results = session.compiled.run(step, &self.slots, &feeds)?;
        let per_pair = output_of(&results, &session.per_pair).map_err(failed(step, "loss"))?;
        let mut bad = add_losses(unit, per_pair, sums);
        for (side, name) in sides {
            let values = output_of(&results, &session.gradients[name]).map_err(failed(step, "loss"))?;
            for (pair, gradient) in unit.pairs.iter().zip(values.chunks_exact(dim)) {
                let at = row_of(pair, side) * dim;
                seeds[side as usize][at..at + dim].iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                bad = bad.or((!gradient.iter().all(|g| g.is_finite())).then_some(pair.0));
            }
        }
        for name in graphs::loss_parameters(self.plan.objective) {
            let of = [(&(*name).to_owned(), &session.gradients[*name])];
            let taken = take_outputs(&mut results, of.into_iter()).map_err(failed(step, "loss"))?;
            add_gradients(&mut self.slots, taken).map_err(failed(step, "loss"))?;
        }
        drop(results);
        let Some(stream) = bad else { return Ok(()) };
        let place = session.compiled.first_not_finite(&self.machine, &self.slots, &feeds);
        Err(not_finite(step, "the loss", work.streams[stream].name.clone(), place))
    }

    /// Forward again and backward through a tower; adds to the parameters' gradients.
    fn back(&mut self, side: Side, seeds: &[f32], work: &Work<'_>) -> Result<(), StepError> {
        let (step, dim) = (self.step + 1, self.dim);
        if self.towers[side as usize].trained.is_empty() {
            return Ok(());
        }
        let rows = &work.rows[side as usize];
        for chunk in rows.chunks(self.plan.chunk, self.towers[side as usize].batch) {
            stop_if(work.cancel)?;
            let mut feeds = self.feeds(side, &chunk, work)?;
            let mut seed = seeds[chunk.start * dim..(chunk.start + chunk.real) * dim].to_vec();
            // Copies that fill up the last chunk carry no gradient.
            seed.resize(chunk.rows * dim, 0.0);
            let seed = floats([chunk.rows, dim], seed).map_err(failed(step, side.name()))?;
            feeds.push((graphs::seed(side), seed));
            let tower = &self.towers[side as usize];
            let session = self.sessions.backward(&self.machine, tower, chunk.rows, self.sizes)?;
            let mut results = session.compiled.run(step, &self.slots, &feeds)?;
            let names = tower.trained.iter().zip(&session.gradients);
            let taken = take_outputs(&mut results, names).map_err(failed(step, side.name()))?;
            drop(results);
            let finite = self.threads.install(|| add_gradients(&mut self.slots, taken)).map_err(failed(step, side.name()))?;
            if !finite {
                let place = session.compiled.first_not_finite(&self.machine, &self.slots, &feeds);
                return Err(not_finite(step, "the gradient", rows.names(&chunk, work.streams), place));
            }
        }
        Ok(())
    }
}

/// A pair's row among the embedded pictures or captions.
fn row_of(pair: &(usize, usize, usize), side: Side) -> usize {
    match side {
        Side::Vision => pair.1,
        Side::Text => pair.2,
    }
}

/// Adds each pair's loss to its stream's sum; gives the first stream whose loss is not finite.
pub(super) fn add_losses(unit: &Unit, per_pair: &[f32], sums: &mut [f64]) -> Option<usize> {
    let mut bad = None;
    for (&(stream, ..), &loss) in unit.pairs.iter().zip(per_pair) {
        sums[stream] += f64::from(loss);
        bad = bad.or((!loss.is_finite()).then_some(stream));
    }
    bad
}

/// Outputs of a run, each with the name of what it is the gradient of.
pub(super) fn take_outputs<'n>(
    results: &mut SessionOutputs<'_>,
    names: impl Iterator<Item = (&'n String, &'n String)>,
) -> Result<Vec<(&'n String, DynValue)>, String> {
    names.map(|(of, name)| Ok((of, results.remove(name).ok_or_else(|| format!("it gave no {name:?}"))?))).collect()
}

/// Adds gradients; gives whether all were finite.
pub(super) fn add_gradients(slots: &mut Slots, gradients: Vec<(&String, DynValue)>) -> Result<bool, String> {
    let mut finite = true;
    for (of, value) in gradients {
        finite &= slots.add_gradient(of, value)?;
    }
    Ok(finite)
}

pub(super) fn output_of<'r>(results: &'r SessionOutputs<'_>, name: &str) -> Result<&'r [f32], String> {
    let value = results.get(name).ok_or_else(|| format!("it gave no {name:?}"))?;
    value.try_extract_tensor::<f32>().map(|(_, values)| values).map_err(|e| e.to_string())
}

pub(super) fn failed(step: u64, graph: &str) -> impl Fn(String) -> StepError + '_ {
    move |reason| StepError::Runtime { step, graph: graph.to_owned(), reason }
}

pub(super) fn not_finite(step: u64, what: &'static str, stream: String, place: Option<String>) -> StepError {
    let place = place.unwrap_or_else(|| "no node: running it again gave finite values".to_owned());
    StepError::NotFinite { step, what, stream, place }
}

pub(super) fn stop_if(cancel: &AtomicBool) -> Result<(), StepError> {
    if cancel.load(Ordering::Relaxed) { Err(StepError::Cancelled) } else { Ok(()) }
}
