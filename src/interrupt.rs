//! Ctrl-C and SIGTERM: the first asks long work to stop at the next safe point.

use anchorite::index::Cancel;
use anyhow::{Context, Result};

/// A flag that the first Ctrl-C or SIGTERM raises. Call once.
pub(crate) fn on_signal() -> Result<Cancel> {
    let cancel = Cancel::default();
    let raised = cancel.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the signal listener")?;
    std::thread::spawn(move || {
        runtime.block_on(signalled());
        raised.cancel();
    });
    Ok(cancel)
}

/// Resolves at the first Ctrl-C or SIGTERM.
pub(crate) async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
