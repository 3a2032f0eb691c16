//! The captioner's folder and sessions.
//!
//! Layouts, under the folder or its `onnx/`: `encoder_model.onnx` (for BLIP also `vision_model.onnx`), and one of `decoder_model_merged.onnx`; `decoder_model.onnx` with
//! `decoder_with_past_model.onnx`; `decoder_model.onnx` alone, which reads every caption from its start each time. Inputs are told by name:
//! `input_ids`, `encoder_hidden_states`, masks, `past_key_values.N` (which `present.N` becomes) and `use_cache_branch`.

use std::{collections::BTreeMap, path::Path};

use anchorite_encoder::{Pixels, image::Preprocess, session::Engine};
use anchorite_index::Cancel;
use ort::{
    memory::Allocator,
    session::{Session, SessionInputValue},
    value::{DynValue, Tensor as Value, ValueType},
};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{
    CaptionError, Decoding, Generated, Step,
    generate::{Ends, generate},
    hoist::HIDDEN,
    open::{Opener, ends},
};

/// A captioner: picture bytes to captions.
pub struct Captioner {
    name: String,
    fingerprint: String,
    prepare: Preprocess,
    tokenizer: Tokenizer,
    ends: Ends,
    encoder: Part,
    decoder: Part,
    /// The decoder that goes on from a cache; none where there is no cache, or where one file does both.
    with_past: Option<Part>,
}

impl std::fmt::Debug for Captioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captioner").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// The words.
    pub text: String,
    /// [`Generated::score`].
    pub score: f32,
}

/// The input of a merged decoder that says which of its branches is meant.
pub(super) const CACHED: &str = "use_cache_branch";
/// Share of a value by which a batch of other rows may round it differently.
const SAME: f32 = 1e-4;

/// One graph.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) session: Session,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// What is made of the pictures once a batch.
    pub(super) prelude: Option<Box<Part>>,
    /// Whether rows of what the prelude makes are rows of its pictures; not known before rows first change.
    pub(super) by_picture: Option<bool>,
}

/// Floats of some shape.
#[derive(Clone, Debug, Default)]
struct Block {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Block {
    /// Rows of the first axis, in another order or number.
    fn rows(&self, which: &[usize]) -> Self {
        let row = self.values.len() / self.shape.first().copied().unwrap_or(1).max(1);
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = which.len();
        }
        let values = which.iter().flat_map(|&r| self.values[r * row..(r + 1) * row].iter().copied()).collect();
        Self { shape, values }
    }
}

