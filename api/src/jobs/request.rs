//! What a job may be asked for: what the command line's `ingest` may be ([`IngestRequest`]), and where its sources come from.

use anchorite_ingest::IngestRequest;
use axum::http::StatusCode;

use crate::error::ApiError;

/// Sources of one job. 1,000: patterns name more files than that with one.
const MAX_SOURCES: usize = 1_000;

/// Whether sources and upload fit together.
pub(super) fn check_sources(request: &IngestRequest, uploaded: bool, has_root: bool) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(ApiError::unprocessable("ingest_sources", message));
    match (uploaded, request.sources.len()) {
        (true, 0) => Ok(()),
        (true, _) => refuse("an upload is the source; leave `sources` out"),
        (false, 0) => refuse("name `sources`, or send a parquet file as application/vnd.apache.parquet"),
        (false, _) if !has_root => {
            let message = "this server has no folder of sources (serve --ingest-root); send a parquet file as application/vnd.apache.parquet";
            Err(ApiError::new(StatusCode::CONFLICT, "ingest_uploads_only", message))
        }
        (false, count) if count > MAX_SOURCES => refuse("at most 1000 sources; use a pattern, or several jobs"),
        _ => Ok(()),
    }
}
