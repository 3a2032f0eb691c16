//! Heads on their own: a trainer of them, what is evaluated, and the whole model again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anchorite_encoder::{
    Embedding, Encode, EncoderOptions, OpenError,
    image::Preprocess,
    model::{Folder, ModelOptions, TowerModel},
    session::Engine,
    text::{Tokenizer, TokenizerOptions},
};
use sha2::{Digest, Sha256};

use super::{
    Cut, Features, FrozenEncoder, FrozenError, cut,
    encoder::Head,
    features::{TrunkPlan, open_session, runtime},
};
use crate::{
    Limits,
    checkpoint::tensors,
    data::{Preparer, hex},
    export::{Card, ExportError, ExportJob, Live, TOLERANCE, TowerFile, compare, export},
    graph::{Attribute, Element, Model, Node, Port, Tensor, widen},
    runner::{Machine, from_noise},
    step::{Feed, InputSizes, Plan, Tower, Towers, TrainState, Trainer, Width},
};

/// Trained tensors by name: "vision." or "text." and the export's name; the logit scale's logarithm is "logit_scale". What a trainer calls its
/// parameters.
pub type Weights = BTreeMap<String, Tensor>;

/// Names of the towers, as weights have them before their own.
const TOWERS: [&str; 2] = ["vision", "text"];
/// The logit scale's name among weights.
const LOG_SCALE: &str = "logit_scale";
/// A text's values at the seam go into a trainer as whole numbers of this unit, a millionth: token ids are integers.
pub(crate) const UNIT: f32 = 1.0 / (1 << 20) as f32;
/// ONNX's number of float32.
const FLOAT: i64 = 1;

/// A model folder whose towers were cut.
#[derive(Debug)]
pub struct Frozen {
    source: PathBuf,
    fingerprint: String,
    features: Arc<Features>,
    /// Whole towers, their weights in float32.
    towers: Towers,
    cuts: [Cut; 2],
    files: [String; 2],
    engine: Engine,
    threads: usize,
    initial: Weights,
}

