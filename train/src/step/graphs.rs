//! The graphs that training runs: a tower's embedding, its gradient, and the loss between.

use std::collections::{BTreeMap, BTreeSet};

use super::towers::{Feed, Tower};
use super::{InputSizes, Objective, TrainError};
use crate::Limits;
use crate::graph::{Dim, Element, Model, Port, Tensor, TensorType};
use crate::loss::{self, Softmax};
use crate::program::{Program, ProgramError};
use crate::select::Lora;

/// One of the two towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    Vision,
    Text,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Vision, Self::Text];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Text => "text",
        }
    }

    /// What stands before its names wherever both towers meet.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Vision => "vision.",
            Self::Text => "text.",
        }
    }
}

/// Names of what is no tower's.
pub(super) const LOG_SCALE: &str = "logit_scale";
pub(super) const BIAS: &str = "logit_bias";
pub(super) const HEAD: &str = "head";

/// Names of a matrix's adapters.
pub(super) fn adapters(weight: &str) -> [String; 2] {
    [format!("{weight}/lora_a"), format!("{weight}/lora_b")]
}

/// A tower whose parameters are inputs, so that it holds no weights; what differs from run to run is its shapes.
#[derive(Debug)]
pub(super) struct TowerGraph {
    pub(super) side: Side,
    model: Model,
    /// The embedding's name, prefixed.
    pub(super) output: String,
    pub(super) inputs: Vec<(String, Feed)>,
    pub(super) batch: Option<usize>,
    /// Names of what is trained, prefixed; adapters where there are any.
    pub(super) trained: BTreeSet<String>,
    /// Matrices that have adapters, prefixed.
    pub(super) adapted: BTreeSet<String>,
    lora: Option<Lora>,
    limits: Limits,
}

impl TowerGraph {
    /// The tower at its given shapes, with its weights: what selection looks at.
    pub(super) fn full(side: Side, tower: &Tower, sizes: InputSizes, limits: &Limits) -> Result<Program, ProgramError> {
        let model = tower.model.cut_to(&[&tower.output]);
        specialise(side, &model, &tower.inputs, tower.batch.unwrap_or(1), sizes, limits)
    }

    pub(super) fn new(
        side: Side,
        tower: &Tower,
        parameters: &BTreeMap<String, Tensor>,
        chosen: BTreeSet<String>,
        lora: Option<Lora>,
        limits: &Limits,
    ) -> Result<Self, ProgramError> {
        let mut model = tower.model.cut_to(&[&tower.output]);
        let own: BTreeMap<String, Tensor> = parameters
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(side.prefix())?.to_owned(), tensor.clone())))
            .collect();
        let lacks = |name| ProgramError::Value { name, reason: "the model has no such weight".to_owned() };
        model.set_weights(&own).map_err(lacks)?;
        model.graph.initializers.retain(|(name, _)| !own.contains_key(name));
        model.graph.inputs.extend(own.iter().map(|(name, tensor)| port(name, tensor.kind())));
        let (trained, adapted) = match lora {
            None => (chosen, BTreeSet::new()),
            Some(_) => (chosen.iter().flat_map(|name| adapters(name)).collect(), chosen),
        };
        let output = format!("{}{}", side.prefix(), tower.output);
        let inputs = tower.inputs.clone();
        Ok(Self { side, model, output, inputs, batch: tower.batch, trained, adapted, lora, limits: limits.clone() })
    }

    /// The tower for so many items at once; its parameters are inputs.
    pub(super) fn program(&self, rows: usize, sizes: InputSizes) -> Result<Program, ProgramError> {
        let mut program = specialise(self.side, &self.model, &self.inputs, rows, sizes, &self.limits)?;
        if let Some(lora) = self.lora {
            for weight in &self.adapted {
                let [a, b] = adapters(weight);
                program.adapt(weight, [&a, &b], lora.rank, lora.alpha / lora.rank as f64)?;
            }
        }
        Ok(program)
    }

    /// Appends the backward pass: from the gradient of the embedding, an input named by [`seed`], to those of the trained
    /// parameters, in their order.
    pub(super) fn backward(&self, program: &mut Program) -> Result<Vec<String>, ProgramError> {
        let kind = program.known(&self.output)?.clone();
        let seed = seed(self.side);
        program.add_input(&seed, kind)?;
        let of: Vec<&str> = self.trained.iter().map(String::as_str).collect();
        let gradients = program.gradients(&[(&self.output, &seed)], &of)?;
        Ok(of.iter().map(|name| gradients[*name].clone()).collect())
    }
}

