//! Samples of a WebDataset tar, plain or gzip, in one pass from front to back.
//!
//! ```text
//!   file ──(gunzip)──► Members (512-byte headers, bounded) ──group by key──► sample ──► Row or Reject
//! ```
//!
//! Members that follow each other and have one key are a sample. As in the webdataset library the key is the member's name,
//! folders included, up to the first dot of its last part; what follows the dot says what the member is: `jpg`, `jpeg`, `png`
//! or `webp` is the picture, `txt` the caption, `json` metadata (and the caption where there is no `txt`). A leading `./` does
//! not count. Members of other kinds are passed over and named in the report.
//!
//! Names in the archive are never used as paths. A name that leaves the archive, and a link or device in a file's place, reject
//! their sample all the same: what made them was no dataset writer. Nothing is allocated as a header declares it: a member is
//! read into memory only if it is wanted and within its limit. An archive without its end mark was cut short: an error after
//! the samples before. The sample in which it breaks off is not taken, however much of it is there.
//!
//! `members.rs` reads members; here they become samples.

mod members;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anchorite_index::{SourceRef, Value};

use self::members::{GZIP, Head, Members};
use super::{
    Rows, Settings, VectorMode,
    columns::{ColumnChoice, ColumnsUsed},
    json,
};
use crate::{
    Limits, Reject, Row, RowResult, SourceError,
    reject::{RowProblem, code},
};

/// Endings of picture members, the best first.
const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// The member with the caption.
const CAPTION: &str = "txt";
/// The member with metadata.
const METADATA: &str = "json";
/// The name under which the sample's key can be chosen and is kept, as in the webdataset library.
const KEY: &str = "__key__";
/// Longest member name, as the kernel has it for paths.
const MAX_NAME_BYTES: usize = 4_096;
/// Names of other members that the report lists.
const SHOWN_KINDS: usize = 32;

/// A tar being read.
pub(crate) struct TarRows {
    name: String,
    members: Members,
    settings: Arc<Settings>,
    pictures: Vec<String>,
    /// The member that starts the next sample.
    ahead: Option<Member>,
    row: u64,
    declared: Option<u64>,
    /// What ended the reading, told after the rows before it.
    failed: Option<SourceError>,
    ended: bool,
    fields: BTreeSet<String>,
    others: BTreeSet<String>,
}

/// What a member holds, as far as it is needed.
struct Member {
    key: String,
    kind: String,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    /// Of no use; its bytes were passed over.
    Other,
    Refused(RowProblem),
}

/// Members of one key.
#[derive(Default)]
struct Sample {
    key: String,
    picture: Option<(usize, Vec<u8>)>,
    caption: Option<Vec<u8>>,
    metadata: Option<Vec<u8>>,
    kinds: BTreeSet<String>,
    problem: Option<RowProblem>,
}

/// Whether the file's name is a tar's.
pub(crate) fn is_tar_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending))
}

/// Whether the file's first block is a tar's or gzip's.
pub(crate) fn is_tar_content(head: &[u8]) -> bool {
    head.starts_with(&GZIP) || head.get(257..262) == Some(b"ustar")
}

impl TarRows {
    pub(crate) fn open(path: &Path, name: &str, settings: &Arc<Settings>) -> Result<Self, SourceError> {
        let choice = &settings.columns.image;
        if let VectorMode::Ready { .. } = settings.mode {
            return Err(SourceError::NoColumn {
                file: name.to_owned(),
                part: "image vector",
                flag: "--image-vector-column",
                columns: "none; it is a tar of pictures".to_owned(),
            });
        }
        let pictures = match choice {
            ColumnChoice::Auto => PICTURES.map(str::to_owned).to_vec(),
            ColumnChoice::Named(kinds) => kinds.split(';').map(str::to_ascii_lowercase).collect(),
            ColumnChoice::Absent => Vec::new(),
        };
        Ok(Self {
            name: name.to_owned(),
            members: Members::open(path, name, &settings.limits, &settings.reach)?,
            settings: Arc::clone(settings),
            pictures,
            ahead: None,
            row: 0,
            declared: super::sidecar::counted(path, &settings.reach).map(|counted| counted.successes),
            failed: None,
            ended: false,
            fields: BTreeSet::new(),
            others: BTreeSet::new(),
        })
    }

