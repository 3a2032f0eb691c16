//! A page's header in thrift's compact protocol: what it declares of the page, before anything is allocated by it.
//!
//! ```text
//!   bytes at the page's start ──fields──► PageHeader { sizes, values, encoding, where the packed part begins }
//! ```
//!
//! The parquet crate reads the same bytes after us, so a known field of another type is refused rather than passed over: what we take
//! for a size must be what it takes for a size.

/// What a page declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Bytes of the header itself.
    pub(super) length: usize,
    pub(super) kind: i32,
    /// Bytes after unpacking.
    pub(super) unpacked: i32,
    /// Bytes in the file.
    pub(super) packed: i32,
    /// Values, nulls among them; of a dictionary its entries.
    pub(super) values: i32,
    pub(super) encoding: i32,
    /// Bytes before the packed part (levels of a page of version 2).
    pub(super) levels: i32,
    /// Whether a codec applies to it.
    pub(super) is_packed: bool,
}

/// `PageType::DICTIONARY_PAGE`.
pub(super) const DICTIONARY: i32 = 2;
/// `Encoding::DELTA_BYTE_ARRAY`.
pub(super) const DELTA_BYTE_ARRAY: i32 = 7;

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// The bytes end before the header does.
    Short,
    /// They are none.
    Broken(&'static str),
}

/// Levels of structs in structs; parquet's own has three.
const MAX_DEPTH: usize = 8;

const I32: u8 = 5;
const STRUCT: u8 = 12;

impl PageHeader {
    /// Reads the header at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut input = Compact { bytes, at: 0 };
        let mut found = Self { is_packed: true, ..Self::default() };
        let mut required = [false; 3];
        input.fields(|input, id, kind| {
            match id {
                1..=3 => {
                    let value = input.i32(kind)?;
                    *[&mut found.kind, &mut found.unpacked, &mut found.packed][usize::from(id.unsigned_abs()) - 1] = value;
                    required[usize::from(id.unsigned_abs()) - 1] = true;
                }
                4 => drop(input.i32(kind)?),
                5 | 7 => found.read_values(input, kind, 2)?,
                8 => found.read_second(input, kind)?,
                _ => input.skip(kind, 0)?,
            }
            Ok(())
        })?;
        if required != [true; 3] {
            return Err(HeaderError::Broken("a page header has no type or no sizes"));
        }
        found.length = input.at;
        Ok(found)
    }

    /// A data page's header of version 1 or a dictionary's: the count, and the encoding in field `encoding`.
    fn read_values(&mut self, input: &mut Compact<'_>, kind: u8, encoding: i16) -> Result<(), HeaderError> {
        expect(kind, STRUCT)?;
        input.fields(|input, id, kind| {
            match id {
                1 => self.values = input.i32(kind)?,
                _ if id == encoding => self.encoding = input.i32(kind)?,
                _ => input.skip(kind, 0)?,
            }
            Ok(())
        })
    }

    /// A data page's header of version 2.
    fn read_second(&mut self, input: &mut Compact<'_>, kind: u8) -> Result<(), HeaderError> {
        expect(kind, STRUCT)?;
        let mut levels = [0; 2];
        input.fields(|input, id, kind| {
            match id {
                1 => self.values = input.i32(kind)?,
                4 => self.encoding = input.i32(kind)?,
                5 => levels[0] = input.i32(kind)?,
                6 => levels[1] = input.i32(kind)?,
                // In this protocol a bool is its field's type: 1 is true, 2 is false.
                7 if kind == 1 || kind == 2 => self.is_packed = kind == 1,
                7 => return Err(HeaderError::Broken("a page header has a field of another type")),
                _ => input.skip(kind, 0)?,
            }
            Ok(())
        })?;
        let sum = levels[0].checked_add(levels[1]).filter(|_| levels.iter().all(|&l| l >= 0));
        self.levels = sum.ok_or(HeaderError::Broken("a page header has impossible sizes of levels"))?;
        Ok(())
    }
}

fn expect(kind: u8, wanted: u8) -> Result<(), HeaderError> {
    if kind == wanted { Ok(()) } else { Err(HeaderError::Broken("a page header has a field of another type")) }
}

