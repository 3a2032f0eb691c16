//! ONNX Runtime without the user: finds a library that can be used, or fetches the pinned one, and loads it once per
//! process.
//!
//! ```text
//!   named (flag, ORT_DYLIB_PATH) ──► it, or an error
//!   otherwise: beside the executable ► our cache ► the system ► a Python package ► fetch (PyPI, then npm)
//!                      │ each candidate is asked for its version first; what is refused is reported
//!                      ▼
//!                 Runtime: path, version, providers, the environment for sessions
//! ```
//!
//! Not here: sessions and models.

pub mod doctor;
mod ffi;
mod image;
pub mod pins;
mod provider;
mod search;

use std::ffi::OsString;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;

use crate::fetch::{FetchError, FetchOptions, Fetcher, Registry};

pub use doctor::cpu_features;
pub use provider::{Provider, UnknownProvider};

/// Where to look for ONNX Runtime. Each field is a place; an empty one is not looked at.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// Named on the command line (`--ort-library`).
    pub library: Option<PathBuf>,
    /// Named by `ORT_DYLIB_PATH`.
    pub env_library: Option<PathBuf>,
    /// The folder of the executable.
    pub executable_folder: Option<PathBuf>,
    /// Our cache folder, and whether and how to fetch into it.
    pub fetch: Option<FetchOptions>,
    /// Folders of the system's loader.
    pub system_folders: Vec<PathBuf>,
    /// Where Python is looked for, in the form of `PATH`.
    pub python_search_path: Option<OsString>,
}

impl RuntimeOptions {
    /// All places, as the process environment says. Add what the command line names in `library`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_lookup(&|name| std::env::var_os(name))
    }

    /// The same from any lookup of variables.
    #[must_use]
    pub fn from_lookup(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        Self {
            library: None,
            env_library: set("ORT_DYLIB_PATH").map(PathBuf::from),
            executable_folder: std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned())),
            // Without a cache folder there is nothing to search and nowhere to fetch to; the other places remain.
            fetch: FetchOptions::from_lookup(variable).ok(),
            system_folders: search::system_folders(variable),
            python_search_path: set("PATH"),
        }
    }

    /// The library that the user named, if one is.
    fn named(&self) -> Option<(Origin, &Path)> {
        let flag = self.library.as_deref().map(|path| (Origin::Flag, path));
        flag.or_else(|| self.env_library.as_deref().map(|path| (Origin::Variable, path)))
    }
}

/// How a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// Named on the command line.
    Flag,
    /// Named by `ORT_DYLIB_PATH`.
    Variable,
    /// Beside the executable.
    Executable,
    /// In our cache folder.
    Cache,
    /// In a folder of the system's loader.
    System,
    /// In an installed Python package.
    Python,
    /// Just fetched from PyPI.
    FetchedPyPi,
    /// Just fetched from npm.
    FetchedNpm,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Flag => "--ort-library",
            Self::Variable => "ORT_DYLIB_PATH",
            Self::Executable => "beside the executable",
            Self::Cache => "the cache folder",
            Self::System => "the system's library folders",
            Self::Python => "an installed Python package",
            Self::FetchedPyPi => "fetched from PyPI",
            Self::FetchedNpm => "fetched from npm",
        })
    }
}

/// Why a candidate is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No such file.
    #[error("there is no such file")]
    Missing,
    /// A folder in which no library was found that could be used.
    #[error("no ONNX Runtime library there")]
    NothingThere,
    /// Python has no such package.
    #[error("it has no package onnxruntime")]
    NoPackage,
    /// A folder.
    #[error("it is a folder; name the library file in it")]
    Folder,
    /// Cannot be looked at.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// The system's word.
        reason: String,
    },
    /// In the cache, but its content is not that of the pin.
    #[error("its content is not the pinned one")]
    NotAsPinned,
    /// No library at all.
    #[error("it is not a shared library: {reason}")]
    NotALibrary {
        /// What is wrong.
        reason: String,
    },
    /// The end of the file is missing.
    #[error("it is cut short after {bytes} bytes; fetch it again")]
    CutShort {
        /// What is there.
        bytes: u64,
    },
    /// A library for another processor.
    #[error("it is built for {theirs}, this program for {ours}")]
    OtherMachine {
        /// Its processor.
        theirs: String,
        /// Ours.
        ours: &'static str,
    },
    /// The loader's refusal, such as a C library that is too old.
    #[error("it does not load: {reason}")]
    NotLoadable {
        /// The loader's word.
        reason: String,
    },
    /// A library, but another one.
    #[error("it is a library, but not ONNX Runtime (it has no OrtGetApiBase)")]
    NotOnnxRuntime,
    /// Too old for the interface that is used.
    #[error("it is ONNX Runtime {version}; {needed} or newer is needed")]
    TooOld {
        /// Its version.
        version: String,
        /// The lowest that serves.
        needed: String,
    },
}