impl Captioner {
    /// Opens a folder: graphs, tokenizer, preprocessing, and how captions begin and end.
    ///
    /// # Errors
    /// [`CaptionError::Folder`], naming file and remedy.
    pub fn open(engine: &Engine, folder: &Path, threads: usize) -> Result<Self, CaptionError> {
        let mut opener = Opener { engine, folder, threads, hash: Sha256::new() };
        let encoder = opener.first("encoder", &["encoder_model.onnx", "vision_model.onnx"])?;
        let encoder = encoder.ok_or_else(|| opener.missing("encoder_model.onnx"))?;
        let (decoder, with_past) = match opener.merged("decoder_model_merged.onnx")? {
            Some(both) => both,
            None => {
                let decoder = opener.first("decoder", &["decoder_model.onnx", "text_decoder_model.onnx"])?;
                let decoder = decoder.ok_or_else(|| opener.missing("decoder_model.onnx"))?;
                (decoder, opener.first("decoder", &["decoder_with_past_model.onnx"])?)
            }
        };
        let file = |reason: String| CaptionError::Folder { path: folder.to_owned(), reason };
        let path = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path).map_err(|e| CaptionError::Folder { path, reason: e.to_string() })?;
        let prepare = Preprocess::find(folder).map_err(|e| file(e.to_string()))?;
        let ends = ends(folder)?;
        let name = folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let fingerprint = opener.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { name, fingerprint, prepare, tokenizer, ends, encoder, decoder, with_past })
    }

    /// The folder's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hex SHA-256 over the graphs' bytes.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The preparation of pictures, as the folder says.
    #[must_use]
    pub fn preparation(&self) -> &Preprocess {
        &self.prepare
    }

    /// Whether what the decoder makes of the pictures alone is made once a batch and not once a token.
    #[must_use]
    pub fn reads_pictures_once(&self) -> bool {
        self.with_past.as_ref().unwrap_or(&self.decoder).prelude.is_some()
    }

    /// Captions of prepared pictures, in order. `names` tell pictures apart for the draws of a nucleus: take them from the pictures' bytes.
    ///
    /// # Errors
    /// [`CaptionError::Runtime`], [`CaptionError::Cancelled`].
    pub fn captions(
        &mut self,
        pictures: &[Pixels],
        names: &[u64],
        decoding: &Decoding,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Caption>>, CaptionError> {
        let generated = self.ids(pictures, names, decoding, cancel)?;
        let words = |g: &Generated| {
            let text = self.tokenizer.decode(&g.ids, true);
            let text = text.map_err(|e| CaptionError::Runtime { part: "tokenizer", reason: e.to_string() })?;
            Ok(Caption { text: text.trim().to_owned(), score: g.score })
        };
        generated.iter().map(|of_picture| of_picture.iter().map(words).collect()).collect()
    }

    /// As [`Captioner::captions`], as token ids.
    ///
    /// # Errors
    /// As [`Captioner::captions`].
    pub fn ids(
        &mut self,
        pictures: &[Pixels],
        names: &[u64],
        decoding: &Decoding,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<Generated>>, CaptionError> {
        let decoding = decoding.checked()?;
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.encode(pictures)?;
        let ends = self.ends.clone();
        let mut running = Running {
            decoder: &mut self.decoder,
            with_past: self.with_past.as_mut(),
            hidden,
            pictures: Vec::new(),
            shown: BTreeMap::new(),
            seams: None,
            cached: false,
            past: BTreeMap::new(),
            started: false,
        };
        generate(&mut running, names, &ends.prompt, &ends.end, &decoding, cancel)
    }

    fn encode(&mut self, pictures: &[Pixels]) -> Result<Block, CaptionError> {
        let [height, width] = [pictures[0].height, pictures[0].width];
        let values = pictures.iter().flat_map(|p| p.values.iter().copied()).collect();
        let pixels = Block { shape: vec![pictures.len(), 3, height, width], values };
        let mut feeds = Feeds::new();
        feeds.insert("pixel_values".to_owned(), float(&pixels, "encoder")?.into());
        let name = "last_hidden_state".to_owned();
        let mut outputs = self.encoder.run(feeds, std::slice::from_ref(&name))?;
        outputs.remove(&name).ok_or_else(|| runtime("encoder", "it has no output last_hidden_state"))
    }
}

/// The sessions while captions are written.
struct Running<'a> {
    decoder: &'a mut Part,
    with_past: Option<&'a mut Part>,
    /// By picture.
    hidden: Block,
    /// Which picture each row is of.
    pictures: Vec<usize>,
    /// What the decoder in use reads of the pictures, by row: hidden states, and what its prelude makes of them. Made anew when rows change pictures.
    shown: BTreeMap<String, DynValue>,
    /// By `N` of `past_key_values.N`, by row.
    past: BTreeMap<String, Block>,
    /// What the prelude makes, by picture; none before a decoder's first step.
    seams: Option<BTreeMap<String, Block>>,
    /// Whether the last step went on from the cache.
    cached: bool,
    started: bool,
}

impl Step for Running<'_> {
    fn step(&mut self, ids: &[Vec<u32>], parents: &[usize]) -> Result<Vec<Vec<f32>>, CaptionError> {
        let pictures = if self.started { parents.iter().map(|&row| self.pictures[row]).collect() } else { parents.to_vec() };
        if parents.iter().enumerate().any(|(row, &parent)| row != parent) || parents.len() != self.pictures.len() {
            self.past.values_mut().for_each(|past| *past = past.rows(parents));
        }
        let merged = self.decoder.inputs.iter().any(|name| name == CACHED);
        let cached = self.started && !self.past.is_empty() && (merged || self.with_past.is_some());
        let part = match (&mut self.with_past, cached) {
            (Some(part), true) => &mut **part,
            _ => &mut *self.decoder,
        };
        if cached != self.cached {
            self.seams = None;
        }
        if self.seams.is_none() || pictures != self.pictures {
            self.shown = part.shown(&self.hidden, &pictures, self.seams.get_or_insert_default())?;
        }
        (self.pictures, self.cached) = (pictures, cached);
        let feeds = feeds(part, &self.shown, &self.past, ids, cached)?;
        let wanted: Vec<String> = part.outputs.iter().filter(|o| *o == "logits" || o.starts_with("present")).cloned().collect();
        let mut outputs = part.run(feeds, &wanted)?;
        let logits = outputs.remove("logits").ok_or_else(|| runtime("decoder", "it has no output logits"))?;
        for (name, block) in outputs {
            // A decoder that keeps the pictures' part of its cache gives nothing for it when it goes on.
            if let Some(name) = name.strip_prefix("present.").filter(|_| !block.values.is_empty()) {
                self.past.insert(name.to_owned(), block);
            }
        }
        self.started = true;
        last(&logits, ids.len())
    }
}

