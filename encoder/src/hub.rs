//! Model names to model folders: a local folder as it is, or a hub id (`org/name`, `org/name@revision`) downloaded into the
//! cache that other tools of the hub share.
//!
//! ```text
//!   "folder"            ──► that folder
//!   "org/name@revision" ──► listing (one commit) ──► the CLIP files of one layout ──► size, SHA-256 ──► snapshot folder
//!                 offline ──► snapshot in the cache, complete or an error with what is missing
//! ```
//!
//! Datasets (`hf://datasets/org/name`) come the same way, whatever files their caller chooses.
//!
//! Only the files that a CLIP model in ONNX needs are downloaded, all of one commit; the reference that names the commit is
//! written last, so an interrupted download is never taken for a model. Not here: reading those files.

#[cfg(feature = "hub")]
mod layout;
#[cfg(feature = "hub")]
mod online;
#[cfg(feature = "hub")]
mod tree;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fetch::is_set;

/// Bounds of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// The longest time without a single byte before a download is given up; default 60 s.
    pub stall: Duration,
    /// Files of a listing that are looked at; default 10,000, where a model repository has some dozens.
    pub listed_files: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self { stall: Duration::from_secs(60), listed_files: 10_000 }
    }
}

/// How the hub is reached, and where what comes from it is kept.
#[derive(Clone, Debug, Default)]
pub struct HubOptions {
    /// The hub's cache folder, shared with its other tools; `None` if neither it nor a home folder is known.
    pub cache: Option<PathBuf>,
    /// Access token, for gated and private repositories.
    pub token: Option<String>,
    /// Only use what is in the cache.
    pub offline: bool,
    /// Address of the hub or of a mirror; `None` for the public one.
    pub endpoint: Option<String>,
    /// Bounds.
    pub limits: HubLimits,
}

