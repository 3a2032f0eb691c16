//! Ctrl-C and SIGTERM: the first asks long work to stop at the next safe point, the second ends the program where it is.

use anchorite::index::Cancel;
use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{exit::INTERRUPTED, progress::say};

/// A flag that the first Ctrl-C or SIGTERM raises. Call once.
///
/// The second ends the process: building a large graph cannot be cut short, and a pool is whole at every moment.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "the person asked twice")]
pub(crate) fn on_signal() -> Result<Cancel> {
    let cancel = Cancel::default();
    let raised = cancel.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the signal listener")?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    std::thread::spawn(move || {
        runtime.block_on(signals.next());
        raised.cancel();
        say("stopping; once more ends it at once");
        runtime.block_on(signals.next());
        std::process::exit(i32::from(INTERRUPTED));
    });
    Ok(cancel)
}

/// Ctrl-C and SIGTERM, which no longer end the process by themselves once this is there.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on. Only within an async runtime.
    pub(crate) fn listen() -> Result<Self> {
        let of = |kind| signal(kind).context("listen for Ctrl-C and SIGTERM");
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    /// Resolves at the next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
