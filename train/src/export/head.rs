//! The classifier's head beside the towers: its rows as safetensors, its class names as JSON.

use std::{collections::BTreeMap, fs, path::Path};

use super::{ClassifierHead, ExportError};
use crate::checkpoint::{io, tensors, write_synced};

/// The head's rows in an exported folder: one tensor, `weight`, `[classes, values]`, as PyTorch's `Linear` has it.
pub const HEAD_FILE: &str = "head.safetensors";
/// The names of its classes, row by row: a JSON list.
pub const CLASSES_FILE: &str = "classes.json";

/// The tensor's name.
const WEIGHT: &str = "weight";

/// Writes both files and reads them again.
pub(super) fn write(head: &ClassifierHead, folder: &Path) -> Result<(), ExportError> {
    let (path, names) = (folder.join(HEAD_FILE), folder.join(CLASSES_FILE));
    let refuse = |path: &Path| {
        let path = path.to_owned();
        move |reason: String| ExportError::Config { path, reason }
    };
    let named = BTreeMap::from([(WEIGHT.to_owned(), head.weights.clone())]);
    write_synced(&path, &tensors::write(&named).map_err(refuse(&path))?)?;
    let list = serde_json::to_vec_pretty(&head.classes).map_err(|e| refuse(&names)(e.to_string()))?;
    write_synced(&names, &list)?;
    let again = tensors::read(&fs::read(&path).map_err(io("read", &path))?).map_err(refuse(&path))?;
    match again.get(WEIGHT) {
        Some(weights) if *weights == head.weights => Ok(()),
        _ => Err(refuse(&path)("what was written is not what is read".to_owned())),
    }
}
