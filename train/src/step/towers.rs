//! The two towers of a model folder, as models that can be trained.

use std::collections::BTreeMap;

use anchorite_encoder::model::scan::ElementType;
use anchorite_encoder::model::{Folder, ImageBinding, SimilarityKind, TextBinding, TowerModel};

use super::{Objective, TrainError};
use crate::Limits;
use crate::graph::{Model, Tensor};

/// A tower: the export, and how it is fed.
#[derive(Debug, Clone)]
pub struct Tower {
    /// The export, other outputs included.
    pub model: Model,
    /// The output that is the embedding.
    pub output: String,
    /// What each of its inputs is.
    pub inputs: Vec<(String, Feed)>,
    /// Items per run where the graph fixes it.
    pub batch: Option<usize>,
}

/// What an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Pixels, `[items, 3, height, width]`.
    Pixels,
    /// Token ids; the flag says 32-bit.
    Ids(Width),
    /// Ones at tokens, zeros at padding.
    Mask(Width),
    /// Zeros.
    Segments(Width),
    /// 0, 1, 2, ...
    Positions(Width),
}

/// Width of an integer input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// int32.
    Narrow,
    /// int64.
    Wide,
}

/// What is trained.
#[derive(Debug, Clone)]
pub struct Towers {
    /// Pictures in.
    pub vision: Tower,
    /// Captions in.
    pub text: Tower,
    /// Logarithm of the logit scale to start from; no export of two towers holds it. From scratch CLIP starts at ln(1/0.07).
    pub log_scale: f32,
    /// SigLIP's bias to start from; used by the sigmoid objective only.
    pub bias: f32,
}

impl Towers {
    /// Reads both towers of a model folder. The logit scale and bias are those of its `config.json`, else CLIP's or SigLIP's; see also
    /// [`Towers::for_objective`].
    ///
    /// # Errors
    /// [`TrainError`]: a missing tower, a file that cannot be read or trained.
    pub fn open(folder: &Folder, limits: &Limits) -> Result<Self, TrainError> {
        let missing = |tower| TrainError::NoTower { folder: folder.name().to_owned(), tower };
        let image = folder.image().ok_or_else(|| missing("vision"))?;
        let text = folder.text().ok_or_else(|| missing("text"))?;
        let one_file = image.file() == text.file();
        let similarity = folder.similarity();
        Ok(Self {
            vision: Tower::vision(read(image, "vision", limits)?, image.binding(), &image.output().name, one_file),
            text: Tower::text(read(text, "text", limits)?, text.binding(), &text.output().name, one_file),
            log_scale: similarity.scale.ln(),
            bias: similarity.bias,
        })
    }
}

/// SigLIP's scale and bias before training: with them few pairs of a batch are taken to belong together, as it is.
const SIGLIP_START: (f32, f32) = (10.0, -10.0);

impl Towers {
    /// Scale and bias that this objective can start from: the sigmoid on a CLIP starts from SigLIP's own first values, since a CLIP has
    /// no bias and without one every other pair of a batch would count as one that belongs together.
    #[must_use]
    pub fn for_objective(mut self, objective: Objective, stated: SimilarityKind) -> Self {
        if objective == Objective::Sigmoid && stated == SimilarityKind::Softmax {
            (self.log_scale, self.bias) = (SIGLIP_START.0.ln(), SIGLIP_START.1);
        }
        self
    }
}

fn read<B>(tower: &TowerModel<B>, name: &'static str, limits: &Limits) -> Result<Model, TrainError> {
    let source = tower.source()?;
    Model::read(&source.bytes, &source.external, &limits.model).map_err(|source| TrainError::Read { tower: name, source })
}

impl Tower {
    fn vision(model: Model, binding: &ImageBinding, output: &str, one_file: bool) -> Self {
        let inputs = vec![(binding.pixels.name.clone(), Feed::Pixels)];
        Self { model: own_part(model, output, one_file), output: output.to_owned(), inputs, batch: binding.batch }
    }

    fn text(model: Model, binding: &TextBinding, output: &str, one_file: bool) -> Self {
        type Kind = fn(Width) -> Feed;
        let parts = [
            (Some(&binding.ids), Feed::Ids as Kind),
            (binding.mask.as_ref(), Feed::Mask as Kind),
            (binding.segments.as_ref(), Feed::Segments as Kind),
            (binding.positions.as_ref(), Feed::Positions as Kind),
        ];
        let width = |element| if element == ElementType::I32 { Width::Narrow } else { Width::Wide };
        let inputs = parts.into_iter().filter_map(|(input, kind)| input.map(|i| (i.name.clone(), kind(width(i.element)))));
        let inputs = inputs.collect();
        Self { model: own_part(model, output, one_file), output: output.to_owned(), inputs, batch: binding.batch }
    }

    /// The export with other weights; everything else is as it was.
    ///
    /// # Errors
    /// The name of a weight that the export does not have in that type.
    pub fn with_weights(&self, weights: &BTreeMap<String, Tensor>) -> Result<Model, String> {
        let mut model = self.model.clone();
        model.set_weights(weights)?;
        Ok(model)
    }
}

/// A file that holds both towers is taken apart; each tower is exported on its own.
fn own_part(model: Model, output: &str, one_file: bool) -> Model {
    if one_file { model.cut_to(&[output]) } else { model }
}