/// Name of the gradient of a side's embeddings.
pub(super) fn seed(side: Side) -> String {
    format!("{}embedding_gradient", side.prefix())
}

fn port(name: &str, kind: &TensorType) -> Port {
    let shape = kind.shape.iter().map(|&d| Dim::Fixed(d as u64)).collect();
    Port { name: name.to_owned(), element: kind.element, shape: Some(shape) }
}

fn specialise(
    side: Side,
    model: &Model,
    inputs: &[(String, Feed)],
    rows: usize,
    sizes: InputSizes,
    limits: &Limits,
) -> Result<Program, ProgramError> {
    let pixels = [rows, 3, sizes.height, sizes.width];
    let tokens = [rows, sizes.tokens];
    let shape = |feed: &Feed| if *feed == Feed::Pixels { &pixels[..] } else { &tokens[..] };
    let shapes: Vec<(&str, &[usize])> = inputs.iter().map(|(name, feed)| (name.as_str(), shape(feed))).collect();
    let tower = Program::specialise(model, &shapes, limits)?;
    let mut program = Program::empty(limits.clone());
    program.absorb(&tower, side.prefix())?;
    Ok(program)
}

/// Which loss graph: they differ by what meets in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LossShape {
    pub(super) pairs: usize,
    pub(super) classes: usize,
}

/// A loss graph's outputs by name.
pub(super) struct LossGraph {
    pub(super) program: Program,
    pub(super) per_pair: String,
    pub(super) images: String,
    pub(super) texts: Option<String>,
    /// Gradients of logit scale, bias or head, by the name of what they are of.
    pub(super) others: Vec<(&'static str, String)>,
}

/// Embeddings, and what is fed beside them: `images`, `texts`, `weights`, `targets`, `penalties` or `signs` or `labels`.
pub(super) fn loss_graph(objective: Objective, shape: LossShape, dim: usize, limits: &Limits) -> Result<LossGraph, TrainError> {
    build_loss(objective, shape, dim, limits).map_err(|source| TrainError::Graph { graph: "loss".to_owned(), source })
}

fn build_loss(objective: Objective, shape: LossShape, dim: usize, limits: &Limits) -> Result<LossGraph, ProgramError> {
    let n = shape.pairs;
    let mut p = Program::empty(limits.clone());
    let input = |p: &mut Program, name: &str, shape: &[usize]| p.add_input(name, TensorType::new(Element::F32, shape));
    input(&mut p, "images", &[n, dim])?;
    input(&mut p, "weights", &[n])?;
    input(&mut p, "one", &[])?;
    let (per_pair, of): (String, Vec<&'static str>) = match objective {
        Objective::Softmax => {
            input(&mut p, "texts", &[n, dim])?;
            input(&mut p, LOG_SCALE, &[])?;
            input(&mut p, "targets", &[n, n])?;
            input(&mut p, "penalties", &[n, n])?;
            let of = Softmax {
                images: "images",
                texts: "texts",
                log_scale: LOG_SCALE,
                targets: "targets",
                penalties: Some("penalties"),
            };
            (loss::softmax(&mut p, of)?, vec![LOG_SCALE])
        }
        Objective::Sigmoid => {
            input(&mut p, "texts", &[n, dim])?;
            input(&mut p, LOG_SCALE, &[])?;
            input(&mut p, BIAS, &[])?;
            input(&mut p, "signs", &[n, n])?;
            (loss::sigmoid(&mut p, ["images", "texts"], [LOG_SCALE, BIAS], "signs")?, vec![LOG_SCALE, BIAS])
        }
        Objective::Classifier => {
            input(&mut p, HEAD, &[shape.classes, dim])?;
            input(&mut p, "labels", &[n, shape.classes])?;
            (loss::classifier(&mut p, "images", HEAD, "labels")?, vec![HEAD])
        }
    };
    let total = loss::weighted_sum(&mut p, &per_pair, "weights")?;
    let texts = (objective != Objective::Classifier).then_some("texts");
    let all: Vec<&str> = ["images"].into_iter().chain(texts).chain(of.iter().copied()).collect();
    let gradients = p.gradients(&[(&total, "one")], &all)?;
    Ok(LossGraph {
        per_pair,
        images: gradients["images"].clone(),
        texts: texts.map(|name| gradients[name].clone()),
        others: of.into_iter().map(|name| (name, gradients[name].clone())).collect(),
        program: p,
    })
}
