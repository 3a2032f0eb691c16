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

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use anchorite_index::{SourceRef, Value};
use flate2::bufread::MultiGzDecoder;
use tar::{EntryType, Header, PaxExtensions};

use super::{
    Reach, Rows, Settings, VectorMode,
    columns::{ColumnChoice, ColumnsUsed},
    json,
};
use crate::{
    Limits, Reject, Row, RowResult, SourceError,
    reject::{RowProblem, code},
};

const BLOCK: u64 = 512;
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
/// Bytes after the end mark that are read to reach gzip's checksum. 1 MiB: a hundred times what tar pads to.
const MAX_END_PADDING: u64 = 1 << 20;
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

const GZIP: [u8; 2] = [0x1f, 0x8b];

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
            declared: super::sidecar::successes(path, &settings.reach),
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
            let caption = json::caption_name(&object, &columns.caption);
            if row.caption.is_none() {
                let value = caption.as_ref().and_then(|name| object.get(name));
                row.caption = value.and_then(json::caption).map(str::to_owned);
            }
            if let Some(value) = chosen_key.filter(|name| *name != KEY).and_then(|name| object.get(name)) {
                row.key = json::key(value);
            }
            let taken: Vec<&str> = caption.as_deref().into_iter().chain(chosen_key).collect();
            json::fields_into(&mut row, object, &taken, limits);
        }
        if row.caption.as_ref().is_some_and(|text| text.len() > limits.max_caption_bytes) {
            let message = format!("the caption has more than the {} bytes that are allowed", limits.max_caption_bytes);
            return Err(RowProblem::new(code::TEXT_TOO_LONG, message));
        }
        let room = limits.max_columns.saturating_sub(self.fields.len());
        let new: Vec<String> = row.fields.keys().filter(|name| !self.fields.contains(*name)).take(room).cloned().collect();
        self.fields.extend(new);
        Ok(row)
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

/// A member's header.
struct Head {
    name: Vec<u8>,
    is_file: bool,
    bytes: u64,
}

/// The members of an archive, one after another.
struct Members {
    name: String,
    stream: Stream,
    file_bytes: u64,
    /// Bytes of the present member, and of the padding after it, that were not read yet.
    left: u64,
    padding: u64,
    max_member_bytes: u64,
    max_extension_bytes: u64,
    ended: bool,
}

enum Stream {
    Plain(BufReader<Counted>),
    Gzip(Box<MultiGzDecoder<BufReader<Counted>>>),
}

/// A file that counts what is read from it.
struct Counted {
    file: File,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Gzip(stream) => stream.read(buffer),
        }
    }
}

/// What names, links and sizes a header had before it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    sparse: bool,
}

