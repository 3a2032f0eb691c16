//! The FFI edge of this module: asking a library for its version before `ort` commits to it for the whole process, and
//! asking the loaded one for its execution providers and for memory that sessions share, which `ort` has no safe call for.
//!
//! `ort` keeps the first library that it accepts and panics on one whose `OrtGetApiBase` gives nothing, so every candidate
//! is asked here first.

#![expect(unsafe_code, reason = "the C interface of ONNX Runtime and of the system's loader")]

use std::ffi::CStr;
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use libloading::{Library, Symbol};
use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::sys::OrtApiBase;

use super::{Refusal, image};

/// Libraries that answered stay loaded: ONNX Runtime is not made for being unloaded, and `ort` opens the chosen one again
/// without cost.
static ASKED: Mutex<Vec<Library>> = Mutex::new(Vec::new());

/// The version of the ONNX Runtime library at `path`, an absolute path, or why it cannot be used.
pub(crate) fn ask_version(path: &Path) -> Result<String, Refusal> {
    image::check(path)?;
    // SAFETY: loading runs the library's initialisers. The path is one that the user named, or of a library called
    // onnxruntime in a place that this process loads code from anyway; its headers and extent were checked above.
    let library = unsafe { Library::new(path) }.map_err(|error| Refusal::NotLoadable { reason: loader_word(&error) })?;
    let version = version_of(&library)?;
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).push(library);
    if minor(&version).is_none_or(|minor| minor < ort::MINOR_VERSION) {
        return Err(Refusal::TooOld { version, needed: format!("1.{}", ort::MINOR_VERSION) });
    }
    Ok(version)
}

/// Whether the system's loader finds and takes a library of this name; its word if not. It stays loaded.
pub(crate) fn loads(name: &str) -> Result<(), String> {
    // SAFETY: loading runs the library's initialisers. The name is a constant of `provider`, that of a GPU driver's library, and
    // ONNX Runtime would load it in the same way a moment later.
    let library = unsafe { Library::new(name) }.map_err(|error| loader_word(&error))?;
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).push(library);
    Ok(())
}

fn version_of(library: &Library) -> Result<String, Refusal> {
    // SAFETY: every ONNX Runtime since 1.0 exports the symbol with this signature, and nothing else has the name.
    let base: Symbol<'_, unsafe extern "C" fn() -> *const OrtApiBase> =
        unsafe { library.get(b"OrtGetApiBase\0") }.map_err(|_| Refusal::NotOnnxRuntime)?;
    // SAFETY: takes no arguments and may be called at any time.
    let base = unsafe { base() };
    // SAFETY: null or a pointer to a static structure of the library, which outlives this call.
    let base = unsafe { base.as_ref() }.ok_or(Refusal::NotOnnxRuntime)?;
    // SAFETY: a function of the structure above, without arguments.
    let text = unsafe { (base.GetVersionString)() };
    if text.is_null() {
        return Err(Refusal::NotOnnxRuntime);
    }
    // SAFETY: not null, and documented as a zero-terminated string that lives as long as the library.
    let version = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: a function of the structure above; it returns null for a version that it does not have.
    if unsafe { (base.GetApi)(ort::MINOR_VERSION) }.is_null() {
        return Err(Refusal::TooOld { version, needed: format!("1.{}", ort::MINOR_VERSION) });
    }
    Ok(version)
}

/// What the loader said is in the source of its error, not in the error itself.
fn loader_word(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn minor(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    let minor: u32 = parts.next()?.parse().ok()?;
    Some(if major > 1 { u32::MAX } else { minor })
}

/// Gives the environment an allocator of the processor's memory that keeps what it was given back, for all sessions that ask for it by
/// `session.use_env_allocators`; otherwise each session keeps as much as its largest run took.
pub(crate) fn share_memory(environment: &Environment) -> ort::Result<()> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let (environment, memory) = (environment.ptr().cast_mut(), memory.ptr());
    // SAFETY: both pointers are of live values. The call locks the environment itself, copies the description, and takes null for the
    // configuration that sessions' own allocators have; the status is taken over by `result_from_status`.
    unsafe { ort::Error::result_from_status((ort::api().CreateAndRegisterAllocator)(environment, memory, ptr::null())) }
}

/// Names of the execution providers that the loaded library has. Called only after `ort` has loaded one.
pub(crate) fn available_providers() -> ort::Result<Vec<String>> {
    let api = ort::api();
    let mut names = ptr::null_mut();
    let mut count = 0;
    // SAFETY: both out-pointers are valid for writes; the status is taken over by `result_from_status`.
    unsafe { ort::Error::result_from_status((api.GetAvailableProviders)(&raw mut names, &raw mut count)) }?;
    if names.is_null() {
        return Ok(Vec::new());
    }
    let providers = (0..usize::try_from(count).unwrap_or_default())
        // SAFETY: the call above succeeded, so `names` holds `count` zero-terminated strings until it is released below.
        .map(|at| unsafe { CStr::from_ptr(*names.add(at)) }.to_string_lossy().into_owned())
        .collect();
    // SAFETY: exactly what the call above gave, released once.
    unsafe { ort::Error::result_from_status((api.ReleaseAvailableProviders)(names, count)) }?;
    Ok(providers)
}
