//! Embeddings kept between runs, by content: a picture is encoded once per encoder, in whichever set it stands.
//!
//! One file per encoder: a head (magic, dimension, the encoder's fingerprint), then records of equal length (SHA-256 of the content,
//! values, the first 8 bytes of a SHA-256 over both). Records are only ever appended, so that a run that is cut off leaves at most one short record at the
//! end, which the next one cuts away; a record whose check fails is not used and is made again.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::EvalError;

const MAGIC: &[u8; 8] = b"anchemb1";

/// What a cached embedding was made from.
pub(crate) type Content = [u8; 32];

/// The content of a picture.
pub(crate) fn picture(bytes: &[u8]) -> Content {
    Sha256::new().chain_update(b"image\0").chain_update(bytes).finalize().into()
}

/// The content of a text.
pub(crate) fn text(text: &str) -> Content {
    Sha256::new().chain_update(b"text\0").chain_update(text).finalize().into()
}

/// Embeddings of one encoder: on disk, or in memory alone.
#[derive(Debug)]
pub struct Cache {
    known: HashMap<Content, Vec<f32>>,
    file: Option<(PathBuf, BufWriter<File>)>,
    /// Records that were not used because their check failed.
    damaged: u64,
}

impl Cache {
    /// Keeps nothing after the run.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { known: HashMap::new(), file: None, damaged: 0 }
    }

    /// Opens or makes the file of this encoder in `folder`.
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::Field`] where the file is another encoder's.
    pub fn open(folder: &Path, fingerprint: &str, dim: usize) -> Result<Self, EvalError> {
        let name = Sha256::digest(fingerprint.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
        let path = folder.join(format!("{name}.embeddings"));
        let io = |action| {
            let path = path.clone();
            move |source| EvalError::Io { action, path, source }
        };
        fs::create_dir_all(folder).map_err(io("create"))?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io("open"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let head = head(fingerprint, dim);
        let (known, damaged, end) = match bytes.strip_prefix(&head[..]) {
            Some(records) => read(records, dim, head.len()),
            // An empty file, or one cut off inside its head.
            None if head.starts_with(&bytes) => (HashMap::new(), 0, 0),
            None => {
                let reason = "not a cache of this encoder in this version's format; delete it or name another folder";
                return Err(EvalError::field(path.display().to_string(), reason));
            }
        };
        file.set_len(end as u64).map_err(io("cut"))?;
        file.seek(SeekFrom::Start(end as u64)).map_err(io("write"))?;
        if end == 0 {
            file.write_all(&head).map_err(io("write"))?;
        }
        Ok(Self { known, file: Some((path, BufWriter::new(file))), damaged })
    }

    /// Embeddings at hand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Records on disk whose check failed; they are made again.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    pub(crate) fn get(&self, content: &Content) -> Option<&[f32]> {
        self.known.get(content).map(Vec::as_slice)
    }

    pub(crate) fn put(&mut self, content: Content, values: Vec<f32>) -> Result<(), EvalError> {
        if let Some((path, file)) = &mut self.file {
            file.write_all(&record(&content, &values)).map_err(|source| EvalError::Io {
                action: "write",
                path: path.clone(),
                source,
            })?;
        }
        self.known.insert(content, values);
        Ok(())
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<(), EvalError> {
        match &mut self.file {
            Some((path, file)) => file.flush().map_err(|source| EvalError::Io { action: "write", path: path.clone(), source }),
            None => Ok(()),
        }
    }
}

fn head(fingerprint: &str, dim: usize) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend((dim as u32).to_le_bytes());
    head.extend(Sha256::digest(fingerprint.as_bytes()));
    head
}

fn record(content: &Content, values: &[f32]) -> Vec<u8> {
    let mut out = content.to_vec();
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let check = Sha256::digest(&out);
    out.extend(&check[..8]);
    out
}

/// Records, how many are damaged, and where the last whole one ends in the file.
fn read(records: &[u8], dim: usize, head: usize) -> (HashMap<Content, Vec<f32>>, u64, usize) {
    let length = 32 + dim * 4 + 8;
    let (mut known, mut damaged) = (HashMap::new(), 0);
    for record in records.chunks_exact(length) {
        let (body, check) = record.split_at(length - 8);
        if Sha256::digest(body)[..8] != *check {
            damaged += 1;
            continue;
        }
        let (content, values) = body.split_at(32);
        let values = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        known.extend(content.try_into().ok().map(|content: Content| (content, values)));
    }
    (known, damaged, head + records.len() / length * length)
}
