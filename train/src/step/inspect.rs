//! Whether a tower can be trained, and what that takes: everything that can be said without running it.

use std::collections::BTreeMap;

use super::estimate::{self, Estimate};
use super::graphs::{Side, TowerGraph};
use super::towers::Tower;
use super::{InputSizes, Towers, TrainError};
use crate::Limits;
use crate::graph::widen;
use crate::ops;
use crate::select::{self, WeightChoice};

/// A node whose operator is not known.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnknownNode {
    /// Its name, or its first output's.
    pub node: String,
    /// Its operator, with the domain where that is not the standard's.
    pub operator: String,
}

/// What can be said of a tower.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TowerReport {
    /// "vision" or "text".
    pub tower: &'static str,
    /// Which program exported it.
    pub producer: String,
    /// Operator set.
    pub opset: i64,
    /// How often each operator is used on the way to the embedding.
    pub operators: BTreeMap<String, usize>,
    /// Nodes that no rule exists for.
    pub unknown: Vec<UnknownNode>,
    /// Why it cannot be trained; `None` where it can.
    pub problem: Option<String>,
    /// Parameters, trained ones, and memory, with all of the tower trained. Absent where there is a problem.
    pub estimate: Option<Estimate>,
    /// Names of stored tensors that no gradient reaches or that are no weights: masks, running statistics.
    pub frozen: Vec<String>,
}

impl TowerReport {
    /// Whether it can be trained.
    #[must_use]
    pub fn can_train(&self) -> bool {
        self.problem.is_none() && self.unknown.is_empty()
    }
}

/// Looks at both towers, with so many rows run at once. Nothing is run.
#[must_use]
pub fn inspect(towers: &Towers, sizes: InputSizes, rows: usize, limits: &Limits) -> [TowerReport; 2] {
    [(Side::Vision, &towers.vision), (Side::Text, &towers.text)].map(|(side, tower)| report(side, tower, sizes, rows, limits))
}

fn report(side: Side, tower: &Tower, sizes: InputSizes, rows: usize, limits: &Limits) -> TowerReport {
    // As a run does before it trains.
    let tower = &Tower { model: widen(tower.model.clone()), ..tower.clone() };
    let cut = tower.model.cut_to(&[&tower.output]);
    let mut operators = BTreeMap::new();
    let mut unknown = Vec::new();
    for node in &cut.graph.nodes {
        let standard = node.domain.is_empty();
        let operator = if standard { node.operator.clone() } else { format!("{}.{}", node.domain, node.operator) };
        if ops::find(node).is_none() {
            let name = if node.name.is_empty() { node.outputs.first().cloned().unwrap_or_default() } else { node.name.clone() };
            unknown.push(UnknownNode { node: name, operator: operator.clone() });
        }
        *operators.entry(operator).or_default() += 1;
    }
    let found = training(side, tower, sizes, tower.batch.unwrap_or(rows), limits);
    let (estimate, frozen, problem) = match found {
        Ok((estimate, frozen)) => (Some(estimate), frozen, None),
        Err(error) => (None, Vec::new(), Some(error.to_string())),
    };
    let opset = tower.model.opsets.get("").copied().unwrap_or(0);
    TowerReport {
        tower: side.name(),
        producer: tower.model.producer.clone(),
        opset,
        operators,
        unknown,
        problem,
        estimate,
        frozen,
    }
}

fn training(
    side: Side,
    tower: &Tower,
    sizes: InputSizes,
    rows: usize,
    limits: &Limits,
) -> Result<(Estimate, Vec<String>), TrainError> {
    let failed = |source| TrainError::Graph { graph: format!("{} tower", side.name()), source };
    let full = TowerGraph::full(side, tower, sizes, limits).map_err(failed)?;
    let output = format!("{}{}", side.prefix(), tower.output);
    let chosen = select::select(&full, &output, &WeightChoice::All, side.name())?;
    let parameters = full.parameters();
    let count = |trained: bool| {
        let wanted = parameters.iter().filter(|(name, _)| !trained || chosen.contains(*name));
        wanted.map(|(_, tensor)| tensor.len() as u64).sum()
    };
    let counts = (count(true), count(false));
    let frozen = parameters.keys().filter(|name| !chosen.contains(*name)).cloned().collect();
    let graph = TowerGraph::new(side, tower, parameters, chosen, None, limits).map_err(failed)?;
    Ok((Estimate::new(counts, estimate::activations(&graph, rows, sizes)?), frozen))
}
