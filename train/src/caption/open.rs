//! A captioner's folder: graphs, and how captions begin and end.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anchorite_encoder::{
    model::{ModelLimits, scan},
    session::{self, Engine, SessionOptions},
};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::{
    CaptionError,
    generate::Ends,
    hoist::{Hoisted, hoist},
    model::{CACHED, Part},
};
use crate::graph::{ExternalFiles, Model};

/// Opens graphs of one folder.
pub(super) struct Opener<'a> {
    pub(super) engine: &'a Engine,
    pub(super) folder: &'a Path,
    pub(super) threads: usize,
    pub(super) hash: Sha256,
}

impl Opener<'_> {
    pub(super) fn missing(&self, file: &str) -> CaptionError {
        let reason = format!("no {file}, neither here nor in onnx/; export the captioner with optimum (task image-to-text)");
        CaptionError::Folder { path: self.folder.to_owned(), reason }
    }

    /// The first of `names` that is there.
    pub(super) fn first(&mut self, part: &'static str, names: &[&str]) -> Result<Option<Part>, CaptionError> {
        let Some(path) = self.place(names) else { return Ok(None) };
        let bytes = self.read(&path)?;
        let model = Model::read(&bytes, &ExternalFiles::default(), &ModelLimits::default()).ok().filter(|_| part == "decoder");
        match model.as_ref().and_then(hoist) {
            Some(parts) => self.hoisted(part, &path, &parts).map(Some),
            None => self.part(part, &path, &bytes, None).map(Some),
        }
    }

    /// The decoder, and the one that goes on from a cache, of one file for both: as two graphs, so that each can be hoisted; as the one that it is where it
    /// is no plain choice between two. Two graphs hold their weights twice, as two files do.
    pub(super) fn merged(&mut self, name: &str) -> Result<Option<(Part, Option<Part>)>, CaptionError> {
        let Some(path) = self.place(&[name]) else { return Ok(None) };
        let bytes = self.read(&path)?;
        let branches = Model::branches(&bytes, CACHED, &ModelLimits::default()).ok().flatten();
        let Some([past, first]) = branches else { return Ok(Some((self.part("decoder", &path, &bytes, None)?, None))) };
        let open = |model: &Model| match hoist(model) {
            Some(parts) => self.hoisted("decoder", &path, &parts),
            None => self.part("decoder", &path, &model.write(), None),
        };
        Ok(Some((open(&first)?, Some(open(&past)?))))
    }

    fn place(&self, names: &[&str]) -> Option<PathBuf> {
        let places = names.iter().flat_map(|name| [self.folder.join("onnx").join(name), self.folder.join(name)]);
        places.into_iter().find(|path| path.is_file())
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, CaptionError> {
        let bytes = fs::read(path).map_err(|e| failed(path, e.to_string()))?;
        let scanned = scan(&bytes, &ModelLimits::default()).map_err(|e| failed(path, format!("refused: {e}")))?;
        if !scanned.external_ranges().is_empty() {
            return Err(failed(path, "its weights are in another file; export it with the weights inside".to_owned()));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn hoisted(&self, name: &'static str, path: &Path, parts: &Hoisted) -> Result<Part, CaptionError> {
        let prelude = self.part("decoder's prelude", path, &parts.prelude.write(), None)?;
        self.part(name, path, &parts.rest.write(), Some(Box::new(prelude)))
    }

    fn part(&self, name: &'static str, path: &Path, bytes: &[u8], prelude: Option<Box<Part>>) -> Result<Part, CaptionError> {
        let options = SessionOptions { count: NonZeroUsize::MIN, threads: self.threads, spinning: false };
        let mut builder = session::builder(self.engine, options).map_err(|e| failed(path, e.to_string()))?;
        let session = builder.commit_from_memory(bytes).map_err(|e| failed(path, e.to_string()))?;
        let inputs = session.inputs().iter().map(|i| i.name().to_owned()).collect();
        let outputs = session.outputs().iter().map(|o| o.name().to_owned()).collect();
        Ok(Part { name, session, inputs, outputs, prelude, by_picture: None })
    }
}

fn failed(path: &Path, reason: String) -> CaptionError {
    CaptionError::Folder { path: path.to_owned(), reason }
}

/// How captions begin and end, by `generation_config.json`, then `config.json`; BLIP's text decoder begins with its own token and ends with `sep`.
pub(super) fn ends(folder: &Path) -> Result<Ends, CaptionError> {
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
