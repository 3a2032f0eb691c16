//! The route table, and the OpenAPI document made from it and from the types.

use std::{any::Any, sync::Arc};

use axum::{Router, http::StatusCode, middleware, routing::get};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    anchors,
    app::App,
    body::JsonBytes,
    clip_retrieval, embeddings,
    error::{ApiError, ErrorBody, LegacyErrorBody},
    filter::{FilterBegins, FilterBetween, FilterEquals, FilterNamed, FilterOneOf},
    finish, health, page, pools, search,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "anchorite", description = "An anchor index server: image-text pairs by text, picture, embedding or id."),
    // The filter's own parts are named here: its description of itself stops at the first level, or it would not end.
    components(schemas(ErrorBody, LegacyErrorBody, FilterEquals, FilterOneOf, FilterBetween, FilterBegins, FilterNamed))
)]
struct Document;

fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(search::search))
        .routes(routes!(anchors::anchors))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(embeddings::models))
        .routes(routes!(pools::list))
        .routes(routes!(pools::describe))
        .routes(routes!(pools::pair))
        .routes(routes!(pools::image))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(clip_retrieval::knn_service))
        .routes(routes!(clip_retrieval::metadata))
        .routes(routes!(clip_retrieval::indices_list))
        .routes(routes!(clip_retrieval::config))
}

/// The OpenAPI document, as `/openapi.json` serves it.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().split_for_parts().1
}

/// Every route over `app`, with what every answer gets.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let (router, document) = documented().split_for_parts();
    let panics = Arc::clone(app);
    router
        .route("/openapi.json", get(move || async move { JsonBytes::of(&document) }))
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(move |payload: Box<dyn Any + Send>| finish::caught(&panics, &*payload)))
        .layer(middleware::from_fn(clip_retrieval::any_origin))
        .layer(middleware::from_fn_with_state(Arc::clone(app), finish::finish))
        .with_state(Arc::clone(app))
}

async fn no_route() -> ApiError {
    ApiError::not_found("route_not_found", "there is nothing at this path; /openapi.json lists the routes")
}

async fn no_method() -> ApiError {
    let message = "this path takes another method; the Allow header and /openapi.json say which";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
