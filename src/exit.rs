//! How the program ends: one code per outcome that a script must tell apart.

use std::process::ExitCode;

/// The outcome of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Finished, but more rows were rejected than allowed.
    TooManyRejects,
    /// Ended by Ctrl-C or SIGTERM; what was accepted is kept.
    Interrupted,
}

/// Ended by Ctrl-C or SIGTERM.
pub(crate) const INTERRUPTED: u8 = 130;

/// A command failed.
pub(crate) const FAILED: u8 = 1;

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::TooManyRejects => 3,
            Exit::Interrupted => INTERRUPTED,
        })
    }
}
