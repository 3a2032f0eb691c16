//! The protobuf wire format, as little of it as ONNX needs: an iterator over the fields of one message, and the writer's
//! counterpart. Knows nothing of ONNX. Every length is checked against the bytes that are really there; nothing is allocated
//! by a file's word.

/// Why bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("an integer of more than 64 bits")]
    LongVarint,
    /// Field number 0, or above what protobuf allows.
    #[error("field number {0} does not exist in protobuf")]
    FieldNumber(u64),
    /// Groups (obsolete, never in ONNX) and reserved wire types.
    #[error("wire type {0} is not used in ONNX")]
    WireType(u8),
}

/// One field's value, borrowed from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer; negative ones in two's complement.
    Varint(u64),
    /// Eight bytes, little-endian.
    Fixed64([u8; 8]),
    /// Text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes, little-endian.
    Fixed32([u8; 4]),
}

/// One field: its number, its value, and the bytes it was read from (key included), so that it can be copied unchanged.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Its number in the message.
    pub number: u32,
    /// What it holds.
    pub value: Value<'a>,
    /// Key and value as they stand in the message.
    pub raw: &'a [u8],
}

/// The fields of one message, in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of the message `bytes`.
#[must_use]
pub fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { rest: bytes }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = take_field(self.rest);
        match &field {
            Ok(field) => self.rest = self.rest.get(field.raw.len()..).unwrap_or_default(),
            Err(_) => self.rest = &[],
        }
        Some(field)
    }
}

fn take_field(bytes: &[u8]) -> Result<Field<'_>, WireError> {
    let (key, rest) = take_varint(bytes)?;
    let number = key >> 3;
    // Protobuf's own bound: field numbers have 29 bits.
    let number = u32::try_from(number).ok().filter(|n| (1..1 << 29).contains(n)).ok_or(WireError::FieldNumber(number))?;
    let (value, rest) = match key & 7 {
        0 => take_varint(rest).map(|(v, rest)| (Value::Varint(v), rest))?,
        1 => rest.split_first_chunk::<8>().map(|(v, rest)| (Value::Fixed64(*v), rest)).ok_or(WireError::Truncated)?,
        2 => take_bytes(rest)?,
        5 => rest.split_first_chunk::<4>().map(|(v, rest)| (Value::Fixed32(*v), rest)).ok_or(WireError::Truncated)?,
        other => return Err(WireError::WireType(other as u8)),
    };
    let raw = bytes.get(..bytes.len() - rest.len()).ok_or(WireError::Truncated)?;
    Ok(Field { number, value, raw })
}

fn take_bytes(bytes: &[u8]) -> Result<(Value<'_>, &[u8]), WireError> {
    let (len, rest) = take_varint(bytes)?;
    let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
    let (value, rest) = rest.split_at_checked(len).ok_or(WireError::Truncated)?;
    Ok((Value::Bytes(value), rest))
}

/// One varint and what follows it.
///
/// # Errors
/// [`WireError`]: cut short, or of more than 64 bits.
pub fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WireError> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit alone.
        if i == 9 && bits > 1 {
            return Err(WireError::LongVarint);
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, bytes.get(i + 1..).unwrap_or_default()));
        }
    }
    Err(if bytes.len() < 10 { WireError::Truncated } else { WireError::LongVarint })
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the key and length of a length-delimited field; `len` bytes must follow.
pub fn put_header(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, len as u64);
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_header(out, number, value.len());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_as_they_were_written() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(take_varint(&out), Ok((value, &[][..])));
        }
    }

    #[test]
    fn an_integer_of_more_than_64_bits_is_refused() {
        assert_eq!(take_varint(&[0xff; 11]), Err(WireError::LongVarint));
        let mut bytes = vec![0xff; 9];
        bytes.push(0x02);
        assert_eq!(take_varint(&bytes), Err(WireError::LongVarint));
    }

    #[test]
    fn a_length_beyond_the_message_is_refused() {
        for bytes in [&[0x0a, 0x05, b'a'][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &[0x0d, 1, 2]]
        {
            assert_eq!(fields(bytes).next().map(|f| f.map(|f| f.number)), Some(Err(WireError::Truncated)));
        }
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        assert!(matches!(fields(&[0x0b]).next(), Some(Err(WireError::WireType(3)))));
        assert!(matches!(fields(&[0x00, 0x00]).next(), Some(Err(WireError::FieldNumber(0)))));
    }
}
