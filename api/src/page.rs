//! The page for people: files built into the program, nothing from elsewhere.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

/// Scripts and styles come from this server only, and no page may frame this one.
const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(crate) async fn index(headers: HeaderMap) -> Response {
    file(&headers, "text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(crate) async fn script(headers: HeaderMap) -> Response {
    file(&headers, "text/javascript; charset=utf-8", include_str!("page/app.js"))
}

pub(crate) async fn style(headers: HeaderMap) -> Response {
    file(&headers, "text/css; charset=utf-8", include_str!("page/style.css"))
}

pub(crate) async fn docs(headers: HeaderMap) -> Response {
    file(&headers, "text/html; charset=utf-8", include_str!("page/docs.html"))
}

pub(crate) async fn docs_script(headers: HeaderMap) -> Response {
    file(&headers, "text/javascript; charset=utf-8", include_str!("page/docs.js"))
}

/// Not cached without asking: a new version of the program brings a new page.
fn file(request: &HeaderMap, content_type: &'static str, text: &'static str) -> Response {
    let etag = concat!("\"", env!("CARGO_PKG_VERSION"), "-").to_owned() + &checksum(text) + "\"";
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|sent| sent.as_bytes() == etag.as_bytes());
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
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
