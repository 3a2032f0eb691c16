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
//! | `routes.rs` | the route table and the OpenAPI document made from it |
//! | `finish.rs` | what every answer gets: request id, error body, metrics, panic caught |
//! | `body.rs` | request bodies: caps, deadline, memory budget; strict JSON |
//! | `error.rs` | the one place where an error becomes a status |
//! | `filter.rs` | the filter language as the OpenAPI document shows it |
//! | `search.rs` | `POST /v1/search` |
//! | `anchors/` | `POST /v1/anchors`: policies over HTTP, JSON or an Arrow stream |
//! | `embeddings/` | `POST /v1/embeddings`, `GET /v1/models`: OpenAI's shape, micro-batches across requests |
//! | `pools.rs` | pools, pairs and stored pictures |
//! | `health.rs` | liveness, readiness, metrics |
//! | `clip_retrieval/` | the drop-in routes |
//! | `page.rs` | the page at `/` |
//!
//! Not here: how vectors are made, stored or searched; authentication (bind to loopback, or put a proxy in front).
//!
//! What holds: no handler computes on an async thread; every wait has a deadline and every queue a bound; an error body has a
//! stable code, a sentence and the request id, and never a path or a backtrace.

mod anchors;
mod app;
mod body;
mod clip_retrieval;
mod embeddings;
mod error;
mod filter;
mod finish;
mod health;
mod limits;
mod metrics;
mod page;
mod pools;
mod routes;
mod search;
mod server;

pub use app::{App, AppError, Options};
pub use limits::Limits;
pub use routes::openapi;
pub use server::{Drained, ServeError, Server, serve};
