//! New generations of a pool, taken without dropping a request: whoever asks holds the generation that was there when it asked.
//!
//! ```text
//!   every Limits::refresh, or POST .../reload ─► Refresh(present generation) ─► newer store? ─► Retriever over it ─► Published
//! ```

use std::{fmt, sync::Arc};

use anchorite_anchors::Retriever;
use anchorite_index::{PairStore, StoreError};
use axum::http::StatusCode;

use crate::{
    app::App,
    error::ApiError,
    published::{Published, Renewed},
};

/// Opens the newest generation; none when it is still the one given. The server calls it now and then, so that "none" should be cheap.
pub type Refresh = Box<dyn Fn(u64) -> Result<Option<Arc<dyn PairStore>>, StoreError> + Send + Sync>;

/// A served pool.
pub(crate) struct Pool {
    pub(crate) name: String,
    current: Published<Retriever>,
    refresh: Option<Refresh>,
}

/// One generation of a pool.
pub(crate) struct Snapshot {
    pub(crate) name: String,
    pub(crate) retriever: Retriever,
}

impl Snapshot {
    /// Refuses what was asked of another generation: its row numbers may name other pairs here.
    pub(crate) fn still_at(&self, asked: u64) -> Result<(), ApiError> {
        let now = generation(&self.retriever);
        if now == asked {
            return Ok(());
        }
        let message = format!("this was asked of generation {asked}, and the pool is at {now} now; search again");
        Err(ApiError::new(StatusCode::GONE, "generation_gone", message))
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(name: String, retriever: Retriever) -> Self {
        Self { name, current: Published::new(retriever), refresh: None }
    }

    pub(crate) fn refresh_with(&mut self, refresh: Refresh) {
        self.refresh = Some(refresh);
    }

    /// The generation of this moment. Taken once a request, so that the request sees one.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { name: self.name.clone(), retriever: self.current.get() }
    }

    /// Takes the newest generation, if there is a newer one; the generation that answers from now on. Blocks.
    pub(crate) fn reload(&self) -> Result<Reloaded, StoreError> {
        let Some(refresh) = &self.refresh else {
            return Ok(Reloaded { generation: generation(&self.current.get()), changed: false });
        };
        let newer = |present: &Retriever| match refresh(generation(present))? {
            Some(store) => present.over(store).map(Some),
            None => Ok(None),
        };
        let Renewed { present, changed } = self.current.renew(newer)?;
        let generation = generation(&present);
        if changed {
            tracing::info!(pool = self.name, generation, "a new generation answers");
        }
        Ok(Reloaded { generation, changed })
    }
}

fn generation(retriever: &Retriever) -> u64 {
    retriever.store().status().generation
}

/// What [`Pool::reload`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reloaded {
    pub(crate) generation: u64,
    pub(crate) changed: bool,
}

/// Looks for new generations until it is dropped. A pool that fails goes on with the generation it has.
pub(crate) async fn watch(app: Arc<App>) {
    let Some(period) = app.limits().refresh else { return };
    loop {
        tokio::time::sleep(period).await;
        let app = Arc::clone(&app);
        let look = move || {
            for pool in &app.pools {
                if let Err(error) = pool.reload() {
                    app.metrics.error("refresh_failed");
                    tracing::warn!(
                        pool = pool.name,
                        error = &error as &dyn std::error::Error,
                        "the new generation cannot be opened"
                    );
                }
            }
        };
        if tokio::task::spawn_blocking(look).await.is_err() {
            tracing::error!("looking for new generations panicked");
        }
    }
}
