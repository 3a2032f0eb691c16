//! One tower of a model folder: what it declares, and its bytes and tensors as ONNX Runtime takes them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::files::{FileDigest, Links, Root};
use super::options::Arithmetic;
use super::pick::NotPicked;
use super::prune::{Cut, ExternalTensor};
use super::quantize::quantize;
use super::scan::{self, Port};
use super::{FileError, FileProblem, ModelError, ModelLimits};

/// Tensors of at most this many bytes are put into the model: ONNX Runtime reads shapes from them while it loads, and finds
/// only what is inside.
const INLINE_BYTES: u64 = 64 << 10;

/// One tower's file: what it declares, and how to get it again.
#[derive(Debug)]
pub struct TowerModel<B> {
    pub(super) binding: B,
    pub(super) output: Port,
    pub(super) file: String,
    pub(super) batch_sensitive: bool,
    /// Whether the last layer is computed for the picked token only, or why not.
    pub(super) picked: Result<(), NotPicked>,
    pub(super) arithmetic: Arithmetic,
    pub(super) digests: HashMap<String, FileDigest>,
    pub(super) root: Arc<Root>,
    pub(super) limits: ModelLimits,
    /// The bytes read by `open`, until they are used.
    pub(super) kept: Mutex<Option<Arc<Vec<u8>>>>,
}

/// A tower as ONNX Runtime takes it.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tensors: Vec<LoadedTensor>,
}

/// A tower's file as it lies there, with everything in it, and the files that hold its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TowerSource {
    /// The `.onnx` file.
    pub bytes: Vec<u8>,
    /// The files beside it that its tensors are in, by the name it gives them.
    pub external: HashMap<String, Vec<u8>>,
}

/// An initializer that goes beside the model.
#[derive(Debug)]
pub(crate) struct LoadedTensor {
    pub(crate) name: String,
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

/// The path of `file` in the folder of `model`.
pub(super) fn beside(model: &str, file: &str) -> String {
    model.rsplit_once('/').map_or_else(|| file.to_owned(), |(folder, _)| format!("{folder}/{file}"))
}

impl<B> TowerModel<B> {
    /// Names, types and shapes of what goes in.
    pub fn binding(&self) -> &B {
        &self.binding
    }

    /// What comes out.
    pub fn output(&self) -> &Port {
        &self.output
    }

    /// The model file, relative to the folder.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether an item's embedding depends slightly on what else is in its batch (dynamic quantization).
    pub fn is_batch_sensitive(&self) -> bool {
        self.batch_sensitive
    }

    /// Whether the last layer is computed for the picked token only.
    ///
    /// # Errors
    /// [`NotPicked`]: it is computed for all tokens, for this reason.
    pub fn picked(&self) -> Result<(), NotPicked> {
        self.picked
    }

    /// Lets go of the bytes that `open` read; loading reads and verifies them again.
    pub(crate) fn release(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The file uncut, for training and export, verified to be what was scanned.
    ///
    /// # Errors
    /// [`ModelError`]: a file cannot be read, or is not what it was when the folder was opened.
    pub fn source(&self) -> Result<TowerSource, ModelError> {
        let bytes = self.bytes()?;
        let scanned = scan::scan(&bytes, &self.limits)
            .map_err(|source| ModelError::Scan { path: self.root.path().join(&self.file), source })?;
        let mut external = HashMap::new();
        for name in scanned.external_files() {
            let path = beside(&self.file, &name);
            let (content, digest) = self.root.read(&path, self.limits.max_external_bytes, Links::OnlyName)?;
            self.verify(&path, digest)?;
            external.insert(name, content);
        }
        Ok(TowerSource { bytes: Arc::unwrap_or_clone(bytes), external })
    }

    /// The file's bytes: those that `open` read if nobody took them, else read and verified again.
    fn bytes(&self) -> Result<Arc<Vec<u8>>, ModelError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bytes) = kept {
            return Ok(bytes);
        }
        let (bytes, digest) = self.root.read(&self.file, self.limits.max_model_bytes, Links::Any)?;
        self.verify(&self.file, digest)?;
        Ok(Arc::new(bytes))
    }

    /// The tower's bytes and tensors, verified to be those that were scanned.
    pub(crate) fn load(&self) -> Result<LoadedModel, ModelError> {
        let bytes = self.bytes()?;
        // The digest is that of bytes that passed, so this cannot fail; were it to, the error is the right one.
        let scanned = scan::scan(&bytes, &self.limits)
            .map_err(|source| ModelError::Scan { path: self.root.path().join(&self.file), source })?;
        let mut cut = Cut::to_output(&scanned, &self.output.name).ok_or_else(|| self.changed(&self.file))?;
        if self.picked.is_ok() {
            // What could be done when the same bytes were opened can be done now.
            cut.pick_first().map_err(|_| self.changed(&self.file))?;
        }
        let tensors = self.read_tensors(cut.external())?;
        let (small, large): (Vec<LoadedTensor>, Vec<LoadedTensor>) =
            tensors.into_iter().partition(|t| t.data.len() as u64 <= INLINE_BYTES || !handed_over(t.data_type));
        let inline = small.iter().map(|t| (t.name.as_str(), t.data.as_slice())).collect();
        let written = match cut.write(&inline) {
            Cow::Owned(bytes) => Some(bytes),
            Cow::Borrowed(_) => None,
        };
        let model = LoadedModel { bytes: written.unwrap_or_else(|| Arc::unwrap_or_clone(bytes)), tensors: large };
        match self.arithmetic {
            Arithmetic::AsStored => Ok(model),
            Arithmetic::Int8 => {
                let path = || self.root.path().join(&self.file);
                let quantized = quantize(model, &self.output.name, &self.limits);
                let quantized = quantized.map_err(|source| ModelError::Scan { path: path(), source })?;
                quantized.ok_or_else(|| ModelError::NoMatrices { path: path() })
            }
        }
    }

    fn read_tensors(&self, tensors: Vec<ExternalTensor>) -> Result<Vec<LoadedTensor>, ModelError> {
        let mut files: HashMap<String, Vec<ExternalTensor>> = HashMap::new();
        for tensor in tensors {
            files.entry(beside(&self.file, &tensor.range.file)).or_default().push(tensor);
        }
        let mut loaded = Vec::new();
        for (name, tensors) in files {
            let ranges: Vec<(u64, u64)> = tensors.iter().map(|t| (t.range.offset, t.range.len)).collect();
            let (parts, digest) = self.root.read_ranges(&name, self.limits.max_external_bytes, &ranges)?;
            self.verify(&name, digest)?;
            loaded.extend(tensors.into_iter().zip(parts).map(|(tensor, data)| LoadedTensor {
                name: tensor.name,
                data_type: tensor.data_type,
                dims: tensor.dims,
                data,
            }));
        }
        Ok(loaded)
    }

    fn verify(&self, name: &str, digest: FileDigest) -> Result<(), ModelError> {
        if self.digests.get(name) == Some(&digest) { Ok(()) } else { Err(self.changed(name)) }
    }

    fn changed(&self, name: &str) -> ModelError {
        FileError { path: self.root.path().join(name), problem: FileProblem::Changed }.into()
    }
}

/// Element types that `ort` can make a tensor of; others go into the model whatever their size.
fn handed_over(data_type: i32) -> bool {
    matches!(data_type, 1 | 2 | 3 | 6 | 7 | 10 | 11)
}
