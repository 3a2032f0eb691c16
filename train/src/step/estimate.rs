//! Parameters and memory, ahead of time.

use super::graphs::{LossShape, TowerGraph, loss_graph};
use super::{InputSizes, Objective, Recompute, TrainError};
use crate::Limits;

/// What training will take. Bytes are of tensors; the process itself, its libraries and the runtime's own overhead come on top: a process took
/// 1.16 times this for a ViT of 6 million parameters, up to 1.9 times for graphs of a few megabytes (`tests/memory.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Estimate {
    /// Values of both towers, logit scale and head.
    pub parameters: u64,
    /// Values that are trained.
    pub trained: u64,
    /// Parameters, gradients and both moments.
    pub state_bytes: u64,
    /// What the largest run computes with: one chunk's forward and backward, and the loss over all pairs of the step, by the order of the nodes;
    /// the step's pictures and tokens.
    pub activation_bytes: u64,
    /// State, activations, and the gradients that a run puts out before they are added up.
    pub peak_bytes: u64,
}

/// Activations of a chunk of `rows` through a tower and back.
pub(super) fn activations(tower: &TowerGraph, rows: usize, sizes: InputSizes) -> Result<u64, TrainError> {
    let failed = |source| TrainError::Graph { graph: format!("{} tower", tower.side.name()), source };
    let mut program = tower.program(rows, sizes).map_err(failed)?;
    if tower.trained.is_empty() {
        return Ok(program.peak_bytes(&[&tower.output]));
    }
    // As if nothing were recomputed: of what that saves by the order of the nodes, the runtime was seen to save a third.
    let gradients = tower.backward(&mut program, Recompute::Nothing).map_err(failed)?;
    let outputs: Vec<&str> = gradients.iter().map(String::as_str).collect();
    Ok(program.peak_bytes(&outputs))
}

/// The loss over so many pairs: matrices of each with each, fed and computed. Pairs of several streams count as if they all met.
pub(super) fn loss(objective: Objective, shape: LossShape, dim: usize, limits: &Limits) -> Result<u64, TrainError> {
    let failed = |source| TrainError::Graph { graph: "loss".to_owned(), source };
    let graph = loss_graph(objective, shape, dim, limits).map_err(failed)?;
    let outputs: Vec<&str> = graph.gradients.values().chain([&graph.per_pair]).map(String::as_str).collect();
    Ok(graph.program.input_bytes() + graph.program.peak_bytes(&outputs))
}

/// Pixels of so many pictures and ids of so many captions.
pub(super) fn fed([pictures, captions]: [usize; 2], sizes: InputSizes) -> u64 {
    let pixels = pictures * 3 * sizes.height * sizes.width * size_of::<f32>();
    (pixels + captions * sizes.tokens * size_of::<i64>()) as u64
}

impl Estimate {
    pub(super) fn new((trained, parameters): (u64, u64), activation_bytes: u64) -> Self {
        let width = size_of::<f32>() as u64;
        let state_bytes = width * (parameters + 3 * trained);
        // A backward run's outputs are counted among its activations: they live until it ends.
        Self { parameters, trained, state_bytes, activation_bytes, peak_bytes: state_bytes + activation_bytes }
    }
}
