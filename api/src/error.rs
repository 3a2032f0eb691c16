//! The one place where an error becomes a status, a stable code and a sentence.
//!
//! A handler returns [`ApiError`]; `finish.rs` writes the body, because only there the request id and the dialect (ours or
//! clip-retrieval's) are known. What went wrong inside (a path, a system error) is logged with the request id and not sent.

use std::fmt::Display;

use anchorite_anchors::{AskError, CurateError, RetrieveError};
use anchorite_encoder::EncodeError;
use anchorite_index::StoreError;
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use utoipa::ToSchema;

/// Why a request was not answered.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// Stable; programs match on it.
    pub(crate) code: &'static str,
    /// For people: what is wrong and what to do.
    pub(crate) message: String,
    /// For the log only.
    pub(crate) cause: Option<String>,
}

/// The body of every error.
#[derive(serde::Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(serde::Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// A stable short name for programs.
    #[schema(example = "k_out_of_range")]
    pub(crate) code: String,
    /// What is wrong and what to do, for people.
    #[schema(example = "k is 0; give a number between 1 and 10000")]
    pub(crate) message: String,
    /// The request's id, also in the `x-request-id` header and in the server's log.
    #[schema(example = "5f0c6a1be27d9a34")]
    pub(crate) request_id: String,
}

/// The body of every error on clip-retrieval's routes.
#[derive(serde::Serialize, ToSchema)]
pub(crate) struct LegacyErrorBody {
    /// What is wrong and what to do, for people.
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), cause: None }
    }

    pub(crate) fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// A failure of ours: the caller learns that it is ours, the log learns what it was.
    pub(crate) fn internal(code: &'static str, cause: impl Display) -> Self {
        let message = "the server failed; its log has the reason under this request id";
        Self { cause: Some(cause.to_string()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message) }
    }

    pub(crate) fn panicked(cause: impl Display) -> Self {
        Self::internal("panic", cause)
    }

    pub(crate) fn busy() -> Self {
        let message = "the server is working at its limit; try again after the time in the Retry-After header";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_busy", message)
    }

    pub(crate) fn deadline() -> Self {
        let message = "the request took longer than this server allows; ask for fewer hits or less effort";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
    }

    pub(crate) fn no_pool(name: &str) -> Self {
        let name: String = name.chars().take(80).collect();
        Self::not_found("pool_not_found", format!("there is no pool {name:?}; GET /v1/pools lists those there are"))
    }
}

impl From<RetrieveError> for ApiError {
    fn from(error: RetrieveError) -> Self {
        let code = error.code();
        match error {
            RetrieveError::Ask { source: AskError::NoRow { .. } | AskError::NoKey { .. }, .. } => {
                Self::not_found(code, error.to_string())
            }
            RetrieveError::Ask { .. } => Self::unprocessable(code, error.to_string()),
            RetrieveError::Encode(EncodeError::NoTower { tower }) => {
                let message = format!("this pool's model has no {tower} tower; ask with another kind of input");
                Self::unprocessable(code, message)
            }
            RetrieveError::Store(e) => e.into(),
            e => Self::internal(code, e),
        }
    }
}

impl From<CurateError> for ApiError {
    fn from(error: CurateError) -> Self {
        match error {
            CurateError::Policy(e) => Self::unprocessable("policy_refused", e.to_string()),
            CurateError::NoQueries { rejected, first } => crate::anchors::refused(&first, rejected),
            CurateError::NoClass { query } => Self::unprocessable(
                "query_without_class",
                format!("query {query} has no class, and the policy speaks of classes"),
            ),
            CurateError::MinimumAboveTarget { .. } | CurateError::TooMany { .. } => {
                Self::unprocessable("policy_refused", error.to_string())
            }
            CurateError::Encode(e) => RetrieveError::from(e).into(),
            CurateError::Store(e) => e.into(),
            e => Self::internal("anchors_failed", chain(&e)),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSide { side } => {
                let message = format!("this pool has no {side} vectors; search its other side");
                Self::unprocessable("no_such_side", message)
            }
            StoreError::Dimension { .. } | StoreError::NotFinite { .. } | StoreError::Length { .. } | StoreError::K { .. } => {
                Self::unprocessable(RetrieveError::from(error).code(), "the store refused the query's vector or k")
            }
            StoreError::Filter(e) => Self::unprocessable(e.code(), e.to_string()),
            StoreError::Cancelled => Self::deadline(),
            e => {
                let cause = chain(&e);
                Self::internal(RetrieveError::from(e).code(), cause)
            }
        }
    }
}

/// An error and each of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