impl Frozen {
    /// Opens the model in `dir`; weights for whose name `trained` holds make the heads. Features are kept in `kept`, where there is one.
    ///
    /// # Errors
    /// [`FrozenError`].
    pub fn open(
        dir: &Path,
        trained: &dyn Fn(&str) -> bool,
        kept: Option<&Path>,
        machine: Machine<'_>,
        threads: usize,
    ) -> Result<Self, FrozenError> {
        machine.runtime.check_provider(machine.provider).map_err(OpenError::from)?;
        let folder = Folder::open(dir, &ModelOptions::default()).map_err(OpenError::from)?;
        let mut towers = Towers::open(&folder, &Limits::default())?;
        towers.vision.model = widen(towers.vision.model);
        towers.text.model = widen(towers.text.model);
        let part = |tower: &Tower, name: &'static str| {
            cut(&tower.model, &tower.output, trained).map_err(|reason| FrozenError::Cut { tower: name, reason })
        };
        let cuts = [part(&towers.vision, TOWERS[0])?, part(&towers.text, TOWERS[1])?];
        let fixed = folder.text().map(TowerModel::binding).and_then(|binding| binding.sequence);
        let options = TokenizerOptions { context_length: fixed, ..TokenizerOptions::default() };
        let text = Tokenizer::find_with(dir, &options).map_err(OpenError::from)?;
        let picture = Preprocess::find(dir).map_err(OpenError::from)?;
        let engine = anchorite_encoder::engine(machine.runtime, machine.provider);
        let plan = |at: usize, tower| TrunkPlan { name: TOWERS[at], tower, trunk: cuts[at].trunk.clone(), seam: &cuts[at].seam };
        let plans = [plan(0, &towers.vision), plan(1, &towers.text)];
        let fingerprint = folder.fingerprint().to_owned();
        let features = Features::open((picture, text), plans, &fingerprint, kept, (&engine, threads))?;
        let file = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let files = [file(folder.image().map(TowerModel::file)), file(folder.text().map(TowerModel::file))];
        let initial = initial(&cuts, trained, towers.log_scale);
        let source = dir.to_owned();
        Ok(Self { source, fingerprint, features: Arc::new(features), towers, cuts, files, engine, threads, initial })
    }

    /// What the trunks make of pictures and texts.
    #[must_use]
    pub fn features(&self) -> &Arc<Features> {
        &self.features
    }

    /// Fingerprint of the folder and the weights.
    #[must_use]
    pub fn fingerprint(&self, weights: &Weights) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.fingerprint);
        for (name, tensor) in weights {
            hash.update(name);
            hash.update(tensor.bytes());
        }
        hex(&hash.finalize())
    }

    /// The heads' weights as the folder has them.
    #[must_use]
    pub fn weights(&self) -> Weights {
        self.initial.clone()
    }

    /// The heads' weights from noise; the logit scale is the folder's.
    #[must_use]
    pub fn noise(&self, seed: u64) -> Weights {
        let mut weights = self.initial.clone();
        for (at, (tower, cut)) in TOWERS.into_iter().zip(&self.cuts).enumerate() {
            for (name, tensor) in from_noise(&cut.head, seed, at as u64).graph.initializers {
                if let Some(weight) = weights.get_mut(&format!("{tower}.{name}")) {
                    *weight = tensor;
                }
            }
        }
        weights
    }

    /// Numbers that are trained.
    #[must_use]
    pub fn trained(&self) -> usize {
        self.initial.values().map(Tensor::len).sum()
    }

    /// How a run's pictures and texts are prepared: to values at the seams.
    #[must_use]
    pub fn preparer(&self) -> Arc<Preparer> {
        Arc::new(Preparer::frozen(Arc::clone(&self.features)))
    }

    /// A trainer of the heads from `weights`; `head` is a classifier's.
    ///
    /// # Errors
    /// [`FrozenError::Train`], [`FrozenError::Weight`].
    pub fn trainer(&self, weights: &Weights, plan: &Plan, head: Option<Tensor>) -> Result<Trainer, FrozenError> {
        let [vision, text] = self.filled(weights)?;
        let (pictures, texts) = (size(self.features.picture_shape()), size(self.features.text_shape()));
        let sizes = InputSizes { height: 1, width: pictures.div_ceil(3), tokens: texts };
        let picture_input = vec![("frozen.picture".to_owned(), Feed::Pixels)];
        let text_input = vec![("frozen.text".to_owned(), Feed::Ids(Width::Wide))];
        let towers = Towers {
            vision: Tower {
                model: fed_by_pictures(vision, &self.cuts[0].seam, self.features.picture_shape()),
                output: self.towers.vision.output.clone(),
                inputs: picture_input,
                batch: None,
            },
            text: Tower {
                model: fed_by_texts(text, &self.cuts[1].seam, self.features.text_shape()),
                output: self.towers.text.output.clone(),
                inputs: text_input,
                batch: None,
            },
            log_scale: log_scale(weights),
            bias: self.towers.bias,
        };
        let mut trainer = Trainer::new(towers, plan, sizes, &self.engine, &Limits::default())?;
        if let Some(head) = head {
            trainer.set_head(&head)?;
        }
        Ok(trainer)
    }

    /// The heads' weights out of a trainer's state; what was not trained is as in `before`.
    #[must_use]
    pub fn taken(&self, state: &TrainState, before: &Weights) -> Weights {
        let newer = |(name, old): (&String, &Tensor)| (name.clone(), state.parameters.get(name).unwrap_or(old).clone());
        before.iter().map(newer).collect()
    }

    /// The heads with these weights, as an encoder.
    ///
    /// # Errors
    /// [`FrozenError::Weight`], [`FrozenError::Runtime`].
    pub fn encoder(&self, weights: &Weights) -> Result<FrozenEncoder, FrozenError> {
        let [vision, text] = self.filled(weights)?;
        let head = |at: usize, model: &Model, output: &str, shape: &[usize]| -> Result<Head, FrozenError> {
            let session = open_session(model, &self.engine, self.threads).map_err(|e| runtime(TOWERS[at], "head", e))?;
            let (tower, seam) = (["image", "text"][at], self.cuts[at].seam.clone());
            Ok(Head { tower, session, seam, output: output.to_owned(), shape: shape.to_vec() })
        };
        let (pictures, texts) = (self.features.picture_shape(), self.features.text_shape());
        let mut vision = head(0, &vision, &self.towers.vision.output, pictures)?;
        let text = head(1, &text, &self.towers.text.output, texts)?;
        let (dim, _) = vision.run(1, vec![0.0; size(pictures)]).map_err(|reason| runtime(TOWERS[0], "head", reason))?;
        Ok(FrozenEncoder {
            features: Arc::clone(&self.features),
            vision: Mutex::new(vision),
            text: Mutex::new(text),
            fingerprint: self.fingerprint(weights),
            dim,
        })
    }

    /// Writes the whole model with these weights to `out`, opens it as every other command does, and compares it with the heads over remembered
    /// features. Gives the greatest difference.
    ///
    /// # Errors
    /// [`FrozenError::Export`]: it cannot be written, or the written one differs by more than a ten-thousandth.
    pub fn export(
        &self,
        weights: &Weights,
        out: &Path,
        card: Card,
        (pictures, texts): (&[&[u8]], &[&str]),
        machine: Machine<'_>,
    ) -> Result<f32, FrozenError> {
        let full = |at: usize, tower: &Tower| {
            let lacks = |name: String| FrozenError::Weight { name, reason: "the tower has no such stored tensor".to_owned() };
            Ok::<_, FrozenError>(TowerFile {
                file: self.files[at].clone(),
                model: tower.with_weights(&own(weights, TOWERS[at])).map_err(lacks)?,
            })
        };
        let (vision, text) = (full(0, &self.towers.vision)?, full(1, &self.towers.text)?);
        let logit_scale = f64::from(log_scale(weights)).exp();
        let job = ExportJob { source: &self.source, vision, text, logit_scale, logit_bias: None, head: None, f16: false, card };
        let live = live(&self.encoder(weights)?, pictures, texts)?;
        let difference = std::cell::Cell::new(0.0);
        let check = |folder: &Path| {
            let options = ModelOptions::default();
            let whole = anchorite_encoder::open(machine.runtime, machine.provider, folder, &options, EncoderOptions::default())?;
            difference.set(compare(&whole, &live, TOLERANCE)?);
            Ok(())
        };
        export(&job, out, &check)?;
        Ok(difference.get())
    }

    fn filled(&self, weights: &Weights) -> Result<[Model; 2], FrozenError> {
        let fill = |at: usize| {
            let mut model = self.cuts[at].head.clone();
            let reason = || format!("the {} head has no such weight", TOWERS[at]);
            model.set_weights(&own(weights, TOWERS[at])).map_err(|name| FrozenError::Weight { name, reason: reason() })?;
            Ok::<_, FrozenError>(model)
        };
        Ok([fill(0)?, fill(1)?])
    }
}

