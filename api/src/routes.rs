//! The route table: what there is, and the scope that each route asks for. The OpenAPI document is made from it and from the types.

use std::{any::Any, sync::Arc};

use axum::{Router, http::StatusCode, middleware, routing::get};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, Ref, ResponseBuilder,
        extensions::ExtensionsBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    anchors,
    app::App,
    auth::{self, Scope},
    body::JsonBytes,
    clip_retrieval, embeddings,
    error::{ApiError, ErrorBody, LegacyErrorBody},
    filter::{FilterBegins, FilterBetween, FilterEquals, FilterNamed, FilterOneOf, FilterValue},
    finish, health, jobs, manifest, page, pools, search,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "anchorite", description = "An anchor index server: image-text pairs by text, picture, embedding or id."),
    // `FilterForm` holds itself, so what it is made of is not found from the routes.
    components(schemas(
        ErrorBody, LegacyErrorBody, FilterBegins, FilterBetween, FilterEquals, FilterNamed, FilterOneOf, FilterValue
    ))
)]
struct Document;

type Routes = OpenApiRouter<Arc<App>>;

/// For orchestrators: they show no key, and learn nothing of what is stored.
fn open() -> Routes {
    Routes::new().routes(routes!(health::healthz)).routes(routes!(health::readyz))
}

fn read() -> Routes {
    Routes::new()
        .routes(routes!(search::search))
        .routes(routes!(anchors::anchors))
        .routes(routes!(manifest::manifest))
        .routes(routes!(embeddings::embeddings))
        .routes(routes!(embeddings::models))
        .routes(routes!(pools::list))
        .routes(routes!(pools::describe))
        .routes(routes!(pools::fields))
        .routes(routes!(pools::pair))
        .routes(routes!(pools::image))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::rejects))
        .routes(routes!(health::metrics))
        .routes(routes!(clip_retrieval::knn_service))
        .routes(routes!(clip_retrieval::metadata))
        .routes(routes!(clip_retrieval::indices_list))
        .routes(routes!(clip_retrieval::config))
        .routes(routes!(clip_retrieval::metrics_summary))
}

fn write() -> Routes {
    Routes::new().routes(routes!(jobs::ingest)).routes(routes!(jobs::cancel))
}

fn admin() -> Routes {
    Routes::new().routes(routes!(pools::reload))
}

/// Every documented route; `guard` puts a scope's guard before its routes.
fn table(guard: impl Fn(Routes, Scope) -> Routes) -> Routes {
    let scoped = [(Scope::Read, read()), (Scope::Write, write()), (Scope::Admin, admin())];
    let mut all = Routes::with_openapi(Document::openapi()).merge(open());
    for (scope, mut routes) in scoped {
        document_scope(routes.get_openapi_mut(), scope);
        all = all.merge(guard(routes, scope));
    }
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = all.get_openapi_mut().components.get_or_insert_default();
    components.security_schemes.insert(SCHEME.to_owned(), bearer.into());
    all
}

/// What the document calls a key.
const SCHEME: &str = "key";

/// Says of each route which scope it asks for, and how it refuses.
fn document_scope(document: &mut utoipa::openapi::OpenApi, scope: Scope) {
    for (path, item) in &mut document.paths.paths {
        let body = if clip_retrieval::is_route(path) { "LegacyErrorBody" } else { "ErrorBody" };
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            document_operation(operation, scope, body);
        }
    }
}

fn document_operation(operation: &mut Operation, scope: Scope, body: &str) {
    let refusal = |description: String| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(body))).build();
        ResponseBuilder::new().description(description).content("application/json", content).build().into()
    };
    let responses = &mut operation.responses.responses;
    responses.insert("401".to_owned(), refusal("The server has keys, and none that it knows was shown".to_owned()));
    // The least scope is one that every key has.
    if scope > Scope::Read {
        responses.insert("403".to_owned(), refusal(format!("The key does not allow {scope}")));
    }
    operation.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new()), SecurityRequirement::default()]);
    operation.extensions = Some(ExtensionsBuilder::new().add("x-scope", scope.name()).build());
}

/// The OpenAPI document, as `/openapi.json` serves it. `x-scope` of an operation is the scope its keys need; those without need none.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    table(|routes, _| routes).split_for_parts().1
}

/// Every route over `app`, with what every answer gets.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let guard =
        |routes: Routes, scope| routes.route_layer(middleware::from_fn_with_state((Arc::clone(app), scope), auth::require));
    let (router, document) = table(guard).split_for_parts();
    let panics = Arc::clone(app);
    router
        .route("/openapi.json", get(move || async move { JsonBytes::of(&document) }))
        .merge(page::router())
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
