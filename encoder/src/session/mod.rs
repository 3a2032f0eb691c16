//! ONNX Runtime sessions: made from bytes that passed the scan, kept in a small pool per tower.
//!
//! `Session::run` wants the session for itself (several runtime internals are not safe to share), so a caller takes one out of
//! the pool, uses it, and it goes back when the guard is dropped. A caller that finds none free waits for one.
//!
//! Not here: finding the library, choosing a provider (both come in with [`Engine`]), what is fed.

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use half::f16;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::memory::AllocationDevice;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use crate::model::{LoadedModel, LoadedTensor};

/// ONNX Runtime, loaded, and where it computes.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The runtime's environment.
    pub environment: Environment,
    /// Execution providers to register, in order. Empty means the CPU. Those that must not be passed over silently are given
    /// with `error_on_failure()`.
    pub providers: Vec<Provider>,
}

/// An execution provider and its name for people.
#[derive(Clone)]
pub struct Provider {
    /// "CUDA", "CPU".
    pub name: String,
    /// What is registered.
    pub dispatch: ExecutionProviderDispatch,
    /// The memory that it computes in; none where that is the processor's own.
    pub device: Option<AllocationDevice<'static>>,
    /// Whether it has products of bfloat16 and float16.
    pub half: bool,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Engine {
    /// The CPU.
    #[must_use]
    pub fn cpu(environment: Environment) -> Self {
        Self { environment, providers: Vec::new() }
    }

    /// The memory that it computes in; none where that is the processor's own.
    #[must_use]
    pub fn device(&self) -> Option<AllocationDevice<'static>> {
        self.providers.iter().find_map(|provider| provider.device.clone())
    }

    /// Whether it has products of bfloat16 and float16.
    #[must_use]
    pub fn has_half(&self) -> bool {
        self.providers.iter().any(|provider| provider.half)
    }

    /// Names of the providers, for people.
    #[must_use]
    pub fn provider_name(&self) -> String {
        match &self.providers[..] {
            [] => "CPU".to_owned(),
            providers => providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", "),
        }
    }
}

/// How a tower's sessions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// How many; each takes the tower's weights once more, except for those that lie outside the model file.
    pub count: NonZeroUsize,
    /// Threads inside one run; 0 leaves it to ONNX Runtime (all cores).
    pub threads: usize,
    /// Whether idle threads spin. 6 % faster in a tight loop, and takes a core from everything else.
    pub spinning: bool,
}

/// Why sessions could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// ONNX Runtime's word on the model or on an option.
    #[error("ONNX Runtime does not take the model: {reason}")]
    Runtime {
        /// Its message.
        reason: String,
    },
    /// A tensor that could not be made from its bytes.
    #[error("tensor {name:?} cannot be handed to ONNX Runtime: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

fn runtime<E: std::fmt::Display>(error: E) -> SessionError {
    SessionError::Runtime { reason: error.to_string() }
}

/// A tower's sessions.
#[derive(Debug)]
pub struct Sessions {
    free: Mutex<Vec<Session>>,
    returned: Condvar,
}

/// One session, for as long as the guard lives.
#[derive(Debug)]
pub(crate) struct Lease<'p> {
    pool: &'p Sessions,
    session: Option<Session>,
}

impl Sessions {
    pub(crate) fn create(engine: &Engine, model: LoadedModel, options: SessionOptions) -> Result<Self, SessionError> {
        let LoadedModel { bytes, tensors } = model;
        // Made once and shared by all sessions of the tower.
        let tensors = tensors.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let session = |_| {
            let mut builder = builder(engine, options)?;
            for (name, tensor) in &tensors {
                builder = builder.with_external_initializer(name, Arc::clone(tensor)).map_err(runtime)?;
            }
            builder.commit_from_memory(&bytes).map_err(runtime)
        };
        let free = (0..options.count.get()).map(session).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { free: Mutex::new(free), returned: Condvar::new() })
    }

    /// Takes a session, waiting until one is free.
    pub(crate) fn lease(&self) -> Lease<'_> {
        // A session whose user panicked is sound: it was only borrowed to ONNX Runtime, which had returned.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.returned.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        Lease { pool: self, session: free.pop() }
    }
}

impl Deref for Lease<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("a lease holds its session until it is dropped")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease holds its session until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.session.take());
        self.pool.returned.notify_one();
    }
}

/// A session builder on this engine; `count` does not matter to it.
///
/// # Errors
/// [`SessionError::Runtime`]: an option or a provider is refused.
pub fn builder(engine: &Engine, options: SessionOptions) -> Result<SessionBuilder, SessionError> {
    let mut builder = SessionBuilder::new(&engine.environment).map_err(runtime)?;
    // What fails is returned as an error; a library does not write to the terminal as well.
    builder = builder.with_log_level(LogLevel::Fatal).map_err(runtime)?;
    // The format is named so that ONNX Runtime does not guess it from the bytes: its own format was not scanned.
    builder = builder.with_config_entry("session.load_model_format", "ONNX").map_err(runtime)?;
    builder = builder.with_intra_op_spinning(options.spinning).map_err(runtime)?;
    builder = builder.with_inter_threads(1).map_err(runtime)?;
    if options.threads > 0 {
        builder = builder.with_intra_threads(options.threads).map_err(runtime)?;
    }
    if !engine.providers.is_empty() {
        let providers: Vec<_> = engine.providers.iter().map(|p| p.dispatch.clone()).collect();
        builder = builder.with_execution_providers(providers).map_err(runtime)?;
    }
    Ok(builder)
}

type Shared = (String, Arc<DynValue>);

fn value(tensor: LoadedTensor) -> Result<Shared, SessionError> {
    let LoadedTensor { name, data_type, dims, data } = tensor;
    let made = match data_type {
        1 => Tensor::from_array((dims, words(&data, f32::from_le_bytes))).map(Tensor::into_dyn),
        2 => Tensor::from_array((dims, data)).map(Tensor::into_dyn),
        3 => Tensor::from_array((dims, words(&data, i8::from_le_bytes))).map(Tensor::into_dyn),
        6 => Tensor::from_array((dims, words(&data, i32::from_le_bytes))).map(Tensor::into_dyn),
        7 => Tensor::from_array((dims, words(&data, i64::from_le_bytes))).map(Tensor::into_dyn),
        10 => Tensor::from_array((dims, words(&data, f16::from_le_bytes))).map(Tensor::into_dyn),
        11 => Tensor::from_array((dims, words(&data, f64::from_le_bytes))).map(Tensor::into_dyn),
        other => return Err(SessionError::Tensor { name, reason: format!("element type {other}") }),
    };
    match made {
        Ok(value) => Ok((name, Arc::new(value))),
        Err(error) => Err(SessionError::Tensor { name, reason: error.to_string() }),
    }
}

fn words<T, const N: usize>(bytes: &[u8], word: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| word(*chunk)).collect()
}
