//! Which parameters are trained.
//!
//! ```text
//!   Program of a tower ──trainable_for its output──► weights ──places──► weights with their block ──Selection──► names
//! ```
//!
//! Exporters store linear weights under names of their own ("onnx::MatMul_1471"), so a weight's block is told by its neighbours: the
//! biases and norms before and after it in the order of the nodes keep the module's name.

use std::collections::{BTreeMap, BTreeSet};

use crate::optim::decays;
use crate::program::Program;

/// Which of the two towers learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TowerChoice {
    /// Both. The default, as FLYP and ARF.
    #[default]
    Both,
    /// Only pictures.
    Vision,
    /// Only captions.
    Text,
    /// Neither: a classifier's head alone, a linear probe.
    Neither,
}

/// Which of a tower's weights learn.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightChoice {
    /// All of them. The default.
    #[default]
    All,
    /// The last so many blocks and what comes after them.
    LastBlocks(usize),
    /// What has at most one axis larger than 1: norms, biases, the class token.
    NormsAndBiases,
    /// The matrices after the last block.
    Projections,
    /// Every matrix by a low-rank addition, the rest not at all; merged at export.
    Lora(Lora),
}

/// Low-rank adapters (Hu et al. 2021): W + alpha / rank A B.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank. Default 8: the paper's middle.
    pub rank: usize,
    /// Scale of the addition, divided by the rank. Default 16: twice the rank, as is usual.
    pub alpha: f64,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0 }
    }
}

/// Which parameters are trained.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Which towers.
    pub towers: TowerChoice,
    /// Which of their weights.
    pub weights: WeightChoice,
    /// Whether the logit scale (and SigLIP's bias) learns. Default yes, as CLIP and FLYP.
    pub logit_scale: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self { towers: TowerChoice::Both, weights: WeightChoice::All, logit_scale: true }
    }
}

/// Why nothing can be selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// No name in the graph tells blocks apart.
    #[error(
        "no parameter's name tells the {tower} tower's blocks apart (layers.N, resblocks.N, blocks.N); choose weights otherwise"
    )]
    NoBlocks {
        /// Which tower.
        tower: String,
    },
    /// The choice leaves nothing.
    #[error("the choice of weights leaves nothing to train in the {tower} tower")]
    Nothing {
        /// Which tower.
        tower: String,
    },
}

/// Where a weight is first used.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    node: usize,
    block: Option<usize>,
    matrix: bool,
}

/// Names of the parameters of `program` that the choice trains for `output`. For [`WeightChoice::Lora`] they are the matrices that
/// get adapters.
///
/// # Errors
/// [`SelectError`].
pub fn select(program: &Program, output: &str, choice: &WeightChoice, tower: &str) -> Result<BTreeSet<String>, SelectError> {
    let weights = program.trainable_for(output);
    let places = places(program, &weights);
    let last = places.values().filter_map(|place| place.block).max();
    let last_of = || last.ok_or_else(|| SelectError::NoBlocks { tower: tower.to_owned() });
    let behind = |block: usize| places.values().filter(|p| p.block == Some(block)).map(|p| p.node).max();
    let shape = |name: &str| program.kind(name).map(|kind| kind.shape.clone()).unwrap_or_default();
    let chosen: BTreeSet<String> = match choice {
        WeightChoice::All => weights,
        WeightChoice::NormsAndBiases => weights.into_iter().filter(|name| !decays(&shape(name))).collect(),
        WeightChoice::Lora(_) => weights.into_iter().filter(|name| places.get(name).is_some_and(|p| p.matrix)).collect(),
        WeightChoice::Projections => {
            let end = behind(last_of()?);
            let after = |name: &String| places.get(name).is_some_and(|p| p.matrix && p.block.is_none() && Some(p.node) > end);
            weights.into_iter().filter(after).collect()
        }
        WeightChoice::LastBlocks(count) => {
            let last = last_of()?;
            let (first, end) = ((last + 1).saturating_sub(*count), behind(last));
            let inside = |p: &Place| p.block.map_or(Some(p.node) > end, |block| block >= first);
            weights.into_iter().filter(|name| places.get(name).is_some_and(inside)).collect()
        }
    };
    if chosen.is_empty() { Err(SelectError::Nothing { tower: tower.to_owned() }) } else { Ok(chosen) }
}

fn places(program: &Program, weights: &BTreeSet<String>) -> BTreeMap<String, Place> {
    let mut order: Vec<(String, Place)> = Vec::new();
    for (i, node) in program.nodes().iter().enumerate() {
        for (position, name) in node.inputs.iter().enumerate().filter(|(_, name)| weights.contains(*name)) {
            if order.iter().any(|(known, _)| known == name) {
                continue;
            }
            let product = matches!(node.operator.as_str(), "MatMul" | "Gemm") && position == 1;
            let two_axes = program.kind(name).is_some_and(|kind| kind.shape.len() == 2);
            let block = block_in(name).or_else(|| block_in(&node.name));
            order.push((name.clone(), Place { node: i, block, matrix: product && two_axes }));
        }
    }
    let known: Vec<Option<usize>> = order.iter().map(|(_, place)| place.block).collect();
    // Whoever keeps a name of its own without a block in it (a last norm) is a neighbour too: it ends the block.
    let named = |i: usize| known[i].is_some() || !is_anonymous(&order[i].0);
    let filled: Vec<Option<usize>> = (0..order.len())
        .map(|i| {
            let before = (0..i).rev().find(|&j| named(j)).and_then(|j| known[j]);
            let after = (i + 1..order.len()).find(|&j| named(j)).and_then(|j| known[j]);
            known[i].or_else(|| before.filter(|_| is_anonymous(&order[i].0) && before == after))
        })
        .collect();
    order.iter_mut().zip(filled).for_each(|((_, place), block)| place.block = block);
    order.into_iter().collect()
}

/// Names that exporters make up: "onnx::MatMul_1471", "val_21".
fn is_anonymous(name: &str) -> bool {
    let last = name.rsplit(['.', '/']).next().unwrap_or(name);
    name.contains("onnx::") || last.starts_with("val_")
}

/// The number after "layers.", "resblocks." or "blocks." in a module's name.
fn block_in(name: &str) -> Option<usize> {
    ["layers.", "resblocks.", "blocks."].iter().find_map(|word| {
        let rest = name.split(word).nth(1)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}
