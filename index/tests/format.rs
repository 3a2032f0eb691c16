//! The format: round trips and golden bytes. A change here is a new format version (`FORMAT.md`).

use std::collections::BTreeMap;

use anchorite_index::{
    ContentHash, Key, Pair, Precision, Side, SourceRef, Spec, StoreError, Value,
    format::{
        effort::{EFFORT_BYTES, EffortTable, Measured, Width},
        header::{FileId, FileKind, HEADER_BYTES, Header, RESIDUE, Section, checksum},
        manifest::{DeadCounts, FileEntry, Manifest, SegmentEntry, file_name, generation_of},
        pairs,
    },
};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn manifest() -> Manifest {
    let id = |kind, side| FileId::new(3, kind, side);
    let file = |kind, side| FileEntry { id: id(kind, side), len: 4096, crc: 0x0102_0304, header_crc: 5 };
    let dead = FileEntry { id: FileId { revision: 2, ..id(FileKind::Dead, None) }, ..file(FileKind::Dead, None) };
    let image = Some(Side::Image);
    Manifest {
        generation: 2,
        next_segment: 4,
        spec: Spec { encoder: "ab".into(), dim: 8 },
        precision: Precision::Half,
        model: "clip".into(),
        progress: vec![0xEE],
        segments: vec![SegmentEntry {
            id: 3,
            rows: 9,
            sides: [9, 0],
            dead: DeadCounts { rows: 1, sides: [1, 0] },
            files: vec![file(FileKind::Pairs, None), file(FileKind::Vectors, image), file(FileKind::Graph, image), dead],
        }],
    }
}

#[test]
fn a_table_of_efforts_has_these_bytes() {
    let width = |ef, recall| Width { ef, recall };
    let image = Measured { queries: 256, widths: [width(16, 0.5), width(64, 0.75), width(0, 1.0)] };
    let table = EffortTable::new([Some(image), None]);
    let bytes = table.encode();
    let measured = "00010000100000000000003f400000000000403f000000000000803f";
    assert_eq!(hex(&bytes), format!("{measured}ffffffff{}", "0".repeat(48)));
    assert_eq!(bytes.len() as u64, EFFORT_BYTES);
    assert_eq!(EffortTable::decode(&bytes, 0).unwrap(), table);
    for cut in 0..bytes.len() {
        assert!(EffortTable::decode(&bytes[..cut], 0).is_err());
    }
    assert!(EffortTable::decode(&[&bytes[..], &[0]].concat(), 0).is_err());
    let mut wide = bytes.clone();
    wide[6] = 0xff;
    assert_eq!(EffortTable::decode(&wide, 1_000).unwrap_err().offset, 1_004);
    let mut beyond = bytes;
    beyond[11] = 0x40;
    assert!(EffortTable::decode(&beyond, 0).unwrap_err().reason.contains("recall"));
}

#[test]
fn a_manifest_has_these_bytes() {
    let file = |kind, side, revision| format!("{kind}000000{side}000000{revision}0000000000000000100000000000000403020105000000");
    let body = [
        "414e4348504f4f4c0300000000000000",
        "02000000000000000400000000000000",
        "0800000002000000616204000000636c697001000000ee",
        "010000000300000000000000090000000000000009000000000000000000000000000000",
        "010000000000000001000000000000000000000000000000",
        "04000000",
        &file("01", "02", "00"),
        &file("03", "00", "00"),
        &file("04", "00", "00"),
        &file("05", "02", "02"),
    ]
    .concat();
    let bytes = manifest().encode();
    assert_eq!(hex(&bytes[..bytes.len() - 4]), body);
    assert_eq!(Manifest::decode(&bytes, 2).unwrap(), manifest());
}

