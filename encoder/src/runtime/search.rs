//! Where an ONNX Runtime library may be, in the order in which it is looked for.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Located, Origin, Refusal, RuntimeError, RuntimeOptions, Tried, ffi, pins};
use crate::fetch::{Fetcher, child};

/// Asking Python takes 20 ms; a cold disk some seconds.
const PYTHON_DEADLINE: Duration = Duration::from_secs(20);
const MAX_PATH_BYTES: usize = 16 * 1024;

/// Prints the folder of the installed package without importing it; the working folder must not be searched.
const ASK_PYTHON: &str = "import sys, os; sys.path = [p for p in sys.path if p]; import importlib.util as u; \
    s = u.find_spec('onnxruntime'); \
    sys.stdout.buffer.write(os.fsencode(s.submodule_search_locations[0]) if s and s.submodule_search_locations else b'')";

/// A search under way: what has been refused so far.
#[derive(Default)]
struct Search {
    tried: Vec<Tried>,
    seen: HashSet<PathBuf>,
}

impl Search {
    fn accept(&mut self, origin: Origin, path: &Path) -> Option<Located> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // The same file under several names is asked once.
        if !self.seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            return None;
        }
        match ffi::ask_version(&path) {
            Ok(version) => Some(Located { path, origin, version, tried: std::mem::take(&mut self.tried) }),
            Err(refusal) => {
                self.note(origin, &path, refusal);
                None
            }
        }
    }

    fn note(&mut self, origin: Origin, path: &Path, refusal: Refusal) {
        self.tried.push(Tried { origin, path: path.to_owned(), refusal });
    }

    fn folder(&mut self, origin: Origin, folder: &Path) -> Option<Located> {
        library_files(folder).iter().find_map(|path| self.accept(origin, path))
    }
}

/// The first library that can be used, without fetching. A library that was named and cannot be used is an error.
pub(super) fn locate(options: &RuntimeOptions) -> Result<Located, RuntimeError> {
    if let Some((origin, path)) = options.named() {
        return named(origin, path);
    }
    let mut search = Search::default();
    let found = beside_executable(&mut search, options)
        .or_else(|| in_cache(&mut search, options))
        .or_else(|| in_system(&mut search, options))
        .or_else(|| in_python(&mut search, options));
    found.ok_or(RuntimeError::NotFound { tried: search.tried, fetching: Vec::new() })
}

/// A path that the user gave: it works or it is an error, never a reason to look elsewhere.
pub(super) fn named(origin: Origin, path: &Path) -> Result<Located, RuntimeError> {
    let mut search = Search::default();
    if let Some(located) = search.accept(origin, path) {
        return Ok(located);
    }
    let refusal = search.tried.pop().map_or(Refusal::Missing, |tried| tried.refusal);
    Err(RuntimeError::Named { origin, path: path.to_owned(), refusal })
}

fn beside_executable(search: &mut Search, options: &RuntimeOptions) -> Option<Located> {
    let folder = options.executable_folder.as_deref()?;
    search.folder(Origin::Executable, folder).or_else(|| {
        search.note(Origin::Executable, folder, Refusal::NothingThere);
        None
    })
}

fn in_cache(search: &mut Search, options: &RuntimeOptions) -> Option<Located> {
    let fetcher = Fetcher::new(options.fetch.clone()?);
    for package in pins::packages_here() {
        match fetcher.cached(&package) {
            Ok(Some(path)) => {
                if let Some(located) = search.accept(Origin::Cache, &path) {
                    return Some(located);
                }
            }
            Ok(None) => {
                let path = fetcher.path_of(&package).unwrap_or_default();
                let refusal = if path.exists() { Refusal::NotAsPinned } else { Refusal::Missing };
                search.note(Origin::Cache, &path, refusal);
            }
            Err(error) => search.note(Origin::Cache, &fetcher.options().cache, Refusal::Unreadable { reason: error.to_string() }),
        }
    }
    None
}