impl Members {
    fn open(path: &Path, name: &str, limits: &Limits, reach: &Reach) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Open { path: path.to_owned(), source };
        let file = reach.open(path).map_err(failed)?;
        let info = file.metadata().map_err(failed)?;
        if !info.is_file() {
            return Err(SourceError::Corrupt { file: name.to_owned(), reason: "it is no plain file".to_owned() });
        }
        let mut stream = BufReader::with_capacity(1 << 18, Counted { file, read: 0 });
        let gzip = stream.fill_buf().map_err(failed)?.starts_with(&GZIP);
        let stream = if gzip { Stream::Gzip(Box::new(MultiGzDecoder::new(stream))) } else { Stream::Plain(stream) };
        Ok(Self {
            name: name.to_owned(),
            stream,
            file_bytes: info.len(),
            left: 0,
            padding: 0,
            max_member_bytes: limits.max_member_bytes,
            max_extension_bytes: limits.max_metadata_bytes as u64,
            ended: false,
        })
    }

    /// Bytes of the file that were used; what lies ready in the buffer is not.
    fn file_bytes_read(&self) -> u64 {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Gzip(stream) => stream.get_ref(),
        };
        stream.get_ref().read.saturating_sub(stream.buffer().len() as u64)
    }

    fn corrupt(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Corrupt { file: self.name.clone(), reason: reason.into() }
    }

    fn read_failed(&self, error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt("it ends within a member; it was cut short"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => self.corrupt(error.to_string()),
            _ => SourceError::Read { file: self.name.clone(), source: error },
        }
    }

    /// The next member; its bytes are to be read or skipped before the one after it. None at the end mark.
    fn next(&mut self) -> Result<Option<Head>, SourceError> {
        let mut extension = Extension::default();
        if self.ended {
            return Ok(None);
        }
        loop {
            self.skip()?;
            let mut block = [0; BLOCK as usize];
            self.stream.read_exact(&mut block).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.corrupt("it has no end mark; it was cut short, or is another kind of file"),
                _ => self.read_failed(error),
            })?;
            if block == [0; BLOCK as usize] {
                self.ended = true;
                self.check_end()?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            let bytes = self.check(header)?;
            match header.entry_type() {
                EntryType::GNULongName => extension.name = Some(self.text(bytes)?),
                EntryType::XHeader => self.pax(bytes, &mut extension)?,
                EntryType::GNULongLink | EntryType::XGlobalHeader => self.begin(bytes)?,
                EntryType::Directory => self.begin(0)?,
                kind => {
                    let has_bytes = !matches!(
                        kind,
                        EntryType::Link | EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Fifo
                    );
                    let bytes = extension.bytes.filter(|_| has_bytes).unwrap_or(if has_bytes { bytes } else { 0 });
                    self.begin(bytes)?;
                    if kind == EntryType::GNUSparse && header.as_gnu().is_some_and(tar::GnuHeader::is_extended) {
                        return Err(self.corrupt("it has sparse members, which no dataset writer makes"));
                    }
                    let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous) && !extension.sparse;
                    return Ok(Some(Head { name, is_file, bytes }));
                }
            }
        }
    }

    /// After the end mark: gzip's own checksum is beyond the padding, and is compared when the stream is read to its end.
    fn check_end(&mut self) -> Result<(), SourceError> {
        if let Stream::Gzip(_) = self.stream {
            let rest = self.stream.by_ref().take(MAX_END_PADDING);
            io::copy(&mut { rest }, &mut io::sink()).map_err(|e| self.read_failed(e))?;
        }
        Ok(())
    }

    /// The declared size of a header whose checksum is right.
    fn check(&self, header: &Header) -> Result<u64, SourceError> {
        let block = header.as_bytes();
        let value = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
        let sum: u32 = block.iter().enumerate().map(value).sum();
        match (header.cksum(), header.entry_size()) {
            (Ok(said), Ok(bytes)) if said == sum => Ok(bytes),
            _ => Err(self.corrupt("a header is damaged, or it is no tar")),
        }
    }

    fn begin(&mut self, bytes: u64) -> Result<(), SourceError> {
        super::parquet::limit(&self.name, "the size of a member in bytes", bytes, self.max_member_bytes)?;
        self.left = bytes;
        self.padding = (BLOCK - bytes % BLOCK) % BLOCK;
        Ok(())
    }

    /// A member that belongs to the header after it.
    fn text(&mut self, bytes: u64) -> Result<Vec<u8>, SourceError> {
        super::parquet::limit(&self.name, "the length of a member's name in bytes", bytes, self.max_extension_bytes)?;
        self.begin(bytes)?;
        let mut text = self.read()?;
        text.truncate(text.iter().position(|b| *b == 0).unwrap_or(text.len()));
        Ok(text)
    }

    fn pax(&mut self, bytes: u64, extension: &mut Extension) -> Result<(), SourceError> {
        super::parquet::limit(&self.name, "the length of a member's header in bytes", bytes, self.max_extension_bytes)?;
        self.begin(bytes)?;
        let text = self.read()?;
        for pair in PaxExtensions::new(&text) {
            let pair = pair.map_err(|_| self.corrupt("an extended header is damaged"))?;
            match pair.key_bytes() {
                b"path" => extension.name = Some(pair.value_bytes().to_vec()),
                b"size" => {
                    let size = pair.value().ok().and_then(|text| text.parse().ok());
                    extension.bytes = Some(size.ok_or_else(|| self.corrupt("an extended header has no number for a size"))?);
                }
                key => extension.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }

    /// The present member's bytes. Grows with what is there, whatever the header declares.
    fn read(&mut self) -> Result<Vec<u8>, SourceError> {
        let mut bytes = Vec::new();
        let wanted = self.left;
        let read = self.stream.by_ref().take(wanted).read_to_end(&mut bytes).map_err(|e| self.read_failed(e))?;
        if (read as u64) < wanted {
            return Err(self.corrupt("it ends within a member; it was cut short"));
        }
        self.left = 0;
        Ok(bytes)
    }

    /// Passes over what is left of the present member.
    fn skip(&mut self) -> Result<(), SourceError> {
        let wanted = self.left + self.padding;
        if wanted == 0 {
            return Ok(());
        }
        let skipped = io::copy(&mut self.stream.by_ref().take(wanted), &mut io::sink()).map_err(|e| self.read_failed(e))?;
        if skipped < wanted {
            return Err(self.corrupt("it ends within a member; it was cut short"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_webdataset_library() {
        // Expected values by webdataset.tariterators.base_plus_ext; see tests/data/make_webdataset.py.
        let expected: Vec<(String, Option<(String, String)>)> =
            serde_json::from_str(include_str!("../../tests/data/webdataset/keys.json")).unwrap();
        assert!(expected.len() > 10);
        for (name, parts) in expected {
            let found = split(&name).map(|(key, kind)| (key.to_owned(), kind));
            // The library takes the folder for a hidden file's key; that would make a sample of nothing.
            let hidden = name.contains("/.");
            assert_eq!(found, parts.filter(|_| !hidden), "{name:?}");
        }
    }
}
