//! HTTP: routes, clip-retrieval's back end as a drop-in, the page for people.
//!
//! ```text
//!   socket ─accept loop─► request id, metrics ─► route ─► bytes ─► blocking pool: JSON ─► Ask ─► Retriever ─► JSON bytes ─► socket
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `app.rs` | [`App`]: the pools, the permits, and how a handler crosses to the blocking pool |
//! | `limits.rs` | [`Limits`]: every bound of the service |
//! | `server.rs` | [`Server`]: the accept loop, timeouts, drain |
//! | `auth.rs`, `tls.rs` | keys with scopes; TLS by rustls |
//! | `refresh.rs`, `published.rs` | new generations of a pool, taken while requests run |
//! | `routes.rs` | the route table with the scope of each route, and the OpenAPI document made from it |
//! | `finish.rs` | what every answer gets: request id, error body, metrics, panic caught |
//! | `body.rs` | request bodies: caps, deadline, memory budget; strict JSON |
//! | `error.rs` | the one place where an error becomes a status |
//! | `filter.rs` | the filter language as the OpenAPI document shows it |
//! | `search/` | `POST /v1/search`: what is asked, pages of it, the answer |
//! | `anchors/` | `POST /v1/anchors`: policies over HTTP, JSON or an Arrow stream |
//! | `manifest.rs` | `POST /v1/manifest`: chosen pairs as a file |
//! | `embeddings/` | `POST /v1/embeddings`, `GET /v1/models`: OpenAI's shape, micro-batches across requests |
//! | `jobs/` | `POST /v1/pools/{pool}/ingest`, `/v1/jobs`: pools are filled while they are served |
//! | `pools.rs` | pools, pairs and stored pictures |
//! | `vector.rs` | vectors in requests: numbers or base64 |
//! | `health.rs` | liveness, readiness, metrics |
//! | `clip_retrieval/` | the drop-in routes |
//! | `page.rs` | the page at `/` |
//!
//! Not here: how vectors are made, stored or searched.
//!
//! What holds: no handler computes on an async thread; every wait has a deadline and every queue a bound; an error body has a
//! stable code, a sentence and the request id, and never a path or a backtrace.

mod anchors;
mod app;
mod auth;
mod body;
mod clip_retrieval;
mod embeddings;
mod error;
mod filter;
mod finish;
mod health;
mod jobs;
mod limits;
mod manifest;
mod metrics;
mod page;
mod pools;
mod published;
mod refresh;
mod routes;
mod search;
mod server;
mod tls;
mod vector;

/// What `published` locks with; its test puts a model checker's in this place.
mod sync {
    pub(crate) use std::sync::{Mutex, PoisonError, RwLock};
}

pub use app::{App, AppError, Options};
pub use auth::{Keys, KeysError, Scope, key_line};
pub use jobs::{Filling, JobOptions, JobsError, OpenExact, OpenWriter};
pub use limits::Limits;
pub use refresh::Refresh;
pub use routes::openapi;
pub use server::{Drained, ServeError, Server};
pub use tls::{Tls, TlsError};