/// Writes weights as safetensors.
///
/// # Errors
/// [`FrozenError::Weight`].
pub fn save(weights: &Weights, path: &Path) -> Result<(), FrozenError> {
    let failed = |reason: String| FrozenError::Weight { name: path.display().to_string(), reason };
    let bytes = tensors::write(weights).map_err(failed)?;
    std::fs::write(path, bytes).map_err(|e| failed(e.to_string()))
}

/// Reads weights that [`save`] or a checkpoint wrote.
///
/// # Errors
/// [`FrozenError::Weight`].
pub fn load(path: &Path) -> Result<Weights, FrozenError> {
    let failed = |reason: String| FrozenError::Weight { name: path.display().to_string(), reason };
    tensors::read(&std::fs::read(path).map_err(|e| failed(e.to_string()))?).map_err(failed)
}

/// `(1 - alpha) from + alpha to`, weight by weight and for the logit scale's logarithm: exactly one of them at 0 and 1.
#[must_use]
pub fn mix(from: &Weights, to: &Weights, alpha: f64) -> Weights {
    let mixed = |(name, a): (&String, &Tensor)| {
        let b = to.get(name)?;
        let tensor = match alpha {
            0.0 => a.clone(),
            1.0 => b.clone(),
            alpha => {
                let pairs = a.floats()?.into_iter().zip(b.floats()?);
                let values: Vec<f64> = pairs.map(|(a, b)| (1.0 - alpha) * a + alpha * b).collect();
                Tensor::from_floats(a.kind().clone(), &values)?
            }
        };
        Some((name.clone(), tensor))
    };
    from.iter().filter_map(mixed).collect()
}

fn own(weights: &Weights, tower: &str) -> Weights {
    let prefix = format!("{tower}.");
    weights.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value.clone()))).collect()
}

