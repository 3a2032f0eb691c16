//! Why a checkpoint could not be written or read.

use std::path::PathBuf;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system said no.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Tensors that the format does not hold.
    #[error("{}: {reason}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// None is whole.
    #[error("no checkpoint is whole; the newest: {first}. Start anew without --resume")]
    AllDamaged {
        /// What is wrong with the newest.
        first: String,
    },
    /// Another version of the format.
    #[error("{} has checkpoint format {found}; this program reads {}: use the program that wrote it", path.display(), super::FORMAT)]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Another run's.
    #[error("{} is of another run: {difference}. Put the run file back, or name another output", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
}
