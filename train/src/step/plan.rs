//! What a run asks of its steps.

use crate::loss::SameGroup;
use crate::optim::AdamW;
use crate::select::Selection;

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// CLIP's symmetric InfoNCE. The default.
    #[default]
    Softmax,
    /// SigLIP's pairwise sigmoid.
    Sigmoid,
    /// Cross-entropy over a head of one row per class ([`super::Trainer::set_head`]); streams have classes as their groups, and their
    /// captions are not read. The text tower and the logit scale do not learn.
    Classifier,
}

/// Which pairs meet in one softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Those of one stream: each stream has a loss of its own. The default, ARF's sum.
    #[default]
    Separate,
    /// All of the step: anchors are negatives of the task's pairs and the other way round. Rows that show the same picture ignore
    /// each other, whatever `same_group` says of groups.
    Joint,
}

/// How a step is computed; the numbers are the same to float32's rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Direct where a step's pictures and captions each fit one chunk, cached otherwise. The default.
    #[default]
    Auto,
    /// Gradient caching always: embed every chunk, loss on embeddings, forward once more and backward chunk by chunk. Memory is that
    /// of one chunk, at the price of a second forward.
    Cached,
}

/// What of the forward pass is made again for the backward pass instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Activation functions and what else takes no longer than reading it. The default.
    #[default]
    Cheap,
    /// Nothing.
    Nothing,
}

/// Where parameters, moments and gradients are from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residence {
    /// With the provider where it has memory of its own, in the host's otherwise. The default.
    #[default]
    Auto,
    /// In the host's memory, updated by a fused loop; a provider with memory of its own is sent all of it at every run.
    Host,
    /// In the provider's memory, bound to its runs' inputs and outputs and updated there by AdamW as a graph, in place.
    Provider,
}

/// What matrix products and convolutions of the towers are computed in. Parameters, moments, norms, softmax, loss and the update are float32
/// always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// float32. The default.
    #[default]
    F32,
    /// bfloat16: float32's range with 8 bits of precision; on NVIDIA GPUs from Ampere on.
    Bf16,
    /// float16, with [`Plan::loss_scale`].
    F16,
}

/// What a run asks of its steps.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Which loss. Default softmax.
    pub objective: Objective,
    /// Which pairs meet in one softmax. Default separate.
    pub scope: Scope,
    /// What pairs of one group are to each other. Default ignored.
    pub same_group: SameGroup,
    /// Which parameters are trained. Default all.
    pub train: Selection,
    /// The optimizer. Default FLYP's.
    pub optimizer: AdamW,
    /// Pictures, or captions, of which activations are in memory at one time. Default 32: a ViT-B/32 in 32 takes about 3 GB. A batch
    /// that is no multiple is filled up with copies that carry no gradient.
    pub chunk: usize,
    /// How a step is computed. Default: as memory allows.
    pub form: Form,
    /// What of the forward pass is made again. Default: what is cheap.
    pub recompute: Recompute,
    /// Where parameters, moments and gradients are. Default: where the provider computes.
    pub residence: Residence,
    /// What matrix products are computed in. Default float32. A provider without narrow products (the processor) rounds their inputs and results
    /// instead, which shows what a run would learn and is slower than float32.
    pub compute: Precision,
    /// Factor of the loss while gradients flow back in float16, taken out of them before they are clipped: small ones would be lost below
    /// 6e-8. Default 1024; a run whose gradients overflow says so, and needs less.
    pub loss_scale: f64,
    /// Largest logit scale, as a factor, of the softmax; SigLIP's has no bound (its models end at 110 and more). Default 100, CLIP's.
    pub max_logit_scale: f64,
    /// Decides the adapters' first values; nothing else is random here. Default 0.
    pub seed: u64,
    /// Threads of the runtime and of the optimizer. Default 0: all cores. One thread gives the same bits every time.
    pub threads: usize,
    /// Whether threads without work wait for it spinning while a graph runs: shorter steps on cores that nothing else wants, and fewer batches
    /// made beside them. Default no.
    pub spin: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            objective: Objective::default(),
            scope: Scope::default(),
            same_group: SameGroup::default(),
            train: Selection::default(),
            optimizer: AdamW::default(),
            chunk: 32,
            form: Form::default(),
            recompute: Recompute::default(),
            residence: Residence::default(),
            compute: Precision::default(),
            loss_scale: 1024.0,
            max_logit_scale: 100.0,
            seed: 0,
            threads: 0,
            spin: false,
        }
    }
}

/// Sizes of what goes in, fixed for a run: graphs are derived for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InputSizes {
    /// Rows of a picture.
    pub height: usize,
    /// Columns of a picture.
    pub width: usize,
    /// Tokens of a caption; shorter ones are padded by the caller, as the model's tokenizer pads.
    pub tokens: usize,
}
