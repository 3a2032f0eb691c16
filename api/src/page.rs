//! The page for people: files built into the program, nothing from elsewhere.
//!
//! | path | what |
//! | --- | --- |
//! | `/` | the page: `index.html`, `page.css`, and the modules that `main.js` names in its header |
//! | `/docs` | the OpenAPI document for people: `docs.html`, `docs.js` |
//!
//! The files are open to everybody, like the routes of health: they hold nothing of what is stored, and ask for a key where the server has keys.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

use crate::app::App;

/// Scripts and styles come from this server only, none from within a document, and no page may frame this one. `blob:` is for pictures that
/// the visitor drops, and for those that are fetched with a key.
const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// A file of the page.
#[derive(Clone, Copy)]
struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($path:literal, $content_type:expr, $file:literal) => {
        Asset { path: $path, content_type: $content_type, text: include_str!(concat!("page/", $file)) }
    };
    ($file:literal, $content_type:expr) => {
        Asset { path: concat!("/page/", $file), content_type: $content_type, text: include_str!(concat!("page/", $file)) }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Every file, by its path. `tests/page.rs` holds the list against the folder.
const ASSETS: &[Asset] = &[
    asset!("/", HTML, "index.html"),
    asset!("/docs", HTML, "docs.html"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("base.css", STYLE),
    asset!("docs.css", STYLE),
    asset!("page.css", STYLE),
    asset!("cards.js", SCRIPT),
    asset!("controls.js", SCRIPT),
    asset!("details.js", SCRIPT),
    asset!("docs.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("filter.js", SCRIPT),
    asset!("intake.js", SCRIPT),
    asset!("keybox.js", SCRIPT),
    asset!("main.js", SCRIPT),
    asset!("query.js", SCRIPT),
    asset!("search.js", SCRIPT),
    asset!("selection.js", SCRIPT),
    asset!("server.js", SCRIPT),
];

/// The files' routes. They are no part of the OpenAPI document.
pub(crate) fn router() -> Router<Arc<App>> {
    let route = |router: Router<Arc<App>>, asset: &'static Asset| {
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(&headers, asset) }))
    };
    ASSETS.iter().fold(Router::new(), route)
}

/// Not cached without asking: a new version of the program brings a new page.
fn answer(request: &HeaderMap, asset: &'static Asset) -> Response {
    let etag = concat!("\"", env!("CARGO_PKG_VERSION"), "-").to_owned() + &checksum(asset.text) + "\"";
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|sent| sent.as_bytes() == etag.as_bytes());
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { asset.text.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, CSP);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// FNV-1a: tells one build's file from another's, nothing more.
fn checksum(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
