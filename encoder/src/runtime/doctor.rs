//! What `anchorite doctor` prints about the machine, as plain data: the command line only lays it out.

use std::path::PathBuf;

use serde::Serialize;

use super::{Origin, RuntimeError, RuntimeOptions, Tried, init, named_library, pins};
use crate::fetch::child;
use crate::hub::HubOptions;

/// Everything found out about this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Operating system and processor, such as `linux x86_64`.
    pub platform: String,
    /// Threads that can run at once.
    pub threads: usize,
    /// Of the processor, those that matter here.
    pub cpu_features: Vec<&'static str>,
    /// ONNX Runtime.
    pub onnx_runtime: RuntimeReport,
    /// Fetching.
    pub fetch: FetchReport,
    /// The model hub.
    pub hub: HubReport,
}

/// Whether and how models could be downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HubReport {
    /// Whether this program is built with the hub's client.
    pub built_in: bool,
    /// The hub's cache folder, if one is known.
    pub cache: Option<PathBuf>,
    /// Downloading is forbidden.
    pub offline: bool,
    /// The mirror, if one is set.
    pub endpoint: Option<String>,
    /// Whether there is a token; never the token.
    pub has_token: bool,
}

/// What was found of ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuntimeReport {
    /// The library in use, if there is one.
    pub library: Option<PathBuf>,
    /// How it was found.
    pub origin: Option<Origin>,
    /// Its version.
    pub version: Option<String>,
    /// The lowest version that serves.
    pub needed: String,
    /// Execution providers that the library lists.
    pub providers: Vec<String>,
    /// What was looked at in vain, one sentence each.
    pub tried: Vec<String>,
    /// Why there is none and what to do; `None` if all is well.
    pub problem: Option<String>,
}

/// Whether and how files could be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FetchReport {
    /// Our cache folder, if one is known.
    pub cache: Option<PathBuf>,
    /// Fetching is forbidden.
    pub offline: bool,
    /// Clients that were found: `pip`, `npm` and the like, with their paths.
    pub clients: Vec<Client>,
    /// What would be fetched here, best first; empty if nothing is pinned for this platform.
    pub pinned: Vec<String>,
}

/// A package client of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Client {
    /// As it is called.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Looks at this machine and loads ONNX Runtime if there is one. Fetches nothing, so that a report never changes what it
/// reports on.
#[must_use]
pub fn report(options: &RuntimeOptions, hub: &HubOptions) -> Report {
    Report {
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        cpu_features: cpu_features(),
        onnx_runtime: runtime_report(options),
        fetch: fetch_report(options),
        hub: HubReport {
            built_in: cfg!(feature = "hub"),
            cache: hub.cache.clone(),
            offline: hub.offline,
            endpoint: hub.endpoint.clone(),
            has_token: hub.token.is_some(),
        },
    }
}

fn runtime_report(asked: &RuntimeOptions) -> RuntimeReport {
    let mut options = asked.clone();
    if let Some(fetch) = options.fetch.as_mut() {
        fetch.offline = true;
    }
    let sentences = |tried: &[Tried]| tried.iter().map(ToString::to_string).collect();
    let needed = format!("1.{}", ort::MINOR_VERSION);
    match init(&options, &|_| {}) {
        Ok(runtime) => RuntimeReport {
            library: Some(runtime.path().to_owned()),
            origin: Some(runtime.origin()),
            version: Some(runtime.version().to_owned()),
            needed,
            providers: runtime.available_providers().to_vec(),
            tried: sentences(runtime.tried()),
            problem: None,
        },
        Err(error) => {
            let (tried, problem) = match &error {
                RuntimeError::NotFound { tried, .. } => (sentences(tried), missing(asked)),
                other => (Vec::new(), other.to_string()),
            };
            RuntimeReport {
                library: None,
                origin: None,
                version: None,
                needed,
                providers: Vec::new(),
                tried,
                problem: Some(problem),
            }
        }
    }
}

/// A machine without the library is not ill if the next command that needs one can fetch it, so both are said.
fn missing(options: &RuntimeOptions) -> String {
    let fetch = fetch_report(options);
    let why_not = if fetch.offline {
        "fetching is off (ANCHORITE_OFFLINE, or no cache folder is known)"
    } else if fetch.pinned.is_empty() {
        "nothing is pinned for this platform"
    } else if fetch.clients.is_empty() {
        "there is neither pip nor npm"
    } else {
        return format!(
            "there is no ONNX Runtime library yet; the first command that needs it fetches it, or set {}",
            named_library()
        );
    };
    format!("there is no ONNX Runtime library, and none can be fetched: {why_not}. Set {}", named_library())
}

fn fetch_report(options: &RuntimeOptions) -> FetchReport {
    let search_path = options.fetch.as_ref().map(|fetch| fetch.search_path.clone()).unwrap_or_default();
    let clients = ["pip", "pip3", "python3", "python", "npm"]
        .into_iter()
        .filter_map(|name| Some(Client { name: name.to_owned(), path: child::find_program(name, &search_path)? }))
        .collect();
    FetchReport {
        cache: options.fetch.as_ref().map(|fetch| fetch.cache.clone()),
        offline: options.fetch.as_ref().is_none_or(|fetch| fetch.offline),
        clients,
        pinned: pins::packages_here().iter().map(crate::fetch::Package::label).collect(),
    }
}

/// Of the processor this runs on: the features that ONNX Runtime's kernels and ours ask for.
#[must_use]
pub fn cpu_features() -> Vec<&'static str> {
    detected().into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("f16c", has!("f16c")),
        ("avx512f", has!("avx512f")),
        ("avx512vnni", has!("avx512vnni")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![("neon", has!("neon")), ("dotprod", has!("dotprod")), ("fp16", has!("fp16"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Vec<(&'static str, bool)> {
    Vec::new()
}
