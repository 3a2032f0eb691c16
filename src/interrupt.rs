//! Ctrl-C and SIGTERM: the first asks long work to stop at the next safe point, the second ends the program where it is.

use anchorite::index::Cancel;
use anyhow::{Context, Result};

use crate::{exit::INTERRUPTED, progress::say};

/// A flag that the first Ctrl-C or SIGTERM raises. Call once.
///
/// The second ends the process: building a large graph cannot be cut short, and a pool is whole at every moment.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "the person asked twice")]
pub(crate) fn on_signal() -> Result<Cancel> {
    let cancel = Cancel::default();
    let raised = cancel.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the signal listener")?;
    std::thread::spawn(move || {
        runtime.block_on(signalled());
        raised.cancel();
        say("stopping; once more ends it at once");
        runtime.block_on(signalled());
        std::process::exit(i32::from(INTERRUPTED));
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