/// A place that was looked at in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which place.
    pub origin: Origin,
    /// The file, folder or program.
    pub path: PathBuf,
    /// Why not.
    pub refusal: Refusal,
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, {}: {}", self.origin, self.path.display(), self.refusal)
    }
}

/// A library that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The library file.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
    /// What it says it is.
    pub version: String,
    /// What was looked at before, and why it was passed over.
    pub tried: Vec<Tried>,
}

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The library that the user named cannot be used.
    #[error(
        "the ONNX Runtime library {} (named by {origin}) cannot be used: {refusal}. Name another one, or none to have one \
         found or fetched",
        path.display()
    )]
    Named {
        /// By what.
        origin: Origin,
        /// As named.
        path: PathBuf,
        /// Why not.
        refusal: Refusal,
    },
    /// There is none, and none could be fetched.
    #[error("{}", not_found(tried, fetching))]
    NotFound {
        /// What was looked at.
        tried: Vec<Tried>,
        /// Why fetching failed, one for each package; empty if it was not tried.
        fetching: Vec<FetchError>,
    },
    /// One is loaded already, and a process can have only one.
    #[error("ONNX Runtime is already loaded from {}; {} cannot be loaded beside it", loaded.display(), asked.display())]
    AlreadyLoaded {
        /// The loaded one.
        loaded: PathBuf,
        /// The one asked for.
        asked: PathBuf,
    },
    /// It loaded but would not start.
    #[error("ONNX Runtime {} ({version}) did not start: {reason}. Use another build of it", path.display())]
    NotStarted {
        /// The library.
        path: PathBuf,
        /// Its version.
        version: String,
        /// Its word.
        reason: String,
    },
    /// The library has no such execution provider.
    #[error("this ONNX Runtime has no {} (it has {}): {remedy}", provider.ort_name(), available.join(", "))]
    NoProvider {
        /// Asked for.
        provider: Provider,
        /// What there is.
        available: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// The library has the provider, and the machine has no driver for it.
    #[error(
        "the provider {provider} needs a driver, and its library {library} does not load on this machine ({reason}): install NVIDIA's \
         driver, start a container with `--gpus all`, or use the provider cpu"
    )]
    NoDriver {
        /// Asked for.
        provider: Provider,
        /// The driver's library.
        library: &'static str,
        /// The loader's word.
        reason: String,
    },
}

fn not_found(tried: &[Tried], fetching: &[FetchError]) -> String {
    let list = |items: Vec<String>| items.join("\n  - ");
    let mut text = String::from("no ONNX Runtime library was found");
    if !tried.is_empty() {
        text.push_str(":\n  - ");
        text.push_str(&list(tried.iter().map(ToString::to_string).collect()));
    }
    if !fetching.is_empty() {
        text.push_str("\nand none could be fetched:\n  - ");
        text.push_str(&list(fetching.iter().map(ToString::to_string).collect()));
    }
    text.push_str(&format!(
        "\nSet {}, or `pip install onnxruntime`, or install pip or npm and unset ANCHORITE_OFFLINE so that it is fetched.",
        named_library()
    ));
    text
}

/// The end of "set ...".
fn named_library() -> String {
    format!("ORT_DYLIB_PATH (or --ort-library) to a libonnxruntime of version 1.{} or newer", ort::MINOR_VERSION)
}

/// Looks in all places of `options`, fetches nothing, and commits this process to nothing.
///
/// # Errors
/// [`RuntimeError::Named`] if a library was named and cannot be used; [`RuntimeError::NotFound`] if there is none.
pub fn locate(options: &RuntimeOptions) -> Result<Located, RuntimeError> {
    search::locate(options)
}