impl HubOptions {
    /// As the process environment says, with the variables and defaults of the hub's own Python client: `HF_HUB_CACHE`
    /// (or `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `HF_TOKEN` (or `HF_TOKEN_PATH`, or the token file of a login),
    /// `HF_HUB_OFFLINE`, `HF_ENDPOINT`; and `ANCHORITE_OFFLINE`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_lookup(&|name| std::env::var_os(name))
    }

    /// The same from any lookup of variables.
    #[must_use]
    pub fn from_lookup(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let text = |name| set(name).map(|value| value.to_string_lossy().trim().to_owned());
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| {
            let caches = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let named = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let token_file = set("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("token")));
        let cache = named.or_else(|| Some(home?.join("hub")));
        Self {
            cache: cache.map(|cache| std::path::absolute(&cache).unwrap_or(cache)),
            token: text("HF_TOKEN").or_else(|| token_in(&token_file?)).filter(|token| !token.is_empty()),
            offline: ["HF_HUB_OFFLINE", "ANCHORITE_OFFLINE"].iter().any(|name| is_set(variable, name)),
            endpoint: text("HF_ENDPOINT").map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            limits: HubLimits::default(),
        }
    }
}

fn token_in(file: &Path) -> Option<String> {
    Some(std::fs::read_to_string(file).ok()?.trim().to_owned())
}

/// Which variant of the model is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// The end of the ONNX files' names: empty for full precision, `_fp16`, `_quantized` and the like.
    pub suffix: String,
}

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a folder nor a hub id.
    #[error("there is no model folder `{model}`; name a folder, or a hub model as org/name or org/name@revision")]
    NoFolder {
        /// As given.
        model: String,
    },
    /// A file where a folder is needed.
    #[error("`{model}` is a file; name the model folder that holds onnx/ (or visual/ and textual/), not a file in it")]
    IsFile {
        /// As given.
        model: String,
    },
    /// No id of a dataset.
    #[error(
        "`{dataset}` is no dataset of the hub; name it as hf://datasets/org/name, with @revision after the name where one is meant"
    )]
    NoDataset {
        /// As given.
        dataset: String,
    },
    /// None of a dataset's files is what was asked for.
    #[error("{model}: {reason}")]
    NothingChosen {
        /// As given.
        model: String,
        /// What was looked for, and what there is.
        reason: String,
    },
    /// A suffix that is no part of a file name.
    #[error("`{suffix}` is no end of a file name; say for example _fp16 or _quantized, or nothing for full precision")]
    BadSuffix {
        /// As given.
        suffix: String,
    },
    /// Built without the `hub` feature.
    #[error(
        "`{model}` is not a folder, and this program is built without the feature `hub`: download the model to a folder and name that"
    )]
    NoHub {
        /// As given.
        model: String,
    },
    /// No place to keep models.
    #[error("no folder to keep hub models in: set HF_HOME or HF_HUB_CACHE to one (HOME is not set either)")]
    NoCacheFolder,
    /// Offline, and nothing of the model is in the cache.
    #[error(
        "`{model}` is not in the cache {} and the hub is off (HF_HUB_OFFLINE or ANCHORITE_OFFLINE): unset it to download the \
         model once, or name a local folder",
        cache.display()
    )]
    NotCached {
        /// As given.
        model: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// Offline, and only a part of the model is in the cache.
    #[error(
        "`{model}` is only in part in the cache; {} lacks {}; unset HF_HUB_OFFLINE or ANCHORITE_OFFLINE to download the rest",
        folder.display(), missing.join(", ")
    )]
    Incomplete {
        /// As given.
        model: String,
        /// The folder of the cached commit.
        folder: PathBuf,
        /// What a model needs and is not there.
        missing: Vec<String>,
    },
    /// The repository has no ONNX CLIP model in it.
    #[error("`{model}` is not a CLIP model in ONNX: the repository lacks {}{}", missing.join(", "), others(suffixes))]
    NotAModel {
        /// As given.
        model: String,
        /// What it lacks of the layout that it is nearest to.
        missing: Vec<String>,
        /// Variants that it does have.
        suffixes: Vec<String>,
    },
    /// The hub has no such repository or revision, or does not show it.
    #[error("the hub has no `{model}`, or does not show it: check the name and revision{}", login(*has_token))]
    NotFound {
        /// As given.
        model: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub could not be reached or answered with an error.
    #[error("`{model}`: {what} failed: {reason}; check the network (or HF_ENDPOINT), or name a local folder")]
    Download {
        /// As given.
        model: String,
        /// The file, or the listing.
        what: String,
        /// The client's word.
        reason: String,
    },
    /// No byte came for too long.
    #[error("`{model}`: {what} stalled for {seconds} s; try again, what has come is kept")]
    Stalled {
        /// As given.
        model: String,
        /// The file, or the listing.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// What came is not what the hub announced.
    #[error("`{model}`: {file} is damaged ({reason}) and was removed; try again")]
    Damaged {
        /// As given.
        model: String,
        /// The file.
        file: String,
        /// What differs.
        reason: String,
    },
    /// The listing itself makes no sense.
    #[error("`{model}`: the hub's answer makes no sense: {reason}")]
    BadAnswer {
        /// As given.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// Disk trouble.
    #[error("cannot use the hub cache {}: {source}; HF_HUB_CACHE names another folder", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

fn login(has_token: bool) -> &'static str {
    if has_token { " (and whether the token may read it)" } else { " (a private or gated one needs HF_TOKEN)" }
}

fn others(suffixes: &[String]) -> String {
    let shown = |suffix: &String| if suffix.is_empty() { "full precision".to_owned() } else { suffix.clone() };
    if suffixes.is_empty() {
        String::new()
    } else {
        format!("; it has {}", suffixes.iter().map(shown).collect::<Vec<_>>().join(", "))
    }
}

/// The folder of `model`: a local folder as it is, otherwise from the hub. `progress` gets a short sentence now and then.
///
/// # Errors
/// Each says what to do; see [`HubError`].
pub fn resolve(model: &str, variant: &Variant, options: &HubOptions, progress: &dyn Fn(&str)) -> Result<PathBuf, HubError> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if path.exists() {
        return Err(HubError::IsFile { model: model.to_owned() });
    }
    let Some(id) = HubId::parse(model) else { return Err(HubError::NoFolder { model: model.to_owned() }) };
    if !variant.suffix.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return Err(HubError::BadSuffix { suffix: variant.suffix.clone() });
    }
    from_hub(&id, variant, options, progress)
}