fn in_system(search: &mut Search, options: &RuntimeOptions) -> Option<Located> {
    let found = options.system_folders.iter().find_map(|folder| search.folder(Origin::System, folder));
    if found.is_none() && !options.system_folders.is_empty() {
        let all = std::env::join_paths(&options.system_folders).unwrap_or_default();
        search.note(Origin::System, Path::new(&all), Refusal::NothingThere);
    }
    found
}

fn in_python(search: &mut Search, options: &RuntimeOptions) -> Option<Located> {
    let path = options.python_search_path.as_ref()?;
    for name in ["python3", "python"] {
        let Some(program) = child::find_program(name, path) else { continue };
        match python_package(&program) {
            Ok(folder) => {
                if let Some(located) = search.folder(Origin::Python, &folder.join("capi")) {
                    return Some(located);
                }
                search.note(Origin::Python, &folder.join("capi"), Refusal::NothingThere);
            }
            Err(refusal) => search.note(Origin::Python, &program, refusal),
        }
    }
    None
}

fn python_package(program: &Path) -> Result<PathBuf, Refusal> {
    let mut command = Command::new(program);
    command.args(["-c", ASK_PYTHON]);
    let answer = child::run(&mut command, Instant::now() + PYTHON_DEADLINE, MAX_PATH_BYTES, &mut |_| {});
    let finished = answer.map_err(|error| Refusal::Unreadable { reason: error.to_string() })?;
    match finished.status {
        Some(status) if status.success() && finished.stdout.is_empty() => Err(Refusal::NoPackage),
        Some(status) if status.success() => Ok(path_from_bytes(finished.stdout)),
        Some(_) => Err(Refusal::Unreadable { reason: finished.stderr }),
        None => Err(Refusal::Unreadable { reason: "it did not answer in time".to_owned() }),
    }
}

#[cfg(unix)]
fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Files in `folder` that are named like the library, newest version first, the unversioned name before all.
fn library_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((library_version(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The numbers in a library's file name, `None` if it is not one; providers (`libonnxruntime_providers_...`) are not.
fn library_version(name: &str) -> Option<Vec<u32>> {
    let numbers = if cfg!(target_os = "windows") {
        return (name.eq_ignore_ascii_case("onnxruntime.dll")).then(|| vec![u32::MAX]);
    } else if cfg!(target_os = "macos") {
        name.strip_prefix("libonnxruntime")?.strip_suffix("dylib")?.trim_matches('.')
    } else {
        name.strip_prefix("libonnxruntime.so")?.trim_start_matches('.')
    };
    if numbers.is_empty() {
        return Some(vec![u32::MAX]);
    }
    numbers.split('.').map(|number| number.parse().ok()).collect()
}

/// The folders that the system's loader searches: those of its environment variable, of its configuration, and built in.
pub(super) fn system_folders(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let name = if cfg!(target_os = "macos") { "DYLD_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
    let mut folders: Vec<PathBuf> = variable(name).iter().flat_map(std::env::split_paths).collect();
    folders.extend(configured_folders());
    let arch = std::env::consts::ARCH;
    folders.extend(["/usr/local/lib", "/usr/local/lib64", "/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(PathBuf::from));
    folders.push(PathBuf::from(format!("/usr/lib/{arch}-linux-gnu")));
    folders.push(PathBuf::from("/opt/homebrew/lib"));
    let mut seen = HashSet::new();
    folders.retain(|folder| folder.is_absolute() && folder.is_dir() && seen.insert(folder.canonicalize().unwrap_or_default()));
    folders
}

/// Lines of the loader's configuration that name folders; `include` in practice always means this one folder of files.
fn configured_folders() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/ld.so.conf")];
    let mut included: Vec<PathBuf> =
        fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
    included.sort();
    files.extend(included.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "conf")));
    let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts
        .flat_map(|text| text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from).collect::<Vec<_>>())
        .collect()
}
