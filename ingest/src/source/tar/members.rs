//! The members of an archive, one after another: headers checked and bounded, nothing allocated as they declare it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use tar::{EntryType, Header, PaxExtensions};

use crate::{
    Limits, SourceError,
    source::{Reach, parquet::limit},
};

/// Bytes of a header; members are padded to it.
const BLOCK: u64 = 512;
/// Bytes after the end mark that are read to reach gzip's checksum. 1 MiB: a hundred times what tar pads to.
const MAX_END_PADDING: u64 = 1 << 20;
/// What a gzip file begins with.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A member's header.
pub(super) struct Head {
    pub(super) name: Vec<u8>,
    pub(super) is_file: bool,
    pub(super) bytes: u64,
}

/// The members of an archive, one after another.
pub(super) struct Members {
    name: String,
    stream: Stream,
    pub(super) file_bytes: u64,
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
    pub(super) fn open(path: &Path, name: &str, limits: &Limits, reach: &Reach) -> Result<Self, SourceError> {
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
    pub(super) fn file_bytes_read(&self) -> u64 {
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
    pub(super) fn next(&mut self) -> Result<Option<Head>, SourceError> {
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
        limit(&self.name, "the size of a member in bytes", bytes, self.max_member_bytes)?;
        self.left = bytes;
        self.padding = (BLOCK - bytes % BLOCK) % BLOCK;
        Ok(())
    }

    /// A member that belongs to the header after it.
    fn text(&mut self, bytes: u64) -> Result<Vec<u8>, SourceError> {
        limit(&self.name, "the length of a member's name in bytes", bytes, self.max_extension_bytes)?;
        self.begin(bytes)?;
        let mut text = self.read()?;
        text.truncate(text.iter().position(|b| *b == 0).unwrap_or(text.len()));
        Ok(text)
    }

    fn pax(&mut self, bytes: u64, extension: &mut Extension) -> Result<(), SourceError> {
        limit(&self.name, "the length of a member's header in bytes", bytes, self.max_extension_bytes)?;
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
    pub(super) fn read(&mut self) -> Result<Vec<u8>, SourceError> {
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
    pub(super) fn skip(&mut self) -> Result<(), SourceError> {
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