type Feeds<'v> = BTreeMap<String, SessionInputValue<'v>>;

fn feeds<'v>(
    part: &Part,
    shown: &'v BTreeMap<String, DynValue>,
    past: &BTreeMap<String, Block>,
    ids: &[Vec<u32>],
    cached: bool,
) -> Result<Feeds<'v>, CaptionError> {
    let length = ids.first().map_or(1, Vec::len);
    let new = if cached { 1 } else { length };
    let tokens: Vec<i64> = ids.iter().flat_map(|row| row[row.len() - new..].iter().map(|&id| i64::from(id))).collect();
    let mut feeds = Feeds::new();
    for name in &part.inputs {
        if let Some(value) = shown.get(name) {
            feeds.insert(name.clone(), value.into());
            continue;
        }
        let value = match name.as_str() {
            "input_ids" => integers(&[ids.len(), new], tokens.clone()),
            "attention_mask" => integers(&[ids.len(), length], vec![1; ids.len() * length]),
            "position_ids" => {
                let positions = (0..ids.len()).flat_map(|_| (length - new..length).map(|p| p as i64)).collect();
                integers(&[ids.len(), new], positions)
            }
            CACHED => {
                Value::from_array(([1_usize], vec![cached])).map(Value::into_dyn).map_err(|e| runtime("decoder", &e.to_string()))
            }
            name => match name.strip_prefix("past_key_values.").and_then(|n| past.get(n)) {
                Some(block) => float(block, "decoder"),
                None => part.no_past(name, ids.len()),
            },
        }?;
        feeds.insert(name.clone(), value.into());
    }
    Ok(feeds)
}

/// The logits of each row's last token.
fn last(logits: &Block, rows: usize) -> Result<Vec<Vec<f32>>, CaptionError> {
    let [found, length, words] = logits.shape[..] else {
        return Err(runtime("decoder", "its logits have not three axes"));
    };
    if found != rows || length == 0 || logits.values.iter().any(|v| v.is_nan()) {
        return Err(runtime("decoder", "its logits are not numbers, or not one row a caption"));
    }
    let row = |r: usize| logits.values[(r * length + length - 1) * words..(r + 1) * length * words].to_vec();
    Ok((0..rows).map(row).collect())
}

fn runtime(part: &'static str, reason: &str) -> CaptionError {
    CaptionError::Runtime { part, reason: reason.to_owned() }
}

fn float(block: &Block, part: &'static str) -> Result<DynValue, CaptionError> {
    let value = Value::from_array((block.shape.clone(), block.values.clone()));
    value.map(Value::into_dyn).map_err(|e| runtime(part, &e.to_string()))
}

fn integers(shape: &[usize], values: Vec<i64>) -> Result<DynValue, CaptionError> {
    let value = Value::from_array((shape.to_vec(), values));
    value.map(Value::into_dyn).map_err(|e| runtime("decoder", &e.to_string()))
}

impl Part {
    /// What it reads of the pictures, for these rows' pictures. `seams` is what the prelude made of each picture before.
    fn shown(
        &mut self,
        hidden: &Block,
        pictures: &[usize],
        seams: &mut BTreeMap<String, Block>,
    ) -> Result<BTreeMap<String, DynValue>, CaptionError> {
        let frames = hidden.shape.get(1).copied().unwrap_or(1);
        let mask = integers(&[pictures.len(), frames], vec![1; pictures.len() * frames])?;
        let mut shown = BTreeMap::from([("encoder_attention_mask".to_owned(), mask)]);
        for (name, block) in self.seams(hidden, pictures, seams)? {
            shown.insert(name, float(&block, self.name)?);
        }
        shown.insert(HIDDEN.to_owned(), float(&hidden.rows(pictures), self.name)?);
        Ok(shown)
    }

