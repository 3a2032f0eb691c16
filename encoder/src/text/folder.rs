//! Which tokenizer files a model folder holds, and what they say about length, padding and cleaning.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Clean, Mode, TextLimits, TokenizerError};

/// open_clip's default, and transformers' for a CLIP configuration that leaves it out.
const CLIP_CONTEXT: usize = 77;
/// transformers' default for a SigLIP configuration that leaves it out.
const SIGLIP_CONTEXT: usize = 64;
/// transformers writes 1e30 for "no limit"; no text tower takes more than this.
const NO_LIMIT: u64 = 1_000_000;
/// Where the tokenizer lies, beneath the model folder, in the layouts we know.
const PLACES: [&str; 2] = [OPEN_CLIP_PLACE, ""];
const OPEN_CLIP_PLACE: &str = "textual";

/// The files, read.
pub(super) struct Folder {
    pub(super) tokenizer_path: PathBuf,
    pub(super) tokenizer: Vec<u8>,
    pub(super) files: Vec<PathBuf>,
    /// `tokenizer_config.json` and `special_tokens_map.json`, null where absent.
    tokenizer_config: Value,
    special_tokens: Value,
    /// Hugging Face's `config.json`, null where absent.
    config: Value,
    /// open_clip's `text_cfg`, null where absent.
    text_cfg: Value,
    /// Whose layout it is.
    mode: Mode,
}

impl Folder {
    pub(super) fn read(dir: &Path, limits: &TextLimits) -> Result<Self, TokenizerError> {
        let mut reader = Reader { limits, files: Vec::new() };
        let Some(place) = PLACES.into_iter().find(|place| dir.join(place).join("tokenizer.json").exists()) else {
            return Err(TokenizerError::Missing { dir: dir.to_owned() });
        };
        let at = dir.join(place);
        let tokenizer_path = at.join("tokenizer.json");
        let tokenizer = reader.bytes(&tokenizer_path)?;
        let tokenizer_config = reader.json(&at.join("tokenizer_config.json"))?;
        let special_tokens = reader.json(&at.join("special_tokens_map.json"))?;
        let config = reader.json(&dir.join("config.json"))?;
        let open_clip = reader.json(&dir.join("open_clip_config.json"))?;
        let text_cfgs = [&config, &config["model_cfg"], &open_clip["model_cfg"]].map(|of| &of["text_cfg"]);
        let text_cfg = text_cfgs.into_iter().find(|cfg| cfg.is_object()).cloned().unwrap_or(Value::Null);
        // Repositories that carry both configurations are Hugging Face's: transformers.js reads those.
        let is_transformers = config["model_type"].is_string() && place != OPEN_CLIP_PLACE;
        let mode = if text_cfg.is_object() && !is_transformers { Mode::OpenClip } else { Mode::HuggingFace };
        let files = reader.files;
        Ok(Self { tokenizer_path, tokenizer, files, tokenizer_config, special_tokens, config, text_cfg, mode })
    }

    /// The way of the layout.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// How many tokens the text tower takes: the least of what the files say.
    pub(super) fn context(&self, stored: Option<usize>) -> Option<usize> {
        let size = |value: &Value| usize::try_from(value.as_u64().filter(|&n| n <= NO_LIMIT)?).ok();
        let open_clip = self.text_cfg.is_object().then(|| size(&self.text_cfg["context_length"]).unwrap_or(CLIP_CONTEXT));
        if self.mode == Mode::OpenClip {
            return open_clip;
        }
        let text_config = Some(&self.config["text_config"]).filter(|config| config.is_object()).unwrap_or(&self.config);
        let positions = size(&text_config["max_position_embeddings"]).map(|n| n.saturating_sub(reserved_positions(text_config)));
        let said = [stored, size(&self.tokenizer_config["model_max_length"]), positions, open_clip];
        said.into_iter().flatten().min().or_else(|| default_context(&self.config))
    }

    /// A special token's text by its role, such as `pad_token`.
    pub(super) fn special(&self, role: &str) -> Option<&str> {
        let of = |value| -> Option<&str> { Value::as_str(value).or_else(|| value["content"].as_str()) };
        of(&self.tokenizer_config[role]).or_else(|| of(&self.special_tokens[role]))
    }

    /// Whether open_clip would run a Hugging Face tokenizer for this model, instead of its own.
    pub(super) fn names_hf_tokenizer(&self) -> bool {
        self.text_cfg["hf_tokenizer_name"].as_str().is_some_and(|name| !name.is_empty())
    }

    /// The cleaning that the model's configuration names.
    pub(super) fn clean(&self) -> Result<Option<Clean>, TokenizerError> {
        match &self.text_cfg["tokenizer_kwargs"]["clean"] {
            Value::Null => Ok(None),
            named => match named.as_str().and_then(Clean::named) {
                Some(clean) => Ok(Some(clean)),
                None => Err(self.unsupported(format!("cleaning {named}"))),
            },
        }
    }

    /// Whether separators become zeros (CLIPA).
    pub(super) fn strips_separator(&self) -> bool {
        self.text_cfg["tokenizer_kwargs"]["strip_sep_token"].as_bool().unwrap_or(false)
    }

    /// Refuses what would change ids in ways that are not done here.
    pub(super) fn check_open_clip(&self) -> Result<(), TokenizerError> {
        match self.text_cfg["tokenizer_mode"].as_str() {
            None | Some("") => Ok(()),
            Some(mode) => Err(self.unsupported(format!("tokenizer_mode {mode:?}"))),
        }
    }

    fn unsupported(&self, what: String) -> TokenizerError {
        TokenizerError::Unsupported { path: self.tokenizer_path.clone(), what }
    }
}

/// Towers of the RoBERTa family number their positions from two on.
fn reserved_positions(text_config: &Value) -> usize {
    match text_config["model_type"].as_str() {
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => 2,
        _ => 0,
    }
}

fn default_context(config: &Value) -> Option<usize> {
    match config["model_type"].as_str()? {
        "clip" | "clip_text_model" => Some(CLIP_CONTEXT),
        "siglip" | "siglip2" => Some(SIGLIP_CONTEXT),
        _ => None,
    }
}

struct Reader<'a> {
    limits: &'a TextLimits,
    files: Vec<PathBuf>,
}

impl Reader<'_> {
    /// A file that must be there.
    fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, TokenizerError> {
        let io = |source| TokenizerError::Io { path: path.to_owned(), source };
        let max = self.limits.max_file_bytes;
        let found = std::fs::metadata(path).map_err(io)?;
        if !found.is_file() {
            return Err(io(std::io::Error::other("not a plain file")));
        }
        let mut bytes = Vec::new();
        File::open(path).map_err(io)?.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > max {
            return Err(TokenizerError::FileTooLarge { path: path.to_owned(), bytes: found.len(), max });
        }
        self.files.push(path.to_owned());
        Ok(bytes)
    }

    /// A file that may be absent: null then.
    fn json(&mut self, path: &Path) -> Result<Value, TokenizerError> {
        if !path.exists() {
            return Ok(Value::Null);
        }
        let bytes = self.bytes(path)?;
        serde_json::from_slice(&bytes).map_err(|source| TokenizerError::Json { path: path.to_owned(), source })
    }
}
