//! Is it alive, may it be sent traffic, what does it measure. On the same listener as everything else, so that there is no
//! second, unguarded door.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};

use crate::{
    app::{App, Readiness},
    embeddings::Model,
    error::{ApiError, ErrorBody},
};

/// Alive: the process answers.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, description = "Alive", body = String, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: every pool has answered a question.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "Ready for traffic", body = String, content_type = "text/plain"),
        (status = 503, description = "Warming up, or a pool cannot answer; the message says which", body = ErrorBody),
    )
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    let not_yet = |code, message: String| Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message));
    match app.readiness() {
        Readiness::Ready => Ok("ready\n"),
        Readiness::Warming => not_yet("warming_up", "the models are being loaded; ask again in a moment".to_owned()),
        Readiness::Failed { pool } => {
            not_yet("pool_failed", format!("pool {pool} could not answer when it was tried; the server's log has the reason"))
        }
    }
}

/// Measurements for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "Text exposition format 0.0.4", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    for pool in &app.pools {
        let status = pool.retriever.store().status();
        let sides = [("all", status.rows), ("image", status.image_rows), ("text", status.text_rows)];
        for (side, rows) in sides {
            app.metrics.rows.with_label_values(&[pool.name.as_str(), side]).set(i64::try_from(rows).unwrap_or(i64::MAX));
        }
        let generation = i64::try_from(status.generation).unwrap_or(i64::MAX);
        app.metrics.generation.with_label_values(&[&pool.name]).set(generation);
    }
    for (model, tower, waiting) in app.models.iter().flat_map(Model::waiting) {
        app.metrics.waiting.with_label_values(&[model, tower]).set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
    let text = app.metrics.text().map_err(|e| ApiError::internal("metrics_failed", e))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
