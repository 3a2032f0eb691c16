//! Gradients in one run, for a batch that fits one chunk: both towers, the losses and the backward pass in one graph.

use std::time::Instant;

use super::cached::{add_gradients, add_losses, failed, not_finite, output_of, stop_if, take_outputs};
use super::compiled::{Compiled, Feeds, Machine};
use super::graphs::{self, LossShape, LossSite, Side, TowerGraph};
use super::rows::{Chunk, floats};
use super::sessions::{DirectSession, DirectShape, graph_error};
use super::trainer::{Outcome, StepTimes, Trainer, Work};
use super::{Form, InputSizes, Objective, StepError, TrainError};
use crate::program::emit::Emitted;
use crate::program::{Program, ProgramError};

/// What a direct graph is made from.
struct Recipe<'a> {
    towers: &'a [TowerGraph; 2],
    sides: &'a [Side],
    rows: [usize; 2],
    sizes: InputSizes,
    objective: Objective,
    classes: usize,
    dim: usize,
    trained: Vec<&'static str>,
}

impl Trainer {
    /// Whether the batch is to be run directly: the plan allows it, each side fits one chunk, and both towers are of one operator
    /// set.
    pub(super) fn fits_one_run(&self, rows: [usize; 2]) -> bool {
        let fits = |side: &Side| {
            let (rows, fixed) = (rows[*side as usize], self.towers[*side as usize].batch);
            rows <= self.plan.chunk && fixed.is_none_or(|fixed| fixed == rows)
        };
        if self.plan.form == Form::Cached || !self.sides().iter().all(fits) {
            return false;
        }
        let opsets: Vec<i64> = self.sides().iter().map(|side| self.towers[*side as usize].opset()).collect();
        opsets.windows(2).all(|pair| matches!(pair, [a, b] if a == b))
    }

    /// Adds the gradients of a batch that fits.
    pub(super) fn direct(&mut self, work: &Work<'_>) -> Result<Outcome, StepError> {
        stop_if(work.cancel)?;
        let start = Instant::now();
        let step = self.step + 1;
        let feeds = self.direct_feeds(work)?;
        let shape: DirectShape = work.units.iter().map(|unit| unit.pairs.clone()).collect();
        let recipe = Recipe {
            towers: &self.towers,
            sides: self.sides(),
            rows: [0, 1].map(|side| work.rows[side].len()),
            sizes: self.sizes,
            objective: self.plan.objective,
            classes: self.classes,
            dim: self.dim,
            trained: graphs::loss_parameters(self.plan.objective).iter().copied().filter(|n| self.slots.is_trained(n)).collect(),
        };
        let make = || recipe.compile(&self.machine, work);
        let session = self.sessions.direct(shape, make)?;
        let mut results = session.compiled.run(step, &self.slots, &feeds)?;
        let mut sums = vec![0.0; work.streams.len()];
        let mut bad = None;
        for (unit, name) in work.units.iter().zip(&session.per_pair) {
            let per_pair = output_of(&results, name).map_err(failed(step, "whole step"))?;
            bad = bad.or(add_losses(unit, per_pair, &mut sums));
        }
        let names = session.gradients.iter().map(|(of, name)| (of, name));
        let taken = take_outputs(&mut results, names).map_err(failed(step, "whole step"))?;
        drop(results);
        let finite = self.threads.install(|| add_gradients(&mut self.slots, taken)).map_err(failed(step, "whole step"))?;
        if bad.is_some() || !finite {
            let place = session.compiled.first_not_finite(&self.machine, &self.slots, &feeds);
            let all = || work.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
            let stream = bad.map_or_else(all, |stream| work.streams[stream].name.clone());
            return Err(not_finite(step, if bad.is_some() { "the loss" } else { "the gradient" }, stream, place));
        }
        Ok((sums, StepTimes { backward: start.elapsed(), ..StepTimes::default() }))
    }

