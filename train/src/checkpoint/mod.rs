//! What a run needs to go on: weights, moments, step, and what made them, in a folder that is whole or not there.
//!
//! ```text
//!   TrainState ──► .step-N.unfinished/ (each file written, synced) ──rename──► step-N/ ──► older ones removed
//!   step-N/ ──every file's SHA-256, the run's identity──► TrainState
//! ```
//!
//! | file of a checkpoint | holds |
//! |---|---|
//! | `weights.safetensors` | every trained tensor under its name in the export, `vision.` or `text.` before it |
//! | `first.safetensors`, `second.safetensors` | AdamW's moments under the same names |
//! | `checkpoint.json` | [`Header`]: step, identity, the run file, hash of each file |
//!
//! Random numbers and the data's place need no entry: both are functions of seed and step. What holds: a checkpoint that has its name is
//! complete and on disk; the one before is removed only after that.

mod error;
mod identity;
pub(crate) mod tensors;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use error::CheckpointError;
pub use identity::Identity;

use crate::{data::hex, step::TrainState};

/// The version of the format that this program reads and writes.
pub const FORMAT: u32 = 1;
/// The folder of checkpoints in a run's folder.
pub const FOLDER: &str = "checkpoints";
const HEADER: &str = "checkpoint.json";
const PARTS: [&str; 3] = ["weights.safetensors", "first.safetensors", "second.safetensors"];

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// What wrote it.
    pub written_by: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Which run it belongs to.
    pub identity: Identity,
    /// SHA-256 of each file.
    pub files: Vec<(String, String)>,
}

/// A run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    identity: Identity,
}

/// A checkpoint that was read, and what was passed over for it.
#[derive(Debug)]
pub struct Found {
    /// The state.
    pub state: TrainState,
    /// Newer ones that are damaged, with what is wrong.
    pub damaged: Vec<String>,
}

impl Checkpoints {
    /// Those in the folder `run`, of the run `identity`; the newest `keep` stay.
    #[must_use]
    pub fn of(run: &Path, keep: usize, identity: Identity) -> Self {
        Self { folder: run.join(FOLDER), keep: keep.max(1), identity }
    }

    /// Steps of the checkpoints that are there, ascending.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&self.folder).map_err(io("list", &self.folder))?;
        let step = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<u64> = entries.flatten().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The folder of a step's checkpoint.
    #[must_use]
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:09}"))
    }

    /// Writes a checkpoint; a failure leaves those that are there.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], [`CheckpointError::Tensors`].
    pub fn save(&self, state: &TrainState) -> Result<PathBuf, CheckpointError> {
        let path = self.path(state.step);
        let unfinished = self.folder.join(format!(".step-{:09}.unfinished", state.step));
        let saved = self.fill(&unfinished, state).and_then(|()| {
            remove(&path)?;
            fs::rename(&unfinished, &path).map_err(io("rename", &path))?;
            sync_folder(&self.folder)
        });
        if saved.is_err() {
            // The first failure is what is told; what is left behind is hidden, and removed by the next that is written.
            let _ = fs::remove_dir_all(&unfinished);
        }
        saved?;
        self.remove_old()?;
        Ok(path)
    }

    fn fill(&self, folder: &Path, state: &TrainState) -> Result<(), CheckpointError> {
        remove(folder)?;
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let mut files = Vec::new();
        for (name, values) in PARTS.iter().zip([&state.parameters, &state.first_moments, &state.second_moments]) {
            let bytes = tensors::write(values).map_err(|reason| CheckpointError::Tensors { path: folder.join(name), reason })?;
            write_synced(&folder.join(name), &bytes)?;
            files.push(((*name).to_owned(), hex(&Sha256::digest(&bytes))));
        }
        let written_by = concat!("anchorite ", env!("CARGO_PKG_VERSION")).to_owned();
        let header = Header { format: FORMAT, written_by, step: state.step, identity: self.identity.clone(), files };
        let json = serde_json::to_vec_pretty(&header).map_err(|e| io("write", &folder.join(HEADER))(e.into()))?;
        write_synced(&folder.join(HEADER), &json)?;
        sync_folder(folder)
    }

    fn remove_old(&self) -> Result<(), CheckpointError> {
        let steps = self.steps()?;
        for step in &steps[..steps.len().saturating_sub(self.keep)] {
            remove(&self.path(*step))?;
        }
        Ok(())
    }

    /// The newest that is whole; none when there is none at all.
    ///
    /// # Errors
    /// [`CheckpointError::OtherRun`] when it is of another model, data or run file; [`CheckpointError::Damaged`] when all are damaged.
    pub fn latest(&self) -> Result<Option<Found>, CheckpointError> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match self.read(step) {
                Ok(state) => return Ok(Some(Found { state, damaged })),
                Err(e @ CheckpointError::Damaged { .. }) => damaged.push(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        match damaged.into_iter().next() {
            Some(first) => Err(CheckpointError::AllDamaged { first }),
            None => Ok(None),
        }
    }

    /// The checkpoint of a step.
    ///
    /// # Errors
    /// As [`Checkpoints::latest`].
    pub fn read(&self, step: u64) -> Result<TrainState, CheckpointError> {
        let folder = self.path(step);
        let damaged = |reason: String| CheckpointError::Damaged { path: folder.clone(), reason };
        let json = fs::read(folder.join(HEADER)).map_err(|e| damaged(format!("{HEADER}: {e}")))?;
        let header: Header = serde_json::from_slice(&json).map_err(|e| damaged(format!("{HEADER}: {e}")))?;
        if header.format != FORMAT {
            return Err(CheckpointError::Version { path: folder, found: header.format });
        }
        if let Some(difference) = self.identity.difference(&header.identity) {
            return Err(CheckpointError::OtherRun { path: folder, difference });
        }
        let mut parts = Vec::new();
        for name in PARTS {
            let bytes = fs::read(folder.join(name)).map_err(|e| damaged(format!("{name}: {e}")))?;
            let expected = header.files.iter().find(|(n, _)| n == name).map(|(_, hash)| hash.as_str());
            if expected != Some(&hex(&Sha256::digest(&bytes))) {
                return Err(damaged(format!("{name} is not the file that was written")));
            }
            parts.push(tensors::read(&bytes).map_err(|reason| damaged(format!("{name}: {reason}")))?);
        }
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        Ok(TrainState { step: header.step, parameters: next(), first_moments: next(), second_moments: next() })
    }
}

/// Names the step and the file of a failure.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}

/// Writes a file and waits until it is on disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut file = File::create(path).map_err(io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", path))
}

/// Waits until a folder's names are on disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io("sync", path))
}

/// Removes a folder that may not be there.
pub(crate) fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(e)),
        _ => Ok(()),
    }
}
