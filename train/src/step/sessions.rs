//! Graphs made so far, by their shape: a run sees few shapes again and again, and making a session takes seconds.

use std::collections::{BTreeMap, btree_map::Entry};

use super::TrainError;
use super::compiled::{Compiled, Machine};
use super::graphs::{LossShape, Side, TowerGraph, loss_graph};
use super::{InputSizes, Objective};
use crate::Limits;
use crate::program::ProgramError;

/// Direct graphs kept: full batches and the last, shorter one of an epoch, in two compositions.
const DIRECT_KEPT: usize = 4;

/// Graphs in ONNX Runtime.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    embed: BTreeMap<(Side, usize), Compiled>,
    backward: BTreeMap<(Side, usize), Backward>,
    losses: BTreeMap<LossShape, LossSession>,
    direct: BTreeMap<DirectShape, DirectSession>,
}

/// A tower's gradient.
#[derive(Debug)]
pub(super) struct Backward {
    pub(super) compiled: Compiled,
    /// Outputs, in the order of the tower's trained parameters.
    pub(super) gradients: Vec<String>,
}

/// A loss between embeddings that are fed.
#[derive(Debug)]
pub(super) struct LossSession {
    pub(super) compiled: Compiled,
    pub(super) per_pair: String,
    pub(super) gradients: BTreeMap<String, String>,
}

/// Pairs of each loss as (stream, picture row, caption row): what makes one direct graph another.
pub(super) type DirectShape = Vec<Vec<(usize, usize, usize)>>;

/// Both towers, losses and gradients in one graph.
#[derive(Debug)]
pub(super) struct DirectSession {
    pub(super) compiled: Compiled,
    /// For each loss, its output of one value a pair.
    pub(super) per_pair: Vec<String>,
    /// Gradients by the name of what they are of.
    pub(super) gradients: Vec<(String, String)>,
}

pub(super) fn graph_error(graph: &str) -> impl Fn(ProgramError) -> TrainError + '_ {
    move |source| TrainError::Graph { graph: graph.to_owned(), source }
}

impl Sessions {
    /// A tower's embedding for so many rows.
    pub(super) fn embed(
        &mut self,
        machine: &Machine,
        tower: &TowerGraph,
        rows: usize,
        sizes: InputSizes,
    ) -> Result<&mut Compiled, TrainError> {
        match self.embed.entry((tower.side, rows)) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => {
                let name = format!("{} tower", tower.side.name());
                let program = tower.program(rows, sizes).map_err(graph_error(&name))?;
                Ok(place.insert(Compiled::new(machine, name, program, &[&tower.output], &[])?))
            }
        }
    }

    /// A tower's gradient for so many rows.
    pub(super) fn backward(
        &mut self,
        machine: &Machine,
        tower: &TowerGraph,
        rows: usize,
        sizes: InputSizes,
    ) -> Result<&mut Backward, TrainError> {
        match self.backward.entry((tower.side, rows)) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => {
                let name = format!("{} tower's gradient", tower.side.name());
                let mut program = tower.program(rows, sizes).map_err(graph_error(&name))?;
                let gradients = tower.backward(&mut program, tower.recompute).map_err(graph_error(&name))?;
                let outputs: Vec<&str> = gradients.iter().map(String::as_str).collect();
                let compiled = Compiled::new(machine, name, program, &outputs, &outputs)?;
                Ok(place.insert(Backward { compiled, gradients }))
            }
        }
    }

    /// The loss of so many pairs.
    pub(super) fn loss(
        &mut self,
        machine: &Machine,
        (objective, shape): (Objective, LossShape),
        dim: usize,
        limits: &Limits,
    ) -> Result<&mut LossSession, TrainError> {
        match self.losses.entry(shape) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => {
                let graph = loss_graph(objective, shape, dim, limits).map_err(graph_error("loss"))?;
                let outputs: Vec<&str> =
                    std::iter::once(graph.per_pair.as_str()).chain(graph.gradients.values().map(String::as_str)).collect();
                let mut program = graph.program.clone();
                program.keep_wide(0);
                let compiled = Compiled::new(machine, "loss".to_owned(), program, &outputs, &[])?;
                Ok(place.insert(LossSession { compiled, per_pair: graph.per_pair, gradients: graph.gradients }))
            }
        }
    }

    /// The direct graph of a shape, made by `make` where there is none.
    pub(super) fn direct(
        &mut self,
        shape: DirectShape,
        make: impl FnOnce() -> Result<DirectSession, TrainError>,
    ) -> Result<&mut DirectSession, TrainError> {
        if self.direct.len() >= DIRECT_KEPT && !self.direct.contains_key(&shape) {
            self.direct.clear();
        }
        match self.direct.entry(shape) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(make()?)),
        }
    }
}
