//! A look at a library file before the system's loader sees it. The loader maps the file as its headers say: one that was
//! cut short in a download ends the process with SIGBUS instead of an error, so its extent is checked here first.
//!
//! Only ELF files are looked into; elsewhere the system's loader has the only word.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::Refusal;

/// Program headers of a real library number about ten.
const MAX_HEADERS: u16 = 1024;
const LOADABLE: u32 = 1;

/// Refuses what is no library file for this machine or has been cut short.
pub(crate) fn check(path: &Path) -> Result<(), Refusal> {
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refusal::Missing),
        Err(error) => return Err(Refusal::Unreadable { reason: error.to_string() }),
    };
    if meta.is_dir() {
        return Err(Refusal::Folder);
    }
    if !meta.is_file() {
        return Err(Refusal::NotALibrary { reason: "it is not a regular file".to_owned() });
    }
    if !cfg!(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")) {
        return Ok(());
    }
    let mut file = File::open(path).map_err(|error| Refusal::Unreadable { reason: error.to_string() })?;
    check_elf(&mut file, meta.len())
}

fn check_elf(file: &mut (impl Read + Seek), length: u64) -> Result<(), Refusal> {
    let not = |reason: &str| Refusal::NotALibrary { reason: reason.to_owned() };
    let mut head = [0_u8; 64];
    file.read_exact(&mut head).map_err(|_| not("it is too short"))?;
    if !head.starts_with(b"\x7fELF") {
        return Err(not("it does not begin like an ELF file"));
    }
    if head[4] != 2 || head[5] != 1 {
        return Err(not("it is not a 64-bit little-endian ELF file"));
    }
    if u16_at(&head, 16) != Some(3) {
        return Err(not("it is an ELF file but not a shared library"));
    }
    check_machine(u16_at(&head, 18).unwrap_or_default())?;
    let table = u64_at(&head, 32).unwrap_or_default();
    let (size, count) = (u16_at(&head, 54).unwrap_or_default(), u16_at(&head, 56).unwrap_or_default());
    if size != 56 || count == 0 || count > MAX_HEADERS {
        return Err(not("its program headers make no sense"));
    }
    let needed = extent(file, table, count).ok_or(Refusal::CutShort { bytes: length })?;
    if needed > length { Err(Refusal::CutShort { bytes: length }) } else { Ok(()) }
}

/// How long the file must be for all that is loaded from it; `None` if the headers themselves are not all there.
fn extent(file: &mut (impl Read + Seek), table: u64, count: u16) -> Option<u64> {
    file.seek(SeekFrom::Start(table)).ok()?;
    let mut needed = 0_u64;
    let mut header = [0_u8; 56];
    for _ in 0..count {
        file.read_exact(&mut header).ok()?;
        if u32_at(&header, 0)? == LOADABLE {
            needed = needed.max(u64_at(&header, 8)?.checked_add(u64_at(&header, 32)?)?);
        }
    }
    Some(needed)
}

fn check_machine(machine: u16) -> Result<(), Refusal> {
    let (ours, name) = match std::env::consts::ARCH {
        "x86_64" => (62, "x86_64"),
        "aarch64" => (183, "aarch64"),
        _ => return Ok(()),
    };
    if machine == ours {
        return Ok(());
    }
    let theirs = match machine {
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        3 => "32-bit x86".to_owned(),
        40 => "32-bit ARM".to_owned(),
        243 => "RISC-V".to_owned(),
        other => format!("machine type {other}"),
    };
    Err(Refusal::OtherMachine { theirs, ours: name })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::{Refusal, check_elf};

    /// A library of one loadable segment that ends at `end`.
    fn library(end: u64) -> Vec<u8> {
        let mut bytes = vec![0_u8; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&3_u16.to_le_bytes());
        let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&1_u32.to_le_bytes());
        bytes[96..104].copy_from_slice(&end.to_le_bytes());
        bytes
    }

    fn check(bytes: &[u8]) -> Result<(), Refusal> {
        check_elf(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn a_segment_may_end_where_the_file_ends_and_not_beyond() {
        assert_eq!(check(&library(120)), Ok(()));
        assert_eq!(check(&library(121)), Err(Refusal::CutShort { bytes: 120 }));
        assert_eq!(check(&library(u64::MAX)), Err(Refusal::CutShort { bytes: 120 }));
    }

    proptest! {
        #[test]
        fn no_damage_to_the_headers_is_more_than_a_refusal(at in 0_usize..120, value: u8, cut in 0_usize..=120, end: u64) {
            let mut bytes = library(end);
            bytes[at] = value;
            let _ = check(&bytes[..cut]);
        }
    }
}
