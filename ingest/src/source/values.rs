//! Arrow arrays to plain values, row by row. Types were checked by [`super::columns`]; what does not fit after all is null.

use anchorite_index::Value;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, FixedSizeListArray, GenericListArray, LargeBinaryArray, LargeStringArray,
    OffsetSizeTrait, StringArray, StringViewArray, StructArray, cast::AsArray, temporal_conversions as time, types,
};
use arrow_schema::{DataType, TimeUnit};
use half::f16;

/// A column of strings, whatever its layout.
pub(crate) enum TextColumn<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
    Dictionary { keys: Vec<usize>, array: &'a dyn Array, values: Box<TextColumn<'a>> },
    Null,
}

impl<'a> TextColumn<'a> {
    pub(crate) fn new(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::Utf8 => Self::Small(array.as_string()),
            DataType::LargeUtf8 => Self::Large(array.as_string()),
            DataType::Utf8View => Self::View(array.as_string_view()),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                if dictionary.values().is_empty() {
                    return Self::Null;
                }
                let values = Box::new(Self::new(dictionary.values().as_ref()));
                Self::Dictionary { keys: dictionary.normalized_keys(), array, values }
            }
            _ => Self::Null,
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Small(a) => a.is_valid(row).then(|| a.value(row)),
            Self::Large(a) => a.is_valid(row).then(|| a.value(row)),
            Self::View(a) => a.is_valid(row).then(|| a.value(row)),
            Self::Dictionary { keys, array, values } => array.is_valid(row).then(|| values.get(keys[row])).flatten(),
            Self::Null => None,
        }
    }
}

/// A column of byte strings, whatever its layout.
pub(crate) enum BinaryColumn<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
    Null,
}

impl<'a> BinaryColumn<'a> {
    pub(crate) fn new(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::Binary => Self::Small(array.as_binary()),
            DataType::LargeBinary => Self::Large(array.as_binary()),
            DataType::BinaryView => Self::View(array.as_binary_view()),
            _ => Self::Null,
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Small(a) => a.is_valid(row).then(|| a.value(row)),
            Self::Large(a) => a.is_valid(row).then(|| a.value(row)),
            Self::View(a) => a.is_valid(row).then(|| a.value(row)),
            Self::Null => None,
        }
    }
}

/// A picture as a table has it.
pub(crate) enum PictureRef<'a> {
    Bytes(&'a [u8]),
    Path(&'a str),
}

/// A column of pictures: bytes, paths, or a struct of both in which the bytes win.
pub(crate) struct PictureColumn<'a> {
    whole: &'a dyn Array,
    bytes: BinaryColumn<'a>,
    path: TextColumn<'a>,
}

impl<'a> PictureColumn<'a> {
    pub(crate) fn new(whole: &'a dyn Array) -> Self {
        let child = |a: &'a StructArray, name| a.column_by_name(name).map(AsRef::as_ref);
        let (bytes, path) = match whole.data_type() {
            DataType::Struct(_) => (child(whole.as_struct(), "bytes"), child(whole.as_struct(), "path")),
            _ => (Some(whole), Some(whole)),
        };
        Self {
            whole,
            bytes: bytes.map_or(BinaryColumn::Null, BinaryColumn::new),
            path: path.map_or(TextColumn::Null, TextColumn::new),
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<PictureRef<'a>> {
        if self.whole.is_null(row) {
            return None;
        }
        let bytes = self.bytes.get(row).map(PictureRef::Bytes);
        bytes.or_else(|| self.path.get(row).filter(|p| !p.is_empty()).map(PictureRef::Path))
    }
}

/// A column of captions: strings, or lists of strings of which the first that is not blank counts.
pub(crate) enum CaptionColumn<'a> {
    One(TextColumn<'a>),
    Small(&'a GenericListArray<i32>, TextColumn<'a>),
    Large(&'a GenericListArray<i64>, TextColumn<'a>),
}

impl<'a> CaptionColumn<'a> {
    pub(crate) fn new(array: &'a dyn Array) -> Self {
        match array.data_type() {
            DataType::List(_) => Self::Small(array.as_list(), TextColumn::new(array.as_list::<i32>().values())),
            DataType::LargeList(_) => Self::Large(array.as_list(), TextColumn::new(array.as_list::<i64>().values())),
            _ => Self::One(TextColumn::new(array)),
        }
    }

    /// The caption, unless it is null or blank.
    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        let not_blank = |text: &&str| !text.trim().is_empty();
        match self {
            Self::One(column) => column.get(row).filter(not_blank),
            Self::Small(list, items) => range(*list, row).and_then(|mut r| r.find_map(|i| items.get(i).filter(not_blank))),
            Self::Large(list, items) => range(*list, row).and_then(|mut r| r.find_map(|i| items.get(i).filter(not_blank))),
        }
    }
}

/// Positions of a row's items among the list's values.
fn range<O: OffsetSizeTrait>(list: &GenericListArray<O>, row: usize) -> Option<std::ops::Range<usize>> {
    let offsets = list.value_offsets();
    list.is_valid(row).then(|| offsets[row].as_usize()..offsets[row + 1].as_usize())
}

/// A column of vectors.
pub(crate) struct VectorColumn<'a> {
    lists: Lists<'a>,
    items: &'a ArrayRef,
}