/// Like [`locate`], and fetches the pinned library if there is none. `progress` gets a short sentence now and then.
///
/// # Errors
/// As [`locate`]; the error also says why fetching failed.
pub fn locate_or_fetch(options: &RuntimeOptions, progress: &dyn Fn(&str)) -> Result<Located, RuntimeError> {
    let tried = match locate(options) {
        Err(RuntimeError::NotFound { tried, .. }) => tried,
        other => return other,
    };
    let Some(fetch) = options.fetch.clone() else {
        return Err(RuntimeError::NotFound { tried, fetching: Vec::new() });
    };
    let fetcher = Fetcher::new(fetch);
    let mut fetching = Vec::new();
    let mut refused = Vec::new();
    for package in pins::packages_here() {
        let origin = if package.registry == Registry::Npm { Origin::FetchedNpm } else { Origin::FetchedPyPi };
        match fetcher.ensure(&package, progress).map(|path| search::named(origin, &path)) {
            Ok(Ok(located)) => return Ok(Located { tried, ..located }),
            Ok(Err(RuntimeError::Named { path, refusal, .. })) => refused.push(Tried { origin, path, refusal }),
            Ok(Err(other)) => return Err(other),
            // The same would be said of each package.
            Err(error @ FetchError::Offline { .. }) => {
                fetching.push(error);
                break;
            }
            Err(error) => fetching.push(error),
        }
    }
    Err(RuntimeError::NotFound { tried: tried.into_iter().chain(refused).collect(), fetching })
}

/// The loaded ONNX Runtime; there is one per process.
#[derive(Debug)]
pub struct Runtime {
    located: Located,
    providers: Vec<String>,
    environment: Environment,
}

impl Runtime {
    /// The library file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.located.path
    }

    /// How it was found.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.located.origin
    }

    /// What it says it is, such as `1.31.1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.located.version
    }

    /// What was looked at before it was found.
    #[must_use]
    pub fn tried(&self) -> &[Tried] {
        &self.located.tried
    }

    /// For `Session::builder`.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Names of the execution providers, as the library itself lists them.
    #[must_use]
    pub fn available_providers(&self) -> &[String] {
        &self.providers
    }

    /// Whether sessions can ask for `provider`.
    ///
    /// # Errors
    /// [`RuntimeError::NoProvider`] or [`RuntimeError::NoDriver`], which say what to do.
    pub fn check_provider(&self, provider: Provider) -> Result<(), RuntimeError> {
        provider.check(&self.providers)?;
        provider.check_driver(ffi::loads)
    }
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// Held while loading, so that two threads do not search and fetch at once.
static LOADING: Mutex<()> = Mutex::new(());

/// Finds, if need be fetches, and loads ONNX Runtime; later calls give the same one. A failed call leaves nothing behind
/// and may be repeated with other options.
///
/// # Errors
/// As [`locate_or_fetch`]; [`RuntimeError::AlreadyLoaded`] if `options` name another library than the loaded one.
pub fn init(options: &RuntimeOptions, progress: &dyn Fn(&str)) -> Result<&'static Runtime, RuntimeError> {
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return same_library(runtime, options);
    }
    let runtime = start(locate_or_fetch(options, progress)?)?;
    Ok(RUNTIME.get_or_init(|| runtime))
}

fn same_library<'a>(runtime: &'a Runtime, options: &RuntimeOptions) -> Result<&'a Runtime, RuntimeError> {
    let Some((_, asked)) = options.named() else { return Ok(runtime) };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(asked) == real(runtime.path()) {
        return Ok(runtime);
    }
    Err(RuntimeError::AlreadyLoaded { loaded: runtime.path().to_owned(), asked: asked.to_owned() })
}

fn start(located: Located) -> Result<Runtime, RuntimeError> {
    let not_started =
        |reason: String| RuntimeError::NotStarted { path: located.path.clone(), version: located.version.clone(), reason };
    // `ort` asserts what a library promises in its headers; a build that breaks a promise must not end the process.
    let started = panic::catch_unwind(AssertUnwindSafe(|| {
        let builder = ort::init_from(&located.path).map_err(|error| error.to_string())?;
        let environment = builder.with_name("anchorite").with_telemetry(false).build().map_err(|error| error.to_string())?;
        ffi::share_memory(&environment).map_err(|error| error.to_string())?;
        let providers = ffi::available_providers().map_err(|error| error.to_string())?;
        Ok((environment, providers))
    }));
    let (environment, providers) =
        started.unwrap_or_else(|_| Err("it does not keep to its interface".to_owned())).map_err(not_started)?;
    Ok(Runtime { located, providers, environment })
}
