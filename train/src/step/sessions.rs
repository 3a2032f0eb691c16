//! Graphs made so far, by their shape: a run sees few shapes again and again, and making a session takes seconds.

use std::collections::BTreeMap;

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
        let key = (tower.side, rows);
        if !self.embed.contains_key(&key) {
            let name = format!("{} tower", tower.side.name());
            let program = tower.program(rows, sizes).map_err(graph_error(&name))?;
            self.embed.insert(key, Compiled::new(machine, name, program, &[&tower.output])?);
        }
        Ok(self.embed.get_mut(&key).expect("it is there or was made above"))
    }

    /// A tower's gradient for so many rows.
    pub(super) fn backward(
        &mut self,
        machine: &Machine,
        tower: &TowerGraph,
        rows: usize,
        sizes: InputSizes,
    ) -> Result<&mut Backward, TrainError> {
        let key = (tower.side, rows);
        if !self.backward.contains_key(&key) {
            let name = format!("{} tower's gradient", tower.side.name());
            let mut program = tower.program(rows, sizes).map_err(graph_error(&name))?;
            let gradients = tower.backward(&mut program).map_err(graph_error(&name))?;
            let outputs: Vec<&str> = gradients.iter().map(String::as_str).collect();
            let compiled = Compiled::new(machine, name, program, &outputs)?;
            self.backward.insert(key, Backward { compiled, gradients });
        }
        Ok(self.backward.get_mut(&key).expect("it is there or was made above"))
    }

    /// The loss of so many pairs.
    pub(super) fn loss(
        &mut self,
        machine: &Machine,
        (objective, shape): (Objective, LossShape),
        dim: usize,
        limits: &Limits,
    ) -> Result<&mut LossSession, TrainError> {
        if !self.losses.contains_key(&shape) {
            let graph = loss_graph(objective, shape, dim, limits).map_err(graph_error("loss"))?;
            let outputs: Vec<&str> =
                std::iter::once(graph.per_pair.as_str()).chain(graph.gradients.values().map(String::as_str)).collect();
            let compiled = Compiled::new(machine, "loss".to_owned(), graph.program.clone(), &outputs)?;
            let session = LossSession { compiled, per_pair: graph.per_pair, gradients: graph.gradients };
            self.losses.insert(shape, session);
        }
        Ok(self.losses.get_mut(&shape).expect("it is there or was made above"))
    }

    /// The direct graph of a shape, made by `make` where there is none.
    pub(super) fn direct(
        &mut self,
        shape: DirectShape,
        make: impl FnOnce() -> Result<DirectSession, TrainError>,
    ) -> Result<&mut DirectSession, TrainError> {
        if !self.direct.contains_key(&shape) {
            if self.direct.len() >= DIRECT_KEPT {
                self.direct.clear();
            }
            self.direct.insert(shape.clone(), make()?);
        }
        Ok(self.direct.get_mut(&shape).expect("it is there or was made above"))
    }
}
