//! A body that is a parquet file, to disk: bounded in bytes and in the wait for the next of them, and in memory by a few pieces.
//!
//! A file is called by the SHA-256 of its content. Its rows are known by that name, so that sending a file again adds nothing.

use std::{
    fs::{self, File},
    future::poll_fn,
    io::{self, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use anchorite_anchors::hex;
use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::StatusCode,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::queue::Jobs;
use crate::{Limits, error::ApiError};

/// How names of whole uploads end.
pub(crate) const ENDING: &str = ".parquet";
/// How names of uploads end that are being received.
const UNFINISHED: &str = ".unfinished";
/// Pieces of a body between the socket and the disk.
const PIECES: usize = 4;
/// What a parquet file begins with.
const MARK: &[u8] = b"PAR1";

/// Makes the folder of uploads, and removes what an earlier server was receiving when it ended.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// An upload that is on disk and has no job yet; removed when dropped.
#[derive(Debug)]
pub(crate) struct Received {
    unfinished: PathBuf,
    name: String,
}

impl Received {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives it its name.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let folder = self.unfinished.parent().unwrap_or(Path::new("."));
        fs::rename(&self.unfinished, folder.join(&self.name))?;
        File::open(folder)?.sync_all()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // After `keep` there is nothing of this name; of what cannot be removed the next server disposes.
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// Receives a body into the folder of uploads.
pub(crate) async fn receive(jobs: Arc<Jobs>, body: Body, limits: &Limits) -> Result<Received, ApiError> {
    let max = limits.upload_bytes;
    if body.size_hint().lower() > max {
        return Err(too_large(max));
    }
    let permit = Arc::clone(&jobs.uploads).try_acquire_owned().map_err(|_| ApiError::busy())?;
    let (pieces, to_disk) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        let _held = permit;
        write(&jobs.records.uploads(), to_disk)
    });
    let sent = send(body, &pieces, limits).await;
    // The end of the pieces ends the writer, whose file is removed when it is dropped here.
    drop(pieces);
    let received = writing.await.map_err(ApiError::panicked)?.map_err(|e| ApiError::internal("upload_not_kept", e))?;
    sent?;
    received.ok_or_else(|| {
        let message = "the body is no parquet file; send one whole, or JSON as application/json";
        ApiError::unprocessable("not_parquet", message)
    })
}

async fn send(mut body: Body, pieces: &mpsc::Sender<Bytes>, limits: &Limits) -> Result<(), ApiError> {
    let cut_short =
        || ApiError::new(StatusCode::BAD_REQUEST, "body_cut_short", "the body ended early or was not well-formed; send it again");
    let mut left = limits.upload_bytes;
    loop {
        let next = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let Ok(frame) = tokio::time::timeout(limits.body_timeout, next).await else {
            let message = "no byte of the body came for too long; send it again, faster";
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message));
        };
        let Some(frame) = frame else { return Ok(()) };
        let Ok(piece) = frame.map_err(|_| cut_short())?.into_data() else { continue };
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| too_large(limits.upload_bytes))?;
        if pieces.send(piece).await.is_err() {
            // The disk failed, which the writer says.
            return Ok(());
        }
    }
}

fn too_large(max: u64) -> ApiError {
    let message =
        format!("an upload may have {max} bytes; send several smaller files, or put it below the server's folder of sources");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// Writes pieces until there are no more; none if they are no parquet file by both their ends.
fn write(folder: &Path, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Option<Received>> {
    let (mut file, mut received) = unfinished(folder)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    let (mut head, mut tail): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
        hash.update(&piece);
        bytes += piece.len() as u64;
        head.extend(piece.iter().take(MARK.len().saturating_sub(head.len())));
        tail.extend_from_slice(&piece);
        tail.drain(..tail.len().saturating_sub(MARK.len()));
    }
    file.sync_all()?;
    if bytes < 12 || head != MARK || tail != MARK {
        return Ok(None);
    }
    received.name = format!("{}{ENDING}", hex(&hash.finalize()).chars().take(32).collect::<String>());
    Ok(Some(received))
}

fn unfinished(folder: &Path) -> io::Result<(File, Received)> {
    let mut number = 0_u32;
    loop {
        let path = folder.join(format!("{number}{UNFINISHED}"));
        match File::create_new(&path) {
            Ok(file) => return Ok((file, Received { unfinished: path, name: String::new() })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}
