//! Little-endian fields out of and into byte slices, with every length checked against what is there.

use crate::StoreError;

/// What is wrong and where, before it is known in which file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {reason}")]
pub struct Damage {
    /// Byte offset from the start of the file.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    /// Damage at `offset`.
    pub fn new(offset: u64, reason: impl Into<String>) -> Self {
        Self { offset, reason: reason.into() }
    }

    /// The error a caller sees.
    #[must_use]
    pub fn of(self, file: &str) -> StoreError {
        StoreError::Corrupt { file: file.to_owned(), offset: self.offset, reason: self.reason }
    }
}

/// Reads fields one after another; never past the end.
#[derive(Clone, Debug)]
pub struct FieldReader<'a> {
    bytes: &'a [u8],
    at: usize,
    base: u64,
}

impl<'a> FieldReader<'a> {
    /// Reads `bytes`, which begin at `base` in their file.
    #[must_use]
    pub fn new(bytes: &'a [u8], base: u64) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Offset in the file of the next field.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.base.saturating_add(self.at as u64)
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Damage at the present field.
    pub fn damage(&self, reason: impl Into<String>) -> Damage {
        Damage::new(self.offset(), reason)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| self.damage(format!("{len} bytes expected, {} left", self.left())))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// Nothing left.
    pub fn u8(&mut self) -> Result<u8, Damage> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    ///
    /// # Errors
    /// Fewer left.
    pub fn u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// Fewer left.
    pub fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// Fewer left.
    pub fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes of a length known from a field before, at most `max`.
    ///
    /// # Errors
    /// Longer than `max` or than what is left.
    pub fn bounded(&mut self, len: u64, max: usize, what: &str) -> Result<&'a [u8], Damage> {
        match usize::try_from(len) {
            Ok(len) if len <= max => self.take(len),
            _ => Err(self.damage(format!("{what} of {len} bytes; at most {max} are allowed"))),
        }
    }

    /// UTF-8 text of a length known from a field before, at most `max` bytes.
    ///
    /// # Errors
    /// As [`FieldReader::bounded`], or not UTF-8.
    pub fn text(&mut self, len: u64, max: usize, what: &str) -> Result<&'a str, Damage> {
        let start = self.offset();
        let bytes = self.bounded(len, max, what)?;
        std::str::from_utf8(bytes).map_err(|_| Damage::new(start, format!("{what} is not UTF-8")))
    }
}

/// Appends fields to a buffer.
pub trait PutFields {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
}

impl PutFields for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
}
