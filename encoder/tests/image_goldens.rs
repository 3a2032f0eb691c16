//! The pictures in `fixtures/images` give what open_clip's pipeline gives, byte for byte; `make.py` beside them says how it was run.
#![expect(clippy::unwrap_used, reason = "what fails while a test is set up fails the test")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use anchorite_encoder::ImageError;
use anchorite_encoder::image::{ImageLimits, Preprocess, decode};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Goldens {
    pictures: BTreeMap<String, Picture>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Picture {
    Decoded { width: usize, height: usize, decoded: String },
    Refused { refused: String },
}

#[derive(Deserialize)]
struct Case {
    dialect: String,
    config: Value,
    files: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    crop: String,
    values: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn goldens() -> Goldens {
    serde_json::from_slice(&picture("goldens.json")).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn preprocess(case: &Case) -> Preprocess {
    let text = case.config.to_string();
    match case.dialect.as_str() {
        "open_clip" => Preprocess::from_open_clip_json(&text),
        _ => Preprocess::from_hf_json(&text),
    }
    .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_kind_of_picture_decodes_as_pillow_converts_it() {
    let mut wrong = Vec::new();
    for (name, expected) in goldens().pictures {
        match (decode(&picture(&name), &ImageLimits::default()), expected) {
            (Ok(found), Picture::Decoded { width, height, decoded }) => {
                assert_eq!((found.width(), found.height()), (width, height), "{name}");
                if sha256(found.values()) != decoded {
                    wrong.push(name);
                }
            }
            (Err(ImageError::Damaged { .. }), Picture::Refused { .. }) => {}
            (Err(error), Picture::Decoded { .. }) => panic!("{name}: refused ({error}), which Pillow reads"),
            (Err(error), Picture::Refused { refused }) => panic!("{name}: {error}, where Pillow says {refused}"),
            (Ok(_), Picture::Refused { refused }) => panic!("{name}: read, which Pillow refuses ({refused})"),
        }
    }
    assert!(wrong.is_empty(), "other pixels than Pillow's: {wrong:?}");
}

#[test]
fn every_configuration_crops_as_the_reference_does() {
    let mut wrong = Vec::new();
    for case in goldens().cases {
        let preprocess = preprocess(&case);
        for (name, expected) in &case.files {
            let crop = preprocess.crop_u8(&picture(name)).unwrap();
            assert_eq!((crop.height(), crop.width()), preprocess.geometry().output(), "{name} {}", case.config);
            if sha256(crop.values()) != expected.crop {
                wrong.push(format!("{name} {}", case.config));
            }
        }
    }
    assert!(wrong.is_empty(), "other levels than the reference's: {wrong:#?}");
}

#[test]
fn normalised_values_are_the_references_to_the_last_bit() {
    let mut wrong = Vec::new();
    for case in goldens().cases {
        let preprocess = preprocess(&case);
        for (name, expected) in &case.files {
            let pixels = preprocess.apply(&picture(name)).unwrap();
            assert_eq!((pixels.height, pixels.width), preprocess.geometry().output());
            let bytes: Vec<u8> = pixels.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            if sha256(&bytes) != expected.values {
                wrong.push(format!("{name} {}", case.config));
            }
        }
    }
    assert!(wrong.is_empty(), "other values than the reference's: {wrong:#?}");
}

#[test]
fn goldens_cover_every_fixture() {
    let goldens = goldens();
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if [".jpg", ".png", ".webp"].iter().any(|ending| name.ends_with(ending)) {
            assert!(goldens.pictures.contains_key(&name), "{name} is not in goldens.json; run make.py --goldens");
            count += 1;
        }
    }
    assert_eq!(count, goldens.pictures.len());
}
