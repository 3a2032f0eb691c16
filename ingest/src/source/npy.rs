//! NumPy's `.npy` files: a two-dimensional array of f16 or f32 in C order, read a few rows at a time.
//!
//! The header is text written by Python (`{'descr': '<f2', 'fortran_order': False, 'shape': (3, 512), }`); only this form is
//! understood, and its numbers are checked against the file's length before anything is allocated by them.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use half::f16;

use super::{Settings, parquet::limit};
use crate::SourceError;

/// How one value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    F16,
    F32,
}

impl Scalar {
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// What the header says, understood but not yet held against the file.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    scalar: Scalar,
    rows: u64,
    dim: usize,
}

/// A checked npy file, read from its first row to its last.
#[derive(Debug)]
pub(crate) struct NpyRows {
    name: String,
    file: BufReader<File>,
    header: Header,
    left: u64,
}

impl NpyRows {
    pub(crate) fn open(path: &Path, name: &str, settings: &Settings) -> Result<Self, SourceError> {
        let file = settings.reach.open(path).map_err(|source| SourceError::Open { path: path.to_owned(), source })?;
        let length = file.metadata().map_err(|source| SourceError::Read { file: name.to_owned(), source })?.len();
        let mut file = BufReader::new(file);
        let (text, data_at) = header_text(&mut file, settings.limits.max_npy_header_bytes).map_err(|r| corrupt(name, r))?;
        let header = parse(&text).map_err(|reason| corrupt(name, reason))?;
        limit(name, "the vectors' dimension", header.dim as u64, settings.limits.max_dim as u64)?;
        let data = (header.dim as u64 * header.scalar.bytes() as u64).checked_mul(header.rows);
        if data.and_then(|d| d.checked_add(data_at)) != Some(length) {
            let reason = format!("{} rows of {} values do not make a file of {length} bytes", header.rows, header.dim);
            return Err(corrupt(name, reason));
        }
        Ok(Self { name: name.to_owned(), file, left: header.rows, header })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.header.rows
    }

    pub(crate) fn dim(&self) -> usize {
        self.header.dim
    }

    /// The next `count` rows, or what is left of them, one value after another.
    pub(crate) fn read(&mut self, count: usize) -> Result<Vec<Vec<f32>>, SourceError> {
        let count = usize::try_from(self.left).map_or(count, |left| left.min(count));
        let mut bytes = vec![0; self.header.dim * self.header.scalar.bytes()];
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            self.file.read_exact(&mut bytes).map_err(|source| SourceError::Read { file: self.name.clone(), source })?;
            rows.push(match self.header.scalar {
                Scalar::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                Scalar::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            });
        }
        self.left -= count as u64;
        Ok(rows)
    }
}

fn corrupt(name: &str, reason: impl Into<String>) -> SourceError {
    SourceError::Corrupt { file: name.to_owned(), reason: reason.into() }
}

/// The header's text, and where the data begins.
fn header_text(file: &mut impl Read, max: usize) -> Result<(String, u64), String> {
    let mut read = |n: usize| {
        let mut bytes = vec![0; n];
        file.read_exact(&mut bytes).map(|()| bytes).map_err(|_| "the file ends within its header".to_owned())
    };
    let start = read(8)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err("it does not begin like an npy file".to_owned());
    }
    let (length, before) = match start[6] {
        1 => (read(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)), 10),
        2 | 3 => (read(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)), 12),
        other => return Err(format!("npy version {other} is not known")),
    };
    if length > max {
        return Err(format!("its header claims {length} bytes; at most {max} are allowed"));
    }
    let text = String::from_utf8(read(length)?).map_err(|_| "its header is no text".to_owned())?;
    Ok((text, (before + length) as u64))
}

fn parse(text: &str) -> Result<Header, String> {
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or("its header is no Python dictionary")?;
    let descr = entry(inner, "descr")?.split(['\'', '"']).nth(1).unwrap_or_default();
    let scalar = match descr {
        "<f2" => Scalar::F16,
        "<f4" => Scalar::F32,
        other => return Err(format!("its values are {other:?}; little-endian float16 (<f2) and float32 (<f4) are read")),
    };
    if !entry(inner, "fortran_order")?.starts_with("False") {
        return Err("it is stored in Fortran order; save it with numpy.ascontiguousarray".to_owned());
    }
    let shape = entry(inner, "shape")?.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or("its shape is no tuple")?.0;
    let sizes: Vec<&str> = shape.split(',').map(str::trim).filter(|s| !s.is_empty()).collect();
    let [rows, dim] = sizes[..] else { return Err(format!("its shape is ({shape}); two dimensions are needed")) };
    let (rows, dim) = rows.parse().ok().zip(dim.parse().ok()).ok_or_else(|| format!("its shape is ({shape})"))?;
    if dim == 0 { Err("its vectors have no values".to_owned()) } else { Ok(Header { scalar, rows, dim }) }
}

/// What follows `'name':` in the dictionary.
fn entry<'a>(dictionary: &'a str, name: &str) -> Result<&'a str, String> {
    let quoted = [format!("'{name}':"), format!("\"{name}\":")];
    let found = quoted.iter().find_map(|q| dictionary.split_once(q.as_str()));
    found.map(|(_, rest)| rest.trim_start()).ok_or_else(|| format!("its header has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpys_own_headers_are_understood() {
        let header = parse("{'descr': '<f2', 'fortran_order': False, 'shape': (3, 512), }      \n").unwrap();
        assert_eq!(header, Header { scalar: Scalar::F16, rows: 3, dim: 512 });
        let header = parse("{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (0,2)}").unwrap();
        assert_eq!(header, Header { scalar: Scalar::F32, rows: 0, dim: 2 });
    }

    #[test]
    fn other_headers_are_named_errors() {
        let cases = [
            ("", "dictionary"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 5), }", "<f8"),
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 5), }", ">f4"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (3, 5), }", "|O"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 5), }", "\"a\""),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 5), }", "Fortran"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "two dimensions"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 5), }", "(-3, 5)"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 5), }", "99999999999999999999"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0), }", "no values"),
            ("{'descr': '<f4', 'shape': (3, 5), }", "fortran_order"),
        ];
        for (text, word) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_header_longer_than_allowed_is_refused_before_it_is_read() {
        let mut start = b"\x93NUMPY\x02\x00".to_vec();
        start.extend(u32::MAX.to_le_bytes());
        assert!(header_text(&mut &start[..], 100).unwrap_err().contains("claims"));
        assert!(header_text(&mut &b"\x93NUMPY\x01\x00\x10\x00{"[..], 100).unwrap_err().contains("ends within"));
    }
}