/// Thrift's compact protocol over bytes.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Compact<'_> {
    fn byte(&mut self) -> Result<u8, HeaderError> {
        let byte = *self.bytes.get(self.at).ok_or(HeaderError::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, HeaderError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(HeaderError::Broken("a page header has a number without an end"))
    }

    fn zigzag(&mut self) -> Result<i64, HeaderError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn i32(&mut self, kind: u8) -> Result<i32, HeaderError> {
        expect(kind, I32)?;
        i32::try_from(self.zigzag()?).map_err(|_| HeaderError::Broken("a page header has a number beyond 32 bits"))
    }

    /// Calls `each` with every field's number and type until the struct ends; it reads the field's value.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, i16, u8) -> Result<(), HeaderError>) -> Result<(), HeaderError> {
        let mut id = 0_i16;
        loop {
            let byte = self.byte()?;
            let (delta, kind) = (byte >> 4, byte & 0x0f);
            if kind == 0 {
                return Ok(());
            }
            id = if delta == 0 { self.zigzag()? as i16 } else { id.wrapping_add(i16::from(delta)) };
            each(self, id, kind)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), HeaderError> {
        if depth > MAX_DEPTH {
            return Err(HeaderError::Broken("a page header has structs in structs without an end"));
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            9 | 10 => self.skip_list(depth),
            11 => self.skip_map(depth),
            STRUCT => self.fields(|input, _, kind| input.skip(kind, depth + 1)),
            _ => Err(HeaderError::Broken("a page header has a field of no known type")),
        }
    }

    fn pass(&mut self, bytes: u64) -> Result<(), HeaderError> {
        let end = usize::try_from(bytes).ok().and_then(|bytes| self.at.checked_add(bytes));
        match end {
            Some(end) if end <= self.bytes.len() => self.at = end,
            _ => return Err(HeaderError::Short),
        }
        Ok(())
    }

    fn skip_list(&mut self, depth: usize) -> Result<(), HeaderError> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        (0..count).try_for_each(|_| self.skip_item(byte & 0x0f, depth))
    }

    fn skip_map(&mut self, depth: usize) -> Result<(), HeaderError> {
        let count = self.varint()?;
        if count == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        (0..count).try_for_each(|_| {
            self.skip_item(kinds >> 4, depth)?;
            self.skip_item(kinds & 0x0f, depth)
        })
    }

    /// An item of a list or map: unlike a field, a bool takes a byte there.
    fn skip_item(&mut self, kind: u8, depth: usize) -> Result<(), HeaderError> {
        if kind == 1 || kind == 2 { self.byte().map(drop) } else { self.skip(kind, depth + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of pyarrow's shape: type 0, 2,000 bytes unpacked, 1,000 packed, 300 values, plain, with statistics of its own struct.
    const GOOD: [u8; 24] = [
        0x15, 0x00, 0x15, 0xa0, 0x1f, 0x15, 0xd0, 0x0f, 0x2c, 0x15, 0xd8, 0x04, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c, 0x36,
        0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn a_header_says_what_its_page_declares() {
        let header = PageHeader::read(&GOOD).expect("a header");
        assert_eq!((header.kind, header.unpacked, header.packed, header.values), (0, 2_000, 1_000, 300));
        assert_eq!(header.length, GOOD.len());
    }

    #[test]
    fn cut_anywhere_it_asks_for_more() {
        for length in 0..GOOD.len() {
            assert_eq!(PageHeader::read(&GOOD[..length]), Err(HeaderError::Short), "{length}");
        }
    }

    #[test]
    fn a_size_of_another_type_is_refused() {
        let mut bytes = GOOD;
        bytes[2] = 0x16;
        assert!(matches!(PageHeader::read(&bytes), Err(HeaderError::Broken(_))));
        assert!(matches!(PageHeader::read(&[0x1c; 40]), Err(HeaderError::Broken(_))));
        assert!(matches!(PageHeader::read(&[0]), Err(HeaderError::Broken(_))));
    }
}
