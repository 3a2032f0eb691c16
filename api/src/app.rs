//! What every handler shares: the pools, the permits, and the crossing from sockets (async) to computation (blocking).

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anchorite_anchors::{Ask, Input, RetrieveError, Retriever};
use anchorite_encoder::EncodeError;
use anchorite_index::{Cancel, Effort, Side, StoreError, pool::Access};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Filling, JobOptions, JobsError, Keys, Limits, Refresh,
    embeddings::Model,
    error::ApiError,
    jobs::Jobs,
    metrics::Metrics,
    refresh::{Pool, Snapshot},
};

/// Longest pool name, in bytes.
const POOL_NAME_BYTES: usize = 64;

/// How a server differs from the default.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Metadata columns that clip-retrieval's routes return where a pair has them. Default: upstream's.
    pub clip_retrieval_columns: Vec<String>,
    /// Who may ask for what. Default: anybody for anything, so that such a server must be out of strangers' reach.
    pub keys: Option<Keys>,
}

impl Default for Options {
    fn default() -> Self {
        let columns = ["url", "image_path", "caption", "NSFW"];
        Self { limits: Limits::default(), clip_retrieval_columns: columns.map(str::to_owned).to_vec(), keys: None }
    }
}

/// Why an [`App`] cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppError {
    /// No pool at all.
    #[error("a server needs at least one pool")]
    NoPool,
    /// A name that would not survive in a URL.
    #[error("{name:?} is no pool name: 1 to {POOL_NAME_BYTES} characters of A-Z a-z 0-9 . _ - are allowed, not only dots")]
    Name {
        /// As given.
        name: String,
    },
    /// No pool of that name.
    #[error("there is no pool {name:?}")]
    Unknown {
        /// As given.
        name: String,
    },
    /// One name twice.
    #[error("two pools are named {name:?}; give each its own name")]
    TwoPools {
        /// The name.
        name: String,
    },
}

/// Whether the server may be sent traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The models have not answered yet.
    Warming,
    /// Every pool has answered once.
    Ready,
    /// This pool failed when it was tried.
    Failed { pool: String },
}

/// The state of a server: pools by name, the first of them the default.
pub struct App {
    pub(crate) pools: Vec<Pool>,
    pub(crate) models: Vec<Model>,
    pub(crate) options: Options,
    pub(crate) metrics: Metrics,
    /// One permit for each KiB of request body in memory.
    pub(crate) body_budget: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    /// One permit for each answer that is streamed.
    pub(crate) streams: Arc<Semaphore>,
    compute: Arc<Semaphore>,
    /// Jobs that fill pools; none where this server fills none.
    pub(crate) jobs: Option<Arc<Jobs>>,
    readiness: Mutex<Readiness>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.pools.iter().map(|p| p.name.as_str()).collect();
        f.debug_struct("App").field("pools", &names).field("options", &self.options).finish_non_exhaustive()
    }
}

impl App {
    /// A server's state over `pools`, in this order.
    ///
    /// # Errors
    /// [`AppError`] for no pool, a bad name or a name given twice.
    pub fn new(pools: Vec<(String, Retriever)>, options: Options) -> Result<Self, AppError> {
        if pools.is_empty() {
            return Err(AppError::NoPool);
        }
        let mut served: Vec<Pool> = Vec::with_capacity(pools.len());
        for (name, retriever) in pools {
            if !is_pool_name(&name) {
                return Err(AppError::Name { name });
            }
            if served.iter().any(|p| p.name == name) {
                return Err(AppError::TwoPools { name });
            }
            served.push(Pool::new(name, retriever));
        }
        let limits = &options.limits;
        Ok(Self {
            models: Model::of(&served),
            pools: served,
            metrics: Metrics::new(),
            body_budget: Arc::new(Semaphore::new(kib(limits.body_budget_bytes))),
            in_flight: Arc::new(Semaphore::new(limits.max_in_flight)),
            streams: Arc::new(Semaphore::new(limits.max_streams)),
            compute: Arc::new(Semaphore::new(limits.compute_threads.max(1))),
            readiness: Mutex::new(Readiness::Warming),
            jobs: None,
            options,
        })
    }

    /// Says how newer generations of a pool are opened; without it, a pool stays as it is.
    ///
    /// # Errors
    /// [`AppError::Unknown`].
    pub fn refreshing(mut self, pool: &str, refresh: Refresh) -> Result<Self, AppError> {
        let served = self.pools.iter_mut().find(|p| p.name == pool);
        served.ok_or_else(|| AppError::Unknown { name: pool.to_owned() })?.refresh_with(refresh);
        Ok(self)
    }

