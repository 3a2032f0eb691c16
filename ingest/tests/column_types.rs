//! Every layout in which writers keep pictures, captions and metadata.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use anchorite_index::Value;
use anchorite_ingest::{ColumnOptions, IngestOptions};
use arrow_array::{
    ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float16Array, Float64Array,
    Int32Array, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, StructArray, TimestampMillisecondArray,
    UInt64Array,
    builder::{FixedSizeListBuilder, Float16Builder, Float64Builder, LargeListBuilder, StringBuilder},
    types::Int32Type,
};
use arrow_schema::{DataType, Field};
use half::f16;
use support::{binary, jpeg, named, run, run_ready, text, write};

#[test]
fn pictures_and_captions_in_any_layout() {
    let (one, two) = (jpeg(1), jpeg(2));
    let bytes = || vec![Some(&one[..]), Some(&two[..])];
    let structure: ArrayRef = Arc::new(StructArray::from(vec![
        (Arc::new(Field::new("bytes", DataType::LargeBinary, true)), Arc::new(LargeBinaryArray::from(bytes())) as ArrayRef),
        (
            Arc::new(Field::new("path", DataType::LargeUtf8, true)),
            Arc::new(LargeStringArray::from(vec![None, Some("x.jpg")])) as _,
        ),
    ]));
    let pictures: [ArrayRef; 4] = [
        binary([Some(one.clone()), Some(two.clone())]),
        Arc::new(LargeBinaryArray::from(bytes())),
        Arc::new(BinaryViewArray::from(bytes())),
        structure,
    ];
    let mut list = LargeListBuilder::new(StringBuilder::new());
    list.append_value([None, Some("red apple")]);
    list.append_value([Some("blue pear"), Some("unused")]);
    let dictionary: DictionaryArray<Int32Type> = vec!["red apple", "blue pear"].into_iter().collect();
    let captions: [ArrayRef; 5] = [
        text([Some("red apple"), Some("blue pear")]),
        Arc::new(LargeStringArray::from(vec!["red apple", "blue pear"])),
        Arc::new(StringViewArray::from(vec!["red apple", "blue pear"])),
        Arc::new(dictionary),
        Arc::new(list.finish()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    for picture in &pictures {
        for caption in &captions {
            write(&file, vec![("image", picture.clone()), ("caption", caption.clone())]);
            let records = run(&file, &IngestOptions::default()).records();
            let found: Vec<_> = records.iter().map(|r| (r.picture.as_deref(), r.caption.as_deref())).collect();
            let layout = (picture.data_type(), caption.data_type());
            assert_eq!(found, [(Some(&one[..]), Some("red apple")), (Some(&two[..]), Some("blue pear"))], "{layout:?}");
        }
    }
}

#[test]
fn scalar_columns_become_metadata_and_others_are_named_as_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    let dictionary: DictionaryArray<Int32Type> = vec![Some("cat"), None].into_iter().collect();
    let mut nested = LargeListBuilder::new(StringBuilder::new());
    nested.append_value([Some("a")]);
    nested.append_value([Some("b")]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("image", binary([Some(jpeg(0)), Some(jpeg(1))])),
        ("caption", text([Some("x"), Some("y")])),
        ("small", Arc::new(Int32Array::from(vec![Some(-7), None]))),
        ("big", Arc::new(UInt64Array::from(vec![u64::MAX, 5]))),
        ("half", Arc::new(Float16Array::from(vec![f16::from_f32(0.5), f16::NAN]))),
        ("double", Arc::new(Float64Array::from(vec![1.5, f64::INFINITY]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ("class", Arc::new(dictionary)),
        ("long", Arc::new(StringArray::from(vec!["ä".repeat(40_000), String::new()]))),
        ("day", Arc::new(Date32Array::from(vec![19_723, 0]))),
        ("when", Arc::new(TimestampMillisecondArray::from(vec![1_704_067_200_500, 0]).with_timezone("Europe/Berlin"))),
        ("price", Arc::new(Decimal128Array::from(vec![1234, 5]).with_precision_and_scale(10, 2).unwrap())),
        ("tags", Arc::new(nested.finish())),
        ("blob", binary([Some(vec![1]), None])),
    ];
    write(&file, columns);
    let run = run(&file, &IngestOptions::default());
    assert_eq!(run.report().sources[0].columns.skipped, ["tags", "blob"]);
    assert_eq!(run.report().cut_fields, 1);
    let records = run.records();
    let fields = &records[0].fields;
    let of_text = |t: &str| Value::Text(t.to_owned());
    assert_eq!(fields["small"], Value::Int(-7));
    assert_eq!(fields["big"], of_text("18446744073709551615"));
    assert_eq!(fields["half"], Value::Float(0.5));
    assert_eq!(fields["double"], Value::Float(1.5));
    assert_eq!(fields["flag"], Value::Bool(true));
    assert_eq!(fields["class"], of_text("cat"));
    assert_eq!(fields["long"], of_text(&"ä".repeat(32_768)));
    assert_eq!(fields["day"], of_text("2024-01-01"));
    assert_eq!(fields["when"], of_text("2024-01-01T00:00:00.500Z"));
    assert_eq!(fields["price"], of_text("12.34"));
    // Nulls, NaN and infinity are absent.
    let present: Vec<_> = records[1].fields.keys().map(String::as_str).collect();
    assert_eq!(present, ["big", "day", "flag", "long", "price", "when"]);
    assert_eq!(records[1].fields["big"], Value::Int(5));
}

#[test]
fn vectors_of_any_float_type() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.parquet");
    let mut halves = FixedSizeListBuilder::new(Float16Builder::new(), 2);
    halves.values().append_slice(&[f16::from_f32(3.0), f16::from_f32(4.0)]);
    halves.append(true);
    let mut doubles = LargeListBuilder::new(Float64Builder::new());
    doubles.append_value([Some(0.0), Some(-2.0)]);
    write(
        &file,
        vec![("image_embedding", Arc::new(halves.finish())), ("other", Arc::new(doubles.finish())), ("id", text([Some("k1")]))],
    );
    let columns = ColumnOptions { text_vector: named("other"), key: Some("id".to_owned()), ..Default::default() };
    let run = run_ready(&file, 2, &IngestOptions { columns, ..Default::default() });
    let record = &run.records()[0];
    assert_eq!((record.image.as_deref(), record.text.as_deref()), (Some(&[0.6, 0.8][..]), Some(&[0.0, -1.0][..])));
    assert_eq!(record.key.as_str(), "k1");
}