    /// The next sample, unless the archive ends or is damaged.
    fn sample(&mut self) -> Result<Option<Sample>, SourceError> {
        let mut sample: Option<Sample> = None;
        loop {
            let member = match self.ahead.take() {
                Some(member) => member,
                None => match self.member()? {
                    Some(member) => member,
                    None => return Ok(sample),
                },
            };
            match &mut sample {
                None => {
                    let mut first = Sample { key: member.key.clone(), ..Sample::default() };
                    self.add(&mut first, member);
                    sample = Some(first);
                }
                Some(open) if open.key == member.key => self.add(open, member),
                Some(_) => {
                    self.ahead = Some(member);
                    return Ok(sample);
                }
            }
        }
    }

    /// The next member that belongs to a sample.
    fn member(&mut self) -> Result<Option<Member>, SourceError> {
        loop {
            let Some(head) = self.members.next()? else { return Ok(None) };
            let shown = String::from_utf8_lossy(&head.name).into_owned();
            let name = shown.strip_prefix("./").unwrap_or(&shown);
            let Some((key, kind)) = split(name) else {
                self.pass_over(name);
                self.members.skip()?;
                continue;
            };
            let content = self.content(&head, name, &kind)?;
            return Ok(Some(Member { key: key.to_owned(), kind, content }));
        }
    }

    fn content(&mut self, head: &Head, name: &str, kind: &str) -> Result<Content, SourceError> {
        let refused = |code, message: String| Content::Refused(RowProblem { code, message });
        let quoted: String = name.chars().take(120).collect();
        if name.len() > MAX_NAME_BYTES || !is_plain(name) {
            self.members.skip()?;
            return Ok(refused(code::PATH_INVALID, format!("the member name {quoted:?} is no plain relative name")));
        }
        if !head.is_file {
            self.members.skip()?;
            return Ok(refused(code::PATH_REFUSED, format!("the member {quoted:?} is a link, a device or a sparse file")));
        }
        let limits = &self.settings.limits;
        let (max, code) = match kind {
            _ if self.pictures.iter().any(|p| p == kind) => (limits.max_picture_bytes, code::IMAGE_TOO_MANY_BYTES),
            METADATA => (limits.max_metadata_bytes, code::METADATA_INVALID),
            _ if self.is_caption(kind) => (limits.max_caption_bytes, code::TEXT_TOO_LONG),
            _ => {
                self.pass_over(kind);
                self.members.skip()?;
                return Ok(Content::Other);
            }
        };
        if head.bytes > max as u64 {
            self.members.skip()?;
            return Ok(refused(code, format!("the member {quoted:?} has {} bytes; at most {max} are allowed", head.bytes)));
        }
        Ok(Content::Bytes(self.members.read()?))
    }

    fn is_caption(&self, kind: &str) -> bool {
        match &self.settings.columns.caption {
            ColumnChoice::Auto => kind == CAPTION,
            ColumnChoice::Named(name) => kind.eq_ignore_ascii_case(name),
            ColumnChoice::Absent => false,
        }
    }

    fn pass_over(&mut self, kind: &str) {
        if self.others.len() < SHOWN_KINDS {
            self.others.insert(kind.chars().take(80).collect());
        }
    }

    fn add(&self, sample: &mut Sample, member: Member) {
        let Member { kind, content, .. } = member;
        if !sample.kinds.insert(kind.clone()) {
            let message = format!("the sample {:?} has two members that end in .{kind}", shorten(&sample.key));
            sample.problem.get_or_insert(RowProblem::new(code::MEMBER_DUPLICATE, message));
            return;
        }
        match content {
            Content::Other => {}
            Content::Refused(problem) => {
                sample.problem.get_or_insert(problem);
            }
            Content::Bytes(bytes) => match self.pictures.iter().position(|p| *p == kind) {
                Some(rank) if sample.picture.as_ref().is_none_or(|(best, _)| rank < *best) => {
                    sample.picture = Some((rank, bytes));
                }
                Some(_) => {}
                None if kind == METADATA => sample.metadata = Some(bytes),
                None => sample.caption = Some(bytes),
            },
        }
    }

    fn row(&mut self, sample: Sample) -> RowResult {
        let source = SourceRef { file: self.name.clone(), row: self.row };
        self.row += 1;
        self.parts(sample, &source).map_err(|problem| Reject::new(source, problem.code, problem.message))
    }

