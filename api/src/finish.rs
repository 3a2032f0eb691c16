//! What every answer gets, whatever the route: a request id, the error body in the route's dialect, metrics, a caught panic,
//! and the header that keeps browsers from guessing types.

use std::{
    any::Any,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{
    app::{App, panic_text},
    auth::KeyName,
    clip_retrieval,
    error::{ApiError, ErrorBody, ErrorDetail, LegacyErrorBody},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken over from a client.
const REQUEST_ID_BYTES: usize = 64;

/// A request's id, for handlers that log after their answer has begun.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

pub(crate) async fn finish(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned());
    let route = matched.as_deref().unwrap_or("unmatched");
    let legacy = clip_retrieval::is_route(request.uri().path());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        log(&error, &id, route);
        app.metrics.error(error.code);
        response = error_response(&response, &error, &id, legacy, app.limits().retry_after);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let took = started.elapsed();
    app.metrics.request(method, route, response.status().as_str(), took);
    let key = response.extensions().get::<KeyName>().map(|key| key.0.as_str());
    tracing::info!(
        request_id = id,
        key,
        method,
        route,
        status = response.status().as_u16(),
        seconds = took.as_secs_f64(),
        "answered"
    );
    response
}

/// For `tower_http`'s panic layer; panics on the blocking pool are caught in `app.rs`.
pub(crate) fn caught(app: &App, payload: &(dyn Any + Send)) -> Response {
    app.metrics.panics.inc();
    ApiError::panicked(panic_text(payload)).into_response()
}

/// Keeps the headers that layers further in have set (CORS, Allow) and writes the body.
fn error_response(response: &Response, error: &ApiError, id: &str, legacy: bool, retry_after: Duration) -> Response {
    let mut with_body = if legacy {
        Json(LegacyErrorBody { message: error.message.clone() }).into_response()
    } else {
        let (code, message) = (error.code.to_owned(), error.message.clone());
        Json(ErrorBody { error: ErrorDetail { code, message, request_id: id.to_owned() } }).into_response()
    };
    *with_body.status_mut() = error.status;
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            with_body.headers_mut().insert(name, value.clone());
        }
    }
    if error.status == StatusCode::TOO_MANY_REQUESTS {
        with_body.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
    }
    with_body
}

fn log(error: &ApiError, id: &str, route: &str) {
    if error.status.is_server_error() {
        let cause = error.cause.as_deref().unwrap_or(&error.message);
        tracing::error!(request_id = id, route, code = error.code, cause, "a request failed");
    }
}

/// The client's own id where it is short and plain, a new one otherwise.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let own = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(plain);
    own.map_or_else(new_id, str::to_owned)
}

/// Ids need to differ, within a server and between servers; they keep no secret.
fn new_id() -> String {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", SEED.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Methods are the client's to invent; metrics labels are not.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