/// The folder that the files of a hub snapshot are links into, if `folder` is one (`models--*/snapshots/*`, `datasets--*/snapshots/*`).
///
/// A snapshot consists of links; a reader that refuses links in model folders can accept those that lead to plain files
/// directly in this folder.
#[must_use]
pub fn blobs_of(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?;
    let name = repository.file_name()?.to_str()?;
    let is_repository = name.starts_with("models--") || name.starts_with("datasets--");
    let blobs = repository.join("blobs");
    (snapshots.file_name()? == "snapshots" && is_repository && blobs.is_dir()).then_some(blobs)
}

/// The files of a dataset at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with the chosen files, which are plain files (the cache's own snapshots consist of links).
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
}

/// Chooses files by their names, or says what is missing.
pub type Choose<'a> = dyn Fn(&[String]) -> Result<Vec<String>, String> + 'a;

/// The files that `choose` takes of the dataset `org/name` at `revision` (`main` when none), downloaded into the hub's cache, each of the size
/// and with the digest that the hub lists. They lie in a folder `datasets--ORG--NAME/anchorite/COMMIT`. `progress` gets a short sentence now
/// and then.
///
/// # Errors
/// Each says what to do; see [`HubError`].
pub fn dataset(
    repository: &str,
    revision: Option<&str>,
    choose: &Choose<'_>,
    options: &HubOptions,
    progress: &dyn Fn(&str),
) -> Result<Snapshot, HubError> {
    let text = format!("{repository}@{}", revision.unwrap_or("main"));
    let id = HubId::parse(&text).ok_or_else(|| HubError::NoDataset { dataset: text.clone() })?;
    let id = HubId { kind: Kind::Dataset, text: format!("hf://datasets/{text}"), ..id };
    dataset_from_hub(&id, choose, options, progress)
}

#[cfg(not(feature = "hub"))]
fn dataset_from_hub(id: &HubId, _: &Choose<'_>, _: &HubOptions, _: &dyn Fn(&str)) -> Result<Snapshot, HubError> {
    Err(HubError::NoHub { model: id.text.clone() })
}

#[cfg(not(feature = "hub"))]
fn from_hub(id: &HubId, _: &Variant, _: &HubOptions, _: &dyn Fn(&str)) -> Result<PathBuf, HubError> {
    Err(HubError::NoHub { model: id.text.clone() })
}

#[cfg(feature = "hub")]
use online::{dataset_from_hub, from_hub};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// The repository's folder in the cache, as the hub's tools call it.
    #[cfg(feature = "hub")]
    fn folder(self, repository: &str) -> String {
        let kind = match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        };
        format!("{kind}--{}", repository.replace('/', "--"))
    }
}

/// `org/name` or `org/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HubId {
    kind: Kind,
    text: String,
    repository: String,
    revision: String,
}

impl HubId {
    /// `None` for what looks like a path rather than an id.
    fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, name) = repository.split_once('/')?;
        let revision_plain = revision.split('/').all(is_plain);
        (is_plain(organisation) && is_plain(name) && revision_plain).then(|| Self {
            kind: Kind::Model,
            text: text.to_owned(),
            repository: repository.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

/// One part of an id or of a path in a repository: never empty, hidden, `..` or anything that a path or address takes apart.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}
