//! Pools filled by a seed's base, and manifests of anchors (ITAR) chosen from them.

use std::path::PathBuf;

use anchorite::{
    anchors::{
        Limits, Policy, Protected, Surroundings, curate,
        manifest::{self, Header},
        policy::{Control, FieldValue, ProtectedSource},
        read_questions,
    },
    encoder::Encode,
    index::{
        BuildParams, Builder, Spec, Value,
        pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
    },
    ingest::{ColumnChoice, ColumnOptions, IngestJob, IngestOptions, ProgressUpdate, Vectors, ingest},
};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Lab, base, bench::Role};
use crate::progress::say;

/// Which pairs become anchors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The nearest pictures of each finetune picture.
    Nearest,
    /// As many, drawn without looking.
    Random,
    /// The nearest among pairs in none of the tests' styles.
    NoTestStyles,
    /// The nearest of a pool that has all test pictures in it.
    Raw,
    /// The same, with the test sets protected.
    Protected,
}

/// Styles of the pool that a test set has too.
const TEST_STYLES: [&str; 4] = ["clipart", "photo", "photo?", "drawing"];

/// A manifest and its account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) manifest: PathBuf,
    pub(crate) pool: PathBuf,
    /// SHA-256 over the anchors in order.
    pub(crate) anchors: String,
    pub(crate) found: u64,
    pub(crate) requested: u64,
    /// Pairs passed over, by reason.
    pub(crate) dropped: Vec<(String, u64)>,
    /// Anchors whose picture is one of a test set's, by bytes or nearly.
    pub(crate) from_tests: u64,
}

impl Choice {
    fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Random => "random",
            Self::NoTestStyles => "no-test-styles",
            Self::Raw => "raw",
            Self::Protected => "protected",
        }
    }

    fn set(self) -> &'static str {
        if matches!(self, Self::Raw | Self::Protected) { "pool-raw" } else { "pool" }
    }

    fn policy(self, lab: &Lab<'_>, seed: u64) -> Policy {
        let mut policy = Policy { seed, ..Policy::default() };
        policy.queries.class_column = Some("category".to_owned());
        policy.select.k = Some(lab.setting.size.anchors);
        match self {
            Self::Random => policy.control = Control::Random,
            Self::NoTestStyles => {
                let field = |style: &&str| FieldValue { column: "style".to_owned(), value: Value::Text((*style).to_owned()) };
                policy.exclude.fields = TEST_STYLES.iter().map(field).collect();
            }
            _ => {}
        }
        // What is near to a test picture is counted for every choice, and left out of the protected one alone.
        let tests =
            lab.sets.list.iter().filter(|set| !matches!(set.role, Role::Train | Role::Validation | Role::Pool | Role::RawPool));
        let source = |set: &super::bench::Set| ProtectedSource {
            name: set.name.clone(),
            source: lab.sets.path(&set.name).display().to_string(),
        };
        policy.protect.sets = tests.map(source).collect();
        policy.protect.audit = self != Self::Protected;
        // Of pictures drawn from scratch the same design comes in many sets; what counts as the test's own picture are its bytes or its look.
        policy.protect.similarity = None;
        policy
    }
}

/// The seed's manifest; chosen when it is not there.
pub(crate) fn chosen(lab: &Lab<'_>, seed: u64, choice: Choice) -> Result<Chosen> {
    let folder = lab.setting.out.join(format!("seed-{seed}/anchors"));
    super::stage(&folder.join(format!("{}.json", choice.name())), || {
        let weights = base::pretrained(lab, seed)?;
        let encoder = lab.frozen.encoder(&weights)?;
        let pool = filled(lab, seed, choice.set(), &encoder)?;
        say(&format!("seed {seed}: choosing anchors, {}", choice.name()));
        let path = folder.join(format!("{}.jsonl", choice.name()));
        choose(lab, choice, &choice.policy(lab, seed), &encoder, (pool, path))
    })
}

fn filled(lab: &Lab<'_>, seed: u64, set: &str, encoder: &dyn Encode) -> Result<PathBuf> {
    let dir = lab.setting.out.join(format!("seed-{seed}/{set}"));
    super::stage(&dir.with_extension("pool.json"), || {
        say(&format!("seed {seed}: filling the pool {set}"));
        let spec = Spec { encoder: encoder.fingerprint().to_owned(), dim: encoder.dim() };
        let build = BuildParams { builder: Builder::Own, ..BuildParams::default() };
        let options = WriterOptions { build, ..WriterOptions::default() };
        let mut writer = PoolWriter::open(&dir, &spec, &options).with_context(|| format!("open the pool {}", dir.display()))?;
        let columns = ColumnOptions { caption: ColumnChoice::Named("caption".to_owned()), ..ColumnOptions::default() };
        let options = IngestOptions { columns, ..IngestOptions::default() };
        let sources = [lab.sets.path(set)];
        let job = IngestJob { sources: &sources, vectors: Vectors::Encode(encoder), options: &options };
        let report = ingest(job, &mut writer, &mut |_: &ProgressUpdate| (), &lab.cancel)?;
        ensure!(!lab.cancel.is_cancelled(), "interrupted; the same command goes on");
        ensure!(report.rejected == 0, "{} rows of {set} were rejected: {:?}", report.rejected, report.rejected_by_reason);
        Ok(true)
    })?;
    Ok(dir)
}

fn choose(
    lab: &Lab<'_>,
    choice: Choice,
    policy: &Policy,
    encoder: &dyn Encode,
    (dir, path): (PathBuf, PathBuf),
) -> Result<Chosen> {
    let limits = Limits::default();
    let pool = Pool::open(&dir, &OpenOptions::default()).with_context(|| format!("open the pool {}", dir.display()))?;
    let questions = read_questions(&[lab.sets.path("train")], policy, encoder, &limits, &lab.cancel)?;
    let protected = Protected::read(&policy.protect, encoder, &limits, &lab.cancel)?;
    let surroundings = Surroundings { limits: &limits, cancel: &lab.cancel, told: &|_, _| () };
    let curated = curate(&pool, policy, &questions, &protected, surroundings)?;
    let header = Header::new(&pool, policy, &questions, &protected, &curated);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    manifest::write(&path, &header, &questions, &curated)?;
    let report = &curated.report;
    // Matches are counted among all pairs looked at; where sets are protected none of them is an anchor.
    let matched: u64 = report.matched.values().flat_map(|by_how| by_how.values()).sum();
    Ok(Chosen {
        manifest: path,
        pool: dir,
        anchors: header.anchors.clone(),
        found: report.found as u64,
        requested: report.requested as u64,
        dropped: report.dropped.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
        from_tests: if choice == Choice::Protected { 0 } else { matched },
    })
}