#[test]
fn a_manifest_of_a_7_bit_pool_says_so_and_nothing_else_changes() {
    let half = manifest().encode();
    let seven = Manifest { precision: Precision::SevenBit, ..manifest() };
    let bytes = seven.encode();
    assert_eq!((&bytes[8..16], &half[8..16]), (&[3, 0, 0, 0, 1, 0, 0, 0][..], &[3, 0, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!(bytes[16..bytes.len() - 4], half[16..half.len() - 4]);
    assert_eq!(Manifest::decode(&bytes, 2).unwrap(), seven);
    let mut other = bytes;
    other[12] = 2;
    let end = other.len() - 4;
    let crc = crc32c::crc32c(&other[..end]);
    other[end..].copy_from_slice(&crc.to_le_bytes());
    assert!(Manifest::decode(&other, 2).unwrap_err().to_string().contains("precision 2"));
}

#[test]
fn a_manifest_of_version_2_is_read() {
    let mut bytes = manifest().encode();
    bytes[8] = 2;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Manifest::decode(&bytes, 2).unwrap(), manifest());
}

#[test]
fn headers_are_told_apart_by_their_checksum_and_were_not_before_version_3() {
    let header = |numbers| Header { id: FileId::new(3, FileKind::Pairs, None), numbers, sections: Vec::new() }.encode();
    let (one, other) = (header([1; 11]), header([2; 11]));
    assert_eq!([crc32c::crc32c(&one), crc32c::crc32c(&other)], [RESIDUE; 2]);
    assert_ne!(checksum(&one), checksum(&other));
    assert_eq!(checksum(&one).to_le_bytes(), one[HEADER_BYTES - 4..]);
}

#[test]
fn a_manifest_of_version_1_is_read() {
    let bytes: Vec<u8> = include_bytes!("golden/manifest-v1").to_vec();
    let expected = Manifest {
        model: String::new(),
        segments: manifest()
            .segments
            .into_iter()
            .map(|s| SegmentEntry { dead: DeadCounts::default(), files: s.files[..3].to_vec(), ..s })
            .collect(),
        ..manifest()
    };
    assert_eq!(Manifest::decode(&bytes, 2).unwrap(), expected);
}

#[test]
fn a_newer_version_is_said_to_be_newer() {
    let mut bytes = manifest().encode();
    bytes[8] = 4;
    let body = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(Manifest::decode(&bytes, 2), Err(StoreError::Version { found: 4, supported: 3, .. })));
}

#[test]
fn dead_counts_that_do_not_fit_are_refused() {
    let segment = |dead| SegmentEntry { dead, ..manifest().segments.remove(0) };
    for (rows, sides) in [(10, [0, 0]), (1, [2, 0]), (2, [0, 1]), (0, [0, 0])] {
        let bad = Manifest { segments: vec![segment(DeadCounts { rows, sides })], ..manifest() };
        assert!(matches!(Manifest::decode(&bad.encode(), 2), Err(StoreError::Corrupt { .. })), "{rows} {sides:?}");
    }
}

#[test]
fn a_header_has_these_bytes() {
    let id = FileId::new(7, FileKind::Graph, Some(Side::Text));
    let mut numbers = [0; 11];
    numbers[0] = 5;
    let header = Header { id, numbers, sections: vec![Section { tag: 16, crc: 9, offset: 512, len: 640 }] };
    let bytes = header.encode();
    assert_eq!(
        hex(&bytes[..40]),
        "414e43485345470a010000000400000007000000000000000100000001000000".to_owned() + "0500000000000000"
    );
    assert_eq!(hex(&bytes[128..152]), "100000000900000000020000000000008002000000000000");
    assert!(bytes[152..508].iter().all(|b| *b == 0));
    assert_eq!(bytes[508..], crc32c::crc32c(&bytes[..508]).to_le_bytes());
    assert_eq!(Header::decode(&bytes, id, 2000).unwrap(), header);
    assert!(matches!(Header::decode(&bytes, id, 1151), Err(StoreError::Corrupt { .. })));
    let other = FileId { segment: 8, ..id };
    assert!(matches!(Header::decode(&bytes, other, 2000), Err(StoreError::Corrupt { offset: 12, .. })));
}

#[test]
fn sections_that_overlap_leave_the_file_or_lie_askew_are_refused() {
    let id = FileId::new(7, FileKind::Pairs, None);
    let section = |offset, len| Section { tag: 1, crc: 0, offset, len };
    let bad = [
        vec![section(512, 100), section(576, 1)],
        vec![section(448, 1)],
        vec![section(513, 1)],
        vec![section(512, 4096)],
        vec![section(u64::MAX - 63, 64)],
        vec![section(1024, 1), section(512, 1)],
    ];
    for sections in bad {
        let bytes = Header { id, numbers: [0; 11], sections }.encode();
        assert!(matches!(Header::decode(&bytes, id, 4096), Err(StoreError::Corrupt { .. })));
    }
    assert_eq!(HEADER_BYTES, 512);
}

#[test]
fn file_names_and_generations_agree() {
    assert_eq!(file_name(0x1f), "manifest-000000000000001f");
    for bad in ["manifest-1f", "manifest-000000000000001F", "manifest-000000000000001f.tmp", "manifest-+00000000000001f"] {
        assert_eq!(generation_of(bad), None, "{bad}");
    }
    let id = FileId::new(0xa, FileKind::Vectors, Some(Side::Image));
    assert_eq!(id.name(), "seg-000000000000000a.image.vectors");
    let dead = FileId { revision: 0x1f, ..FileId::new(0xa, FileKind::Dead, None) };
    assert_eq!(dead.name(), "seg-000000000000000a.dead-000000000000001f");
    for kind in FileKind::ALL {
        let sides: &[Option<Side>] = if kind.has_side() { &[Some(Side::Image), Some(Side::Text)] } else { &[None] };
        for side in sides {
            let id = FileId::new(0xa, kind, *side);
            assert!(FileId::is_name(&id.name()) && FileId::is_name(&FileId { revision: 3, ..id }.name()), "{}", id.name());
        }
    }
    for foreign in
        ["seg-0a.pairs", "seg-000000000000000a.image.pairs", "seg-000000000000000a.graph", "seg-000000000000000a.dead-1f"]
    {
        assert!(!FileId::is_name(foreign), "{foreign}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300f64..1e300).prop_map(Value::Float),
        ".{0,40}".prop_map(Value::Text),
    ]
}

proptest! {
    #[test]
    fn a_record_comes_back_and_every_cut_of_it_is_refused(
        key in "[A-Za-z0-9._:-]{1,64}",
        file in ".{0,60}",
        row in any::<u64>(),
        caption in prop::option::of(".{0,80}"),
        fields in prop::collection::btree_map(".{0,20}", value(), 0..5),
    ) {
        let fields: BTreeMap<String, Value> = fields;
        let pair = Pair {
            key: Key::new(key).unwrap(),
            source: SourceRef { file, row },
            content: ContentHash([5; 32]),
            image: None,
            text: None,
            caption,
            fields,
            picture: None,
        };
        let mut bytes = Vec::new();
        let picture = pairs::PictureRef { offset: 1, len: 2, crc: 3 };
        pairs::encode(&pair, Some(picture), &mut bytes);
        let back = pairs::decode(&bytes, 0).unwrap();
        prop_assert_eq!((&back.key, &back.source, &back.caption), (&pair.key, &pair.source, &pair.caption));
        prop_assert_eq!((&back.fields, back.picture), (&pair.fields, Some(picture)));
        prop_assert_eq!(pairs::key_bytes(&bytes, 0).unwrap(), pair.key.as_str().as_bytes());
        for len in 0..bytes.len() {
            prop_assert!(pairs::decode(&bytes[..len], 0).is_err());
        }
    }

    #[test]
    fn any_bytes_behind_a_good_checksum_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut record = crc32c::crc32c(&body).to_le_bytes().to_vec();
        record.extend_from_slice(&body);
        let _ = pairs::decode(&record, 0);
        let mut bytes = b"ANCHPOOL\x01\0\0\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(&body);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let _ = Manifest::decode(&bytes, 0);
        let mut header = [0u8; 512];
        header[..12].copy_from_slice(b"ANCHSEG\n\x01\0\0\0");
        let len = body.len().min(496);
        header[12..12 + len].copy_from_slice(&body[..len]);
        let crc = crc32c::crc32c(&header[..508]);
        header[508..].copy_from_slice(&crc.to_le_bytes());
        let id = FileId::new(1, FileKind::Pairs, None);
        let _ = Header::decode(&header, id, 4096);
    }
}