    fn parts(&mut self, sample: Sample, source: &SourceRef) -> Result<Row, RowProblem> {
        if let Some(problem) = sample.problem {
            return Err(problem);
        }
        let (columns, limits) = (&self.settings.columns, &self.settings.limits);
        let mut row = Row::at(source.clone());
        row.picture = sample.picture.map(|(_, bytes)| bytes);
        row.caption = sample.caption.map(caption_text).transpose()?.flatten();
        row.fields.insert(KEY.to_owned(), Value::Text(sample.key.clone()));
        let chosen_key = columns.key.as_deref();
        row.key = (chosen_key == Some(KEY)).then_some(sample.key);
        if let Some(bytes) = sample.metadata {
            let invalid = |reason| RowProblem::new(code::METADATA_INVALID, format!("its .json is no JSON object: {reason}"));
            let object = json::object(&bytes).map_err(invalid)?;
            json::object_into(&mut row, object, (&columns.caption, chosen_key), limits);
        }
        json::noted(row, &mut self.fields, limits)
    }
}

impl Rows for TarRows {
    fn are_own(&self) -> bool {
        true
    }

    fn next_rows(&mut self) -> Result<Option<Vec<RowResult>>, SourceError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let limits = Limits::clone(&self.settings.limits);
        while !self.ended && rows.len() < limits.chunk_rows && bytes < limits.chunk_bytes {
            match self.sample() {
                Ok(Some(sample)) => {
                    let row = self.row(sample);
                    bytes += row.as_ref().map_or(0, Row::bytes);
                    rows.push(row);
                }
                end => {
                    self.ended = true;
                    self.failed = end.err();
                }
            }
        }
        match (rows.is_empty(), self.failed.take()) {
            (false, failed) => {
                self.failed = failed;
                Ok(Some(rows))
            }
            (true, Some(error)) => Err(error),
            (true, None) => Ok(None),
        }
    }

    fn rows(&self) -> Option<u64> {
        if self.ended { Some(self.row) } else { self.declared }
    }

    fn columns(&self) -> ColumnsUsed {
        let caption = match &self.settings.columns.caption {
            ColumnChoice::Auto => Some(format!("{CAPTION}, or a field of {METADATA}")),
            ColumnChoice::Named(name) => Some(name.clone()),
            ColumnChoice::Absent => None,
        };
        ColumnsUsed {
            image: (!self.pictures.is_empty()).then(|| self.pictures.join(";")),
            caption,
            key: self.settings.columns.key.clone(),
            fields: self.fields.iter().cloned().collect(),
            skipped: self.others.iter().cloned().collect(),
            ..ColumnsUsed::default()
        }
    }

    fn position(&self) -> Option<(u64, u64)> {
        Some((self.members.file_bytes_read(), self.members.file_bytes))
    }
}

/// Key and kind of a member; none for a name without a dot, a hidden file, and webdataset's own `__...__` members.
fn split(name: &str) -> Option<(&str, String)> {
    let start = name.rfind('/').map_or(0, |at| at + 1);
    let base = name.get(start..)?;
    let (stem, kind) = base.split_once('.')?;
    let own = stem.starts_with("__") && stem.ends_with("__") && start == 0;
    let key = name.get(..start + stem.len())?;
    (!stem.is_empty() && !own).then(|| (key, kind.to_ascii_lowercase()))
}

fn is_plain(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c == '\\'))
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

/// A caption without the white space around it; none when nothing is left.
fn caption_text(bytes: Vec<u8>) -> Result<Option<String>, RowProblem> {
    let text =
        String::from_utf8(bytes).map_err(|e| RowProblem::new(code::TEXT_INVALID, format!("the caption is no UTF-8: {e}")))?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_webdataset_library() {
        // Expected values by webdataset.tariterators.base_plus_ext; see tests/data/make_webdataset.py.
        let expected: Vec<(String, Option<(String, String)>)> =
            serde_json::from_str(include_str!("../../../tests/data/webdataset/keys.json")).unwrap();
        assert!(expected.len() > 10);
        for (name, parts) in expected {
            let found = split(&name).map(|(key, kind)| (key.to_owned(), kind));
            // The library takes the folder for a hidden file's key; that would make a sample of nothing.
            let hidden = name.contains("/.");
            assert_eq!(found, parts.filter(|_| !hidden), "{name:?}");
        }
    }
}