    fn direct_feeds(&self, work: &Work<'_>) -> Result<Feeds, StepError> {
        let mut feeds: Feeds = Vec::new();
        for &side in self.sides() {
            let rows = work.rows[side as usize].len();
            feeds.extend(self.feeds(side, &Chunk { start: 0, real: rows, rows }, work)?);
        }
        let failed = |reason| self.runtime("whole step", reason);
        feeds.push(("one".to_owned(), floats([], vec![self.seed()]).map_err(failed)?));
        for (i, unit) in work.units.iter().enumerate() {
            feeds.extend(unit.feeds(self.plan.objective, self.classes, &prefix(i)).map_err(failed)?);
        }
        Ok(feeds)
    }
}

/// Before the names of what one loss of several is fed.
fn prefix(unit: usize) -> String {
    format!("loss{unit}/")
}

/// A direct graph before it is compiled; names as in [`DirectSession`].
struct Built {
    program: Program,
    per_pair: Vec<String>,
    gradients: Vec<(String, String)>,
}

impl Recipe<'_> {
    fn compile(&self, machine: &Machine, work: &Work<'_>) -> Result<DirectSession, TrainError> {
        let name = "whole step".to_owned();
        let Built { program, per_pair, gradients } = self.build(work).map_err(graph_error(&name))?;
        let outputs: Vec<&str> =
            per_pair.iter().map(String::as_str).chain(gradients.iter().map(|(_, name)| name.as_str())).collect();
        let compiled = Compiled::new(machine, name.clone(), program, &outputs, &outputs[per_pair.len()..])?;
        Ok(DirectSession { compiled, per_pair, gradients })
    }

    fn build(&self, work: &Work<'_>) -> Result<Built, ProgramError> {
        let mut p = self.towers[0].program(self.rows[0], self.sizes)?;
        if self.sides.contains(&Side::Text) {
            p.absorb(&self.towers[1].program(self.rows[1], self.sizes)?, "")?;
        }
        let towers = p.node_count();
        graphs::declare_shared(&mut p, self.objective, self.classes, self.dim)?;
        let (mut per_pair, mut total): (Vec<String>, Option<String>) = (Vec::new(), None);
        for (i, unit) in work.units.iter().enumerate() {
            let pictures: Vec<usize> = unit.pairs.iter().map(|pair| pair.1).collect();
            let captions: Vec<usize> = unit.pairs.iter().map(|pair| pair.2).collect();
            let images = take_rows(&mut p, &self.towers[0].output, &pictures)?;
            let texts = match self.sides.contains(&Side::Text) {
                true => take_rows(&mut p, &self.towers[1].output, &captions)?,
                false => String::new(),
            };
            let shape = LossShape { pairs: unit.pairs.len(), classes: self.classes };
            let site = LossSite { images: &images, texts: &texts, prefix: &prefix(i) };
            let (each, sum) = graphs::append_loss(&mut p, self.objective, shape, &site)?;
            per_pair.push(each);
            total = Some(match total {
                Some(before) => p.add(&before, &sum)?,
                None => sum,
            });
        }
        p.keep_wide(towers);
        let Some(total) = total else { return Ok(Built { program: p, per_pair, gradients: Vec::new() }) };
        let towers = self.sides.iter().flat_map(|side| self.towers[*side as usize].trained.iter().map(String::as_str));
        let of: Vec<&str> = towers.chain(self.trained.iter().copied()).collect();
        let recompute = self.towers[0].recompute;
        let gradients = graphs::differentiate(&mut p, (&total, "one"), &of, recompute)?.into_iter().collect();
        Ok(Built { program: p, per_pair, gradients })
    }
}

/// Rows of a matrix, as little work as they need: all of them, a range, or picked one by one.
fn take_rows(p: &mut Program, x: &str, rows: &[usize]) -> Emitted {
    let count = p.shape(x)?[0];
    let run = rows.iter().enumerate().all(|(i, &row)| row == rows[0] + i);
    match (run, rows.first()) {
        (true, Some(0)) if rows.len() == count => Ok(x.to_owned()),
        (true, Some(&first)) => p.slice(x, 0, first, first + rows.len()),
        _ => {
            let ids = p.ints(&crate::program::emit::signed(rows));
            p.emit("Gather", &[x, &ids], &[("axis", crate::graph::Attribute::Int(0))])
        }
    }
}