enum Lists<'a> {
    Fixed(&'a FixedSizeListArray),
    Small(&'a GenericListArray<i32>),
    Large(&'a GenericListArray<i64>),
}

impl<'a> VectorColumn<'a> {
    pub(crate) fn new(array: &'a dyn Array) -> Option<Self> {
        let (lists, items) = match array.data_type() {
            DataType::FixedSizeList(..) => (Lists::Fixed(array.as_fixed_size_list()), array.as_fixed_size_list().values()),
            DataType::List(_) => (Lists::Small(array.as_list()), array.as_list::<i32>().values()),
            DataType::LargeList(_) => (Lists::Large(array.as_list()), array.as_list::<i64>().values()),
            _ => return None,
        };
        Some(Self { lists, items })
    }

    /// The values of a row; none when the row, or one of its values, is null.
    pub(crate) fn get(&self, row: usize) -> Option<Vec<f32>> {
        let range = match self.lists {
            Lists::Fixed(list) => list.is_valid(row).then(|| {
                let (start, width) = (list.value_offset_at(row), list.value_length() as usize);
                start..start + width
            }),
            Lists::Small(list) => range(list, row),
            Lists::Large(list) => range(list, row),
        }?;
        if self.items.null_count() > 0 && range.clone().any(|i| self.items.is_null(i)) {
            return None;
        }
        Some(match self.items.data_type() {
            DataType::Float16 => {
                self.items.as_primitive::<types::Float16Type>().values()[range].iter().map(|v: &f16| v.to_f32()).collect()
            }
            DataType::Float32 => self.items.as_primitive::<types::Float32Type>().values()[range].to_vec(),
            DataType::Float64 => {
                self.items.as_primitive::<types::Float64Type>().values()[range].iter().map(|v| *v as f32).collect()
            }
            _ => return None,
        })
    }
}

/// A metadata column.
pub(crate) enum FieldColumn<'a> {
    Text(TextColumn<'a>),
    Scalar(&'a dyn Array),
}

impl<'a> FieldColumn<'a> {
    pub(crate) fn new(array: &'a dyn Array) -> Self {
        if super::columns::is_text(array.data_type()) { Self::Text(TextColumn::new(array)) } else { Self::Scalar(array) }
    }

    /// The value; none for null, NaN and infinity.
    pub(crate) fn get(&self, row: usize) -> Option<Value> {
        match self {
            Self::Text(column) => column.get(row).map(|text| Value::Text(text.to_owned())),
            Self::Scalar(array) => scalar(*array, row),
        }
    }
}

fn scalar(array: &dyn Array, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    macro_rules! at {
        ($kind:ident) => {
            array.as_primitive::<types::$kind>().value(row)
        };
    }
    let float = |v: f64| v.is_finite().then_some(Value::Float(v));
    Some(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => Value::Int(at!(Int8Type).into()),
        DataType::Int16 => Value::Int(at!(Int16Type).into()),
        DataType::Int32 => Value::Int(at!(Int32Type).into()),
        DataType::Int64 => Value::Int(at!(Int64Type)),
        DataType::UInt8 => Value::Int(at!(UInt8Type).into()),
        DataType::UInt16 => Value::Int(at!(UInt16Type).into()),
        DataType::UInt32 => Value::Int(at!(UInt32Type).into()),
        // Above i64 it stays exact as text.
        DataType::UInt64 => i64::try_from(at!(UInt64Type)).map_or_else(|_| Value::Text(at!(UInt64Type).to_string()), Value::Int),
        DataType::Float16 => return float(at!(Float16Type).to_f64()),
        DataType::Float32 => return float(at!(Float32Type).into()),
        DataType::Float64 => return float(at!(Float64Type)),
        DataType::Decimal128(..) => Value::Text(array.as_primitive::<types::Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => Value::Text(array.as_primitive::<types::Decimal256Type>().value_as_string(row)),
        _ => return moment(array, row),
    })
}

/// Dates and times in ISO 8601; `Z` where the column has a time zone, since its values are UTC then.
fn moment(array: &dyn Array, row: usize) -> Option<Value> {
    let text = match array.data_type() {
        DataType::Date32 => time::date32_to_datetime(array.as_primitive::<types::Date32Type>().value(row))?.date().to_string(),
        DataType::Date64 => format!("{:?}", time::date64_to_datetime(array.as_primitive::<types::Date64Type>().value(row))?),
        DataType::Timestamp(unit, zone) => {
            let at = match unit {
                TimeUnit::Second => time::timestamp_s_to_datetime(array.as_primitive::<types::TimestampSecondType>().value(row)),
                TimeUnit::Millisecond => {
                    time::timestamp_ms_to_datetime(array.as_primitive::<types::TimestampMillisecondType>().value(row))
                }
                TimeUnit::Microsecond => {
                    time::timestamp_us_to_datetime(array.as_primitive::<types::TimestampMicrosecondType>().value(row))
                }
                TimeUnit::Nanosecond => {
                    time::timestamp_ns_to_datetime(array.as_primitive::<types::TimestampNanosecondType>().value(row))
                }
            };
            format!("{:?}{}", at?, if zone.is_some() { "Z" } else { "" })
        }
        _ => return None,
    };
    Some(Value::Text(text))
}