    /// The prelude's values by row. They are made once by picture and then picked, if that gives what making them by row does.
    fn seams(
        &mut self,
        hidden: &Block,
        pictures: &[usize],
        seams: &mut BTreeMap<String, Block>,
    ) -> Result<BTreeMap<String, Block>, CaptionError> {
        let Some(prelude) = &mut self.prelude else { return Ok(BTreeMap::new()) };
        let wanted = prelude.outputs.clone();
        let mut of = |hidden: &Block| -> Result<BTreeMap<String, Block>, CaptionError> {
            let feeds = Feeds::from([(HIDDEN.to_owned(), float(hidden, prelude.name)?.into())]);
            prelude.run(feeds, &wanted)
        };
        if self.by_picture == Some(false) {
            return of(&hidden.rows(pictures));
        }
        if seams.is_empty() {
            *seams = of(hidden)?;
        }
        let count = hidden.shape.first().copied();
        if pictures.iter().copied().eq(0..count.unwrap_or(0)) {
            return Ok(seams.clone());
        }
        let fits = seams.values().all(|block| block.shape.first().copied() == count);
        let picked = |seams: &BTreeMap<String, Block>| seams.iter().map(|(name, b)| (name.clone(), b.rows(pictures))).collect();
        if fits && self.by_picture == Some(true) {
            return Ok(picked(seams));
        }
        let direct = of(&hidden.rows(pictures))?;
        let close = |a: &Block, b: &Block| {
            a.shape == b.shape && a.values.iter().zip(&b.values).all(|(a, b)| (a - b).abs() <= SAME * (1.0 + b.abs()))
        };
        let same = fits && {
            let picked: BTreeMap<String, Block> = picked(seams);
            direct.iter().all(|(name, block)| picked.get(name).is_some_and(|p| close(p, block)))
        };
        self.by_picture = Some(same);
        Ok(direct)
    }

    fn run(&mut self, feeds: Feeds<'_>, wanted: &[String]) -> Result<BTreeMap<String, Block>, CaptionError> {
        let failed = |reason: String| CaptionError::Runtime { part: self.name, reason };
        if let Some(missing) = self.inputs.iter().find(|name| !feeds.contains_key(*name)) {
            return Err(failed(format!("nothing is known to feed its input {missing:?} with")));
        }
        let inputs: Vec<(String, SessionInputValue<'_>)> = feeds.into_iter().collect();
        let outputs = self.session.run(inputs).map_err(|e| failed(e.to_string()))?;
        let block = |name: &String| {
            let value = outputs.get(name).ok_or_else(|| failed(format!("it has no output {name:?}")))?;
            let (shape, values) = value.try_extract_tensor::<f32>().map_err(|e| failed(e.to_string()))?;
            let shape = shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
            Ok((name.clone(), Block { shape, values: values.to_vec() }))
        };
        wanted.iter().map(block).collect()
    }

    /// An empty cache for the first step of a decoder that has both branches in one graph.
    fn no_past(&self, name: &str, rows: usize) -> Result<DynValue, CaptionError> {
        let input = self.session.inputs().iter().find(|input| input.name() == name);
        let shape = match input.map(ort::value::Outlet::dtype) {
            Some(ValueType::Tensor { shape, .. }) if name.starts_with("past_key_values.") && shape.len() == 4 => shape,
            _ => return Err(runtime("decoder", &format!("nothing is known to feed its input {name:?} with"))),
        };
        let fixed = |axis: usize| usize::try_from(shape[axis]).ok().filter(|&d| d > 0);
        let (Some(heads), Some(width)) = (fixed(1), fixed(3)) else {
            return Err(runtime("decoder", &format!("input {name:?} does not say how many heads it has and how wide they are")));
        };
        let value = Value::<f32>::new(&Allocator::default(), [rows, heads, 0, width]);
        value.map(Value::into_dyn).map_err(|e| runtime("decoder", &e.to_string()))
    }
}