fn initial(cuts: &[Cut; 2], trained: &dyn Fn(&str) -> bool, log_scale: f32) -> Weights {
    let mut all: Weights = [(LOG_SCALE.to_owned(), Tensor::from_f32([], &[log_scale]))]
        .into_iter()
        .filter_map(|(name, tensor)| Some((name, tensor?)))
        .collect();
    for (tower, cut) in TOWERS.into_iter().zip(cuts) {
        let weight = |(name, tensor): &&(String, Tensor)| trained(name) && tensor.element() == Element::F32 && tensor.len() > 1;
        let chosen = cut.head.graph.initializers.iter().filter(weight);
        all.extend(chosen.map(|(name, tensor)| (format!("{tower}.{name}"), tensor.clone())));
    }
    all
}

fn log_scale(weights: &Weights) -> f32 {
    weights.get(LOG_SCALE).and_then(Tensor::f32s).and_then(|v| v.first().copied()).unwrap_or_default()
}

fn size(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The head behind what makes pixels of a picture (`[n, 3, 1, width]`, filled up with zeros) its values at the seam again.
fn fed_by_pictures(mut model: Model, seam: &str, shape: &[usize]) -> Model {
    let to = |values: &[i64]| Tensor::list(values);
    let dims: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|&d| d as i64)).collect();
    let constants = [
        ("frozen.flat", to(&[0, -1])),
        ("frozen.start", to(&[0])),
        ("frozen.end", to(&[size(shape) as i64])),
        ("frozen.axis", to(&[1])),
        ("frozen.shape", to(&dims)),
    ];
    let nodes = [
        node("Reshape", &["frozen.picture", "frozen.flat"], "frozen.row"),
        node("Slice", &["frozen.row", "frozen.start", "frozen.end", "frozen.axis"], "frozen.values"),
        node("Reshape", &["frozen.values", "frozen.shape"], seam),
    ];
    prepend(&mut model, Element::F32, "frozen.picture", constants.into(), nodes.into());
    model
}

/// The head behind what makes whole numbers of [`UNIT`] (`[n, width]`) values at the seam again.
fn fed_by_texts(mut model: Model, seam: &str, shape: &[usize]) -> Model {
    let dims: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|&d| d as i64)).collect();
    let unit = Tensor::from_f32([], &[UNIT]).unwrap_or_else(|| Tensor::list(&[]));
    let constants = [("frozen.unit", unit), ("frozen.shape", Tensor::list(&dims))];
    let mut cast = node("Cast", &["frozen.text"], "frozen.numbers");
    cast.attributes.insert("to".to_owned(), Attribute::Int(FLOAT));
    let nodes = [
        cast,
        node("Mul", &["frozen.numbers", "frozen.unit"], "frozen.values"),
        node("Reshape", &["frozen.values", "frozen.shape"], seam),
    ];
    prepend(&mut model, Element::I64, "frozen.text", constants.into(), nodes.into());
    model
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
    let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
    Node { name: output.to_owned(), operator: operator.to_owned(), inputs, outputs: vec![output.to_owned()], ..Node::default() }
}

fn prepend(model: &mut Model, element: Element, input: &str, constants: Vec<(&str, Tensor)>, nodes: Vec<Node>) {
    let graph = &mut model.graph;
    graph.inputs = vec![Port { name: input.to_owned(), element, shape: None }];
    graph.initializers.extend(constants.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)));
    graph.nodes.splice(0..0, nodes);
}

/// What heads over remembered features make of some pictures and texts, in the form that written models are compared with.
fn live(heads: &FrozenEncoder, pictures: &[&[u8]], texts: &[&str]) -> Result<Live, FrozenError> {
    let mut live = Live::default();
    let vectors = |made: Vec<Embedding>| made.into_iter().map(Embedding::into_vec);
    for bytes in pictures {
        live.pictures.push(heads.features.pixels(bytes)?);
        live.images.extend(vectors(heads.encode_images(&[heads.prepare_image(bytes)?]).map_err(ExportError::from)?));
    }
    for text in texts {
        live.texts.push(heads.features.tokens(text)?);
        live.captions.extend(vectors(heads.encode_texts(&[heads.prepare_text(text)?]).map_err(ExportError::from)?));
    }
    Ok(live)
}
