//! The graphs that training runs: a tower's embedding, its gradient, and the loss between.

use std::collections::{BTreeMap, BTreeSet};

use super::towers::{Feed, Tower};
use super::{InputSizes, Objective, Recompute};
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
    pub(super) recompute: Recompute,
    limits: Limits,
}

impl TowerGraph {
    /// The tower at its given shapes, with its weights: what selection looks at.
    pub(super) fn full(side: Side, tower: &Tower, sizes: InputSizes, limits: &Limits) -> Result<Program, ProgramError> {
        let model = tower.model.cut_to(&[&tower.output]);
        let tower = specialise(&model, &tower.inputs, tower.batch.unwrap_or(1), sizes, limits)?;
        prefixed(side, &tower, limits)
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
        let (batch, recompute, limits) = (tower.batch, Recompute::default(), limits.clone());
        Ok(Self { side, model, output, inputs, batch, trained, adapted, lora, recompute, limits })
    }

    /// The tower for so many items at once; its parameters are inputs.
    pub(super) fn program(&self, rows: usize, sizes: InputSizes) -> Result<Program, ProgramError> {
        let mut tower = specialise(&self.model, &self.inputs, rows, sizes, &self.limits)?;
        if let Some(lora) = self.lora {
            // Before the prefix: what adapters are made of has names that both towers would use.
            for weight in self.adapted.iter().filter_map(|name| name.strip_prefix(self.side.prefix())) {
                let [a, b] = adapters(weight);
                tower.adapt(weight, [&a, &b], lora.rank, lora.alpha / lora.rank as f64)?;
            }
        }
        prefixed(self.side, &tower, &self.limits)
    }

    /// The operator set of its programs.
    pub(super) fn opset(&self) -> i64 {
        self.model.opsets.get("").copied().unwrap_or(0).max(crate::program::OPSET)
    }

    /// Appends the backward pass: from the gradient of the embedding, an input named by [`seed`], to those of the trained
    /// parameters, in their order.
    pub(super) fn backward(&self, program: &mut Program, recompute: Recompute) -> Result<Vec<String>, ProgramError> {
        let kind = program.known(&self.output)?.clone();
        let seed = seed(self.side);
        program.add_input(&seed, kind)?;
        let of: Vec<&str> = self.trained.iter().map(String::as_str).collect();
        let gradients = differentiate(program, (&self.output, &seed), &of, recompute)?;
        Ok(of.iter().map(|name| gradients[*name].clone()).collect())
    }
}

/// Appends gradients; what is cheap of the forward pass they make again, if so wanted.
pub(super) fn differentiate(
    program: &mut Program,
    seed: (&str, &str),
    of: &[&str],
    recompute: Recompute,
) -> Result<BTreeMap<String, String>, ProgramError> {
    let forward = program.node_count();
    let gradients = program.gradients(&[seed], of)?;
    if recompute == Recompute::Cheap {
        program.recompute(forward)?;
    }
    Ok(gradients)
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
    Program::specialise(model, &shapes, limits)
}

/// The tower under the names that tell the two apart.
fn prefixed(side: Side, tower: &Program, limits: &Limits) -> Result<Program, ProgramError> {
    let mut program = Program::empty(limits.clone());
    program.absorb(tower, side.prefix())?;
    Ok(program)
}

/// Which loss graph: they differ by what meets in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LossShape {
    pub(super) pairs: usize,
    pub(super) classes: usize,
}

/// Where a loss stands in a program.
pub(super) struct LossSite<'a> {
    /// Embeddings of its pictures, one row for each pair.
    pub(super) images: &'a str,
    /// Embeddings of its captions; not read by the classifier.
    pub(super) texts: &'a str,
    /// Before the names of what it alone is fed: `weights`, `targets`, `penalties`, `signs`, `labels`.
    pub(super) prefix: &'a str,
}

/// Parameters that an objective has beside the towers'.
pub(super) fn loss_parameters(objective: Objective) -> &'static [&'static str] {
    match objective {
        Objective::Softmax => &[LOG_SCALE],
        Objective::Sigmoid => &[LOG_SCALE, BIAS],
        Objective::Classifier => &[HEAD],
    }
}

/// Declares the inputs that all losses of a program share: its parameters, and `one`, the gradient of the total.
pub(super) fn declare_shared(p: &mut Program, objective: Objective, classes: usize, dim: usize) -> Result<(), ProgramError> {
    for name in loss_parameters(objective) {
        let shape = if *name == HEAD { vec![classes, dim] } else { Vec::new() };
        p.add_input(name, TensorType::new(Element::F32, shape))?;
    }
    p.add_input("one", TensorType::new(Element::F32, []))
}

/// Appends a loss and what it is fed; gives the loss of each pair, and their weighted sum.
pub(super) fn append_loss(
    p: &mut Program,
    objective: Objective,
    shape: LossShape,
    site: &LossSite<'_>,
) -> Result<(String, String), ProgramError> {
    let n = shape.pairs;
    let input = |p: &mut Program, name: &str, shape: &[usize]| {
        let name = format!("{}{name}", site.prefix);
        p.add_input(&name, TensorType::new(Element::F32, shape)).map(|()| name)
    };
    let weights = input(p, "weights", &[n])?;
    let per_pair = match objective {
        Objective::Softmax => {
            let (targets, penalties) = (input(p, "targets", &[n, n])?, input(p, "penalties", &[n, n])?);
            let (images, texts) = (site.images, site.texts);
            let of = Softmax { images, texts, log_scale: LOG_SCALE, targets: &targets, penalties: Some(&penalties) };
            loss::softmax(p, of)?
        }
        Objective::Sigmoid => {
            let signs = input(p, "signs", &[n, n])?;
            loss::sigmoid(p, [site.images, site.texts], [LOG_SCALE, BIAS], &signs)?
        }
        Objective::Classifier => {
            let labels = input(p, "labels", &[n, shape.classes])?;
            loss::classifier(p, site.images, HEAD, &labels)?
        }
    };
    let total = loss::weighted_sum(p, &per_pair, &weights)?;
    Ok((per_pair, total))
}

/// A loss between embeddings that are fed as `images` and `texts`, and its gradients.
pub(super) struct LossGraph {
    pub(super) program: Program,
    pub(super) per_pair: String,
    /// Gradients by the name of what they are of.
    pub(super) gradients: BTreeMap<String, String>,
}

/// The loss graph of gradient caching.
pub(super) fn loss_graph(objective: Objective, shape: LossShape, dim: usize, limits: &Limits) -> Result<LossGraph, ProgramError> {
    let mut p = Program::empty(limits.clone());
    let embeddings = TensorType::new(Element::F32, [shape.pairs, dim]);
    let sides: &[&str] = if objective == Objective::Classifier { &["images"] } else { &["images", "texts"] };
    for side in sides {
        p.add_input(side, embeddings.clone())?;
    }
    declare_shared(&mut p, objective, shape.classes, dim)?;
    let site = LossSite { images: "images", texts: "texts", prefix: "" };
    let (per_pair, total) = append_loss(&mut p, objective, shape, &site)?;
    let of: Vec<&str> = sides.iter().chain(loss_parameters(objective)).copied().collect();
    let gradients = p.gradients(&[(&total, "one")], &of)?;
    Ok(LossGraph { program: p, per_pair, gradients })
}
