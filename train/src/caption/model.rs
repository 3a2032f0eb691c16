//! The captioner's folder and sessions.
//!
//! Layouts, under the folder or its `onnx/`: `encoder_model.onnx` (for BLIP also `vision_model.onnx`), and one of `decoder_model_merged.onnx`; `decoder_model.onnx` with
//! `decoder_with_past_model.onnx`; `decoder_model.onnx` alone, which reads every caption from its start each time. Inputs are told by name:
//! `input_ids`, `encoder_hidden_states`, masks, `past_key_values.N` (which `present.N` becomes) and `use_cache_branch`.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anchorite_encoder::{
    Pixels,
    image::Preprocess,
    model::{ModelLimits, scan},
    session::{self, Engine, SessionOptions},
};
use anchorite_index::Cancel;
use ort::{
    memory::Allocator,
    session::{Session, SessionInputValue},
    value::{DynValue, Tensor as Value, ValueType},
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{
    CaptionError, Decoding, Generated, Step,
    generate::{Ends, generate},
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

/// One graph.
struct Part {
    name: &'static str,
    session: Session,
    inputs: Vec<String>,
    outputs: Vec<String>,
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
        let (decoder, with_past) = match opener.first("decoder", &["decoder_model_merged.onnx"])? {
            Some(merged) => (merged, None),
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
        feeds.insert("pixel_values".to_owned(), float(&pixels, "encoder")?);
        let name = "last_hidden_state".to_owned();
        let mut outputs = self.encoder.run(feeds, &[name.clone()])?;
        outputs.remove(&name).ok_or_else(|| runtime("encoder", "it has no output last_hidden_state"))
    }
}

/// The sessions while captions are written.
struct Running<'a> {
    decoder: &'a mut Part,
    with_past: Option<&'a mut Part>,
    /// By row.
    hidden: Block,
    /// By `N` of `past_key_values.N`, by row.
    past: BTreeMap<String, Block>,
    started: bool,
}

impl Step for Running<'_> {
    fn step(&mut self, ids: &[Vec<u32>], parents: &[usize]) -> Result<Vec<Vec<f32>>, CaptionError> {
        self.hidden = self.hidden.rows(parents);
        self.past.values_mut().for_each(|past| *past = past.rows(parents));
        let merged = self.decoder.inputs.iter().any(|name| name == "use_cache_branch");
        let cached = self.started && !self.past.is_empty() && (merged || self.with_past.is_some());
        let feeds = self.feeds(ids, cached)?;
        let part = match (&mut self.with_past, cached) {
            (Some(part), true) => part,
            _ => &mut *self.decoder,
        };
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

type Feeds = BTreeMap<String, DynValue>;

impl Running<'_> {
    fn feeds(&self, ids: &[Vec<u32>], cached: bool) -> Result<Feeds, CaptionError> {
        let part = match (&self.with_past, cached) {
            (Some(part), true) => part,
            _ => &*self.decoder,
        };
        let length = ids.first().map_or(1, Vec::len);
        let shown = if cached { 1 } else { length };
        let tokens: Vec<i64> = ids.iter().flat_map(|row| row[row.len() - shown..].iter().map(|&id| i64::from(id))).collect();
        let frames = self.hidden.shape.get(1).copied().unwrap_or(1);
        let mut feeds = Feeds::new();
        for name in &part.inputs {
            let value = match name.as_str() {
                "input_ids" => integers(&[ids.len(), shown], tokens.clone()),
                "attention_mask" => integers(&[ids.len(), length], vec![1; ids.len() * length]),
                "position_ids" => {
                    let positions = (0..ids.len()).flat_map(|_| (length - shown..length).map(|p| p as i64)).collect();
                    integers(&[ids.len(), shown], positions)
                }
                "encoder_attention_mask" => integers(&[ids.len(), frames], vec![1; ids.len() * frames]),
                "encoder_hidden_states" => float(&self.hidden, "decoder"),
                "use_cache_branch" => Value::from_array(([1_usize], vec![cached]))
                    .map(Value::into_dyn)
                    .map_err(|e| runtime("decoder", &e.to_string())),
                past => match past.strip_prefix("past_key_values.").and_then(|n| self.past.get(n)) {
                    Some(block) => float(block, "decoder"),
                    None => part.no_past(past, ids.len()),
                },
            }?;
            feeds.insert(name.clone(), value);
        }
        Ok(feeds)
    }
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
    fn run(&mut self, feeds: Feeds, wanted: &[String]) -> Result<BTreeMap<String, Block>, CaptionError> {
        let failed = |reason: String| CaptionError::Runtime { part: self.name, reason };
        if let Some(missing) = self.inputs.iter().find(|name| !feeds.contains_key(*name)) {
            return Err(failed(format!("nothing is known to feed its input {missing:?} with")));
        }
        let inputs: Vec<(String, SessionInputValue<'_>)> = feeds.into_iter().map(|(n, v)| (n, v.into())).collect();
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
        let shape = match input.map(|input| input.dtype()) {
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

/// Opens graphs of one folder.
struct Opener<'a> {
    engine: &'a Engine,
    folder: &'a Path,
    threads: usize,
    hash: Sha256,
}

impl Opener<'_> {
    fn missing(&self, file: &str) -> CaptionError {
        let reason = format!("no {file}, neither here nor in onnx/; export the captioner with optimum (task image-to-text)");
        CaptionError::Folder { path: self.folder.to_owned(), reason }
    }

    /// The first of `names` that is there.
    fn first(&mut self, part: &'static str, names: &[&str]) -> Result<Option<Part>, CaptionError> {
        let places = names.iter().flat_map(|name| [self.folder.join("onnx").join(name), self.folder.join(name)]);
        let Some(path) = places.into_iter().find(|path| path.is_file()) else { return Ok(None) };
        self.open(part, path).map(Some)
    }

    fn open(&mut self, name: &'static str, path: PathBuf) -> Result<Part, CaptionError> {
        let failed = |reason: String| CaptionError::Folder { path: path.clone(), reason };
        let bytes = fs::read(&path).map_err(|e| failed(e.to_string()))?;
        let scanned = scan(&bytes, &ModelLimits::default()).map_err(|e| failed(format!("refused: {e}")))?;
        if !scanned.external_ranges().is_empty() {
            return Err(failed("its weights are in another file; export it with the weights inside".to_owned()));
        }
        self.hash.update(&bytes);
        let options = SessionOptions { count: NonZeroUsize::MIN, threads: self.threads, spinning: false };
        let mut builder = session::builder(self.engine, options).map_err(|e| failed(e.to_string()))?;
        let session = builder.commit_from_memory(&bytes).map_err(|e| failed(e.to_string()))?;
        let inputs = session.inputs().iter().map(|i| i.name().to_owned()).collect();
        let outputs = session.outputs().iter().map(|o| o.name().to_owned()).collect();
        Ok(Part { name, session, inputs, outputs })
    }
}

/// How captions begin and end, by `generation_config.json`, then `config.json`; BLIP's text decoder begins with its own token and ends with `sep`.
fn ends(folder: &Path) -> Result<Ends, CaptionError> {
    let read = |name: &str| -> Result<Option<Json>, CaptionError> {
        let path = folder.join(name);
        match fs::read(&path) {
            Err(_) => Ok(None),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|e| CaptionError::Folder { path, reason: e.to_string() })
            }
        }
    };
    let (generation, config) = (read("generation_config.json")?, read("config.json")?.unwrap_or(Json::Null));
    let blip = config["model_type"].as_str().is_some_and(|kind| kind.starts_with("blip"));
    let nested = if blip { &config["text_config"] } else { &config["decoder"] };
    let places: Vec<&Json> = generation.iter().filter(|_| !blip).chain([&config, nested]).collect();
    let find = |names: &[&str]| {
        let in_place = |place: &&Json| names.iter().map(|name| place[*name].clone()).find(|v| !v.is_null());
        places.iter().rev().find_map(in_place).filter(|_| blip).or_else(|| places.iter().find_map(in_place))
    };
    let numbers = |value: Option<Json>| -> Vec<u32> {
        let all = match value {
            Some(Json::Array(all)) => all,
            other => other.into_iter().collect(),
        };
        all.iter().filter_map(|v| v.as_u64().and_then(|v| u32::try_from(v).ok())).collect()
    };
    let (start, stop): (&[&str], &[&str]) = if blip {
        (&["bos_token_id"], &["sep_token_id"])
    } else {
        (&["decoder_start_token_id", "bos_token_id"], &["eos_token_id"])
    };
    let (prompt, end) = (numbers(find(start)), numbers(find(stop)));
    if prompt.is_empty() || end.is_empty() {
        let reason = format!("neither generation_config.json nor config.json names {} and {}", start[0], stop[0]);
        return Err(CaptionError::Folder { path: folder.to_owned(), reason });
    }
    Ok(Ends { prompt, end })
}