    /// Shows in the metrics how the system was told that the pools' files will be read.
    #[must_use]
    pub fn reading(self, access: Access) -> Self {
        self.metrics.access.with_label_values(&[access.name()]).set(1);
        self
    }

    /// Takes jobs that fill pools, and goes on with those that an earlier server left.
    ///
    /// # Errors
    /// [`JobsError`]: an unknown pool, a folder that cannot be used, another server on it.
    pub fn filling(mut self, options: &JobOptions, fillings: Vec<Filling>) -> Result<Self, JobsError> {
        if let Some(unknown) = fillings.iter().find(|filling| self.pools.iter().all(|pool| pool.name != filling.pool)) {
            return Err(JobsError::Unknown { name: unknown.pool.clone() });
        }
        self.jobs = Some(Arc::new(Jobs::open(options, fillings, &self.options.limits)?));
        Ok(self)
    }

    /// Asks every pool one small question, so that models are loaded before traffic comes; [`crate::serve`] does it in the
    /// background. Blocks.
    pub fn warm_up(&self) {
        for pool in &self.pools {
            let retriever = pool.snapshot().retriever;
            let ask = |side| Ask { side, k: 1, effort: Effort::Fast, ..Ask::new(Input::Text("warm up".to_owned())) };
            let sides = Side::ALL.map(ask);
            let failed = sides.into_iter().find_map(|ask| match retriever.find(&[ask], &Cancel::default()) {
                Ok(_)
                | Err(RetrieveError::Store(StoreError::NoSide { .. }) | RetrieveError::Encode(EncodeError::NoTower { .. })) => {
                    None
                }
                Err(e) => Some(e),
            });
            if let Some(error) = failed {
                tracing::error!(pool = pool.name, %error, "a pool cannot answer");
                return self.set_readiness(Readiness::Failed { pool: pool.name.clone() });
            }
        }
        self.set_readiness(Readiness::Ready);
    }

    fn set_readiness(&self, to: Readiness) {
        // A thread that panicked while holding this lock cannot have left half a value behind.
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The pool of this name; the first one when none is named.
    pub(crate) fn served(&self, name: Option<&str>) -> Result<&Pool, ApiError> {
        match name {
            None => self.pools.first().ok_or_else(|| ApiError::no_pool("")),
            Some(name) => self.pools.iter().find(|p| p.name == name).ok_or_else(|| ApiError::no_pool(name)),
        }
    }

    /// That pool's generation of this moment: ask once a request.
    pub(crate) fn pool(&self, name: Option<&str>) -> Result<Snapshot, ApiError> {
        self.served(name).map(Pool::snapshot)
    }

    /// Runs `job` on the blocking pool: refused at once when too many are in flight, cancelled when the deadline passes or the
    /// client leaves. The permits go with the job, so that work which is slow to notice its cancellation still counts.
    pub(crate) async fn compute<T, F>(self: &Arc<Self>, job: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&App, &Cancel) -> Result<T, ApiError> + Send + 'static,
    {
        let admitted = Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| ApiError::busy())?;
        self.run(Some(admitted), job).await
    }

    /// As [`App::compute`] for the next piece of an answer that has begun: it waits for a core and is not refused.
    pub(crate) async fn compute_on<T, F>(self: &Arc<Self>, job: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&App, &Cancel) -> Result<T, ApiError> + Send + 'static,
    {
        self.run(None, job).await
    }

    async fn run<T, F>(self: &Arc<Self>, admitted: Option<OwnedSemaphorePermit>, job: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&App, &Cancel) -> Result<T, ApiError> + Send + 'static,
    {
        let cancel = CancelOnDrop(Cancel::default());
        let (app, flag) = (Arc::clone(self), cancel.0.clone());
        let work = async {
            let running = Arc::clone(&self.compute).acquire_owned().await.map_err(ApiError::panicked)?;
            let run = move || {
                let _held = (admitted, running);
                job(&app, &flag)
            };
            tokio::task::spawn_blocking(run).await.map_err(|e| self.job_lost(e))?
        };
        tokio::time::timeout(self.limits().deadline, work).await.unwrap_or_else(|_| Err(ApiError::deadline()))
    }

    fn job_lost(&self, error: tokio::task::JoinError) -> ApiError {
        self.metrics.panics.inc();
        match error.try_into_panic() {
            Ok(payload) => ApiError::panicked(panic_text(&*payload)),
            Err(e) => ApiError::panicked(e),
        }
    }
}

/// The words a panic was raised with.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

/// Raises the flag when the handler is done with, by an answer, the deadline or a client that left.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Semaphore permits for so many bytes, rounded up.
pub(crate) fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024).min(Semaphore::MAX_PERMITS)
}

fn is_pool_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=POOL_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) && name.bytes().any(|b| b != b'.')
}
