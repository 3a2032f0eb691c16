//! Pictures made to hurt: bombs, cuts, flipped bits, other formats. Each is an error with a name or a picture; none is a panic.

mod bombs;

use std::time::{Duration, Instant};

use anchorite_encoder::ImageError;
use anchorite_encoder::image::{ImageLimits, Rgb, decode};
use bombs::{PNG_SIGNATURE, SMALL, chunk, deflate_zeros, fixture, jpeg_of_size, png, scans, webp_canvas};
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<Rgb, ImageError> {
    decode(bytes, &ImageLimits::default())
}

fn code(bytes: &[u8]) -> &'static str {
    match read(bytes) {
        Ok(picture) => panic!("read as {} x {}", picture.width(), picture.height()),
        Err(error) => error.code(),
    }
}

#[test]
fn a_stated_size_beyond_the_limit_is_refused_from_the_header() {
    let bombs = [
        ("png", png(20_000, 20_000, b"", b"\x78\x9c\x63")),
        ("png, long edge", png(1, 65_536, b"", b"")),
        ("png, largest", png(u32::MAX, u32::MAX, b"", b"")),
        ("jpeg", jpeg_of_size(65_535, 65_535)),
        ("webp", webp_canvas(1 << 14, 1 << 14)),
    ];
    for (name, bytes) in bombs {
        let started = Instant::now();
        assert_eq!(code(&bytes), "image_too_large", "{name}");
        assert!(started.elapsed() < Duration::from_millis(500), "{name}: more than the header was read");
    }
}

#[test]
fn a_size_of_nothing_is_damage() {
    for bytes in [png(0, 5, b"", b""), png(5, 0, b"", b""), jpeg_of_size(0, 9), jpeg_of_size(9, 0)] {
        assert_eq!(code(&bytes), "image_damaged");
    }
}

#[test]
fn pixel_data_that_inflates_beyond_the_picture_does_not_grow() {
    // 256 MiB of zeros behind a 9 x 9 picture: the picture is there, the rest is never inflated into memory.
    match read(&png(9, 9, b"", &deflate_zeros(256 << 20))) {
        Ok(picture) => assert_eq!(picture.values(), [0; 9 * 9 * 3]),
        Err(error) => assert_eq!(error.code(), "image_damaged"),
    }
}

#[test]
fn compressed_text_and_profiles_are_not_inflated() {
    let zeros = deflate_zeros(64 << 20);
    let pixels = deflate_zeros(1);
    let text = chunk(b"zTXt", &[b"Comment\0\0", zeros.as_slice()].concat());
    let profile = chunk(b"iCCP", &[b"icc\0\0", zeros.as_slice()].concat());
    for (name, before) in [("zTXt", text), ("iCCP", profile)] {
        let picture = read(&png(9, 9, &before, &pixels)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(picture.values(), [0; 9 * 9 * 3], "{name}");
    }
}

#[test]
fn a_jpeg_of_thousands_of_scans_is_refused() {
    let bytes = fixture("grey-progressive.jpg");
    let last = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let end = bytes.len() - 2;
    let scan = &bytes[last..end];
    assert_eq!(code(&scans()), "image_unsupported");
    // A few more than usual are read.
    let patient = [&bytes[..end], &scan.repeat(20), &bytes[end..]].concat();
    let expected = "libjpeg says what it thinks of a repeated scan, but it does look at it";
    assert!(!matches!(read(&patient), Err(ImageError::Unsupported { .. })), "{expected}");
}

#[test]
fn other_kinds_of_jpeg_are_named() {
    let start_frame_with = |marker: u8, bits: u8, components: u8| {
        let mut bytes = fixture("grey.jpg");
        let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        bytes[frame + 1] = marker;
        bytes[frame + 4] = bits;
        bytes[frame + 9] = components;
        bytes
    };
    for (bytes, word) in [
        (start_frame_with(0xC3, 8, 1), "lossless"),
        (start_frame_with(0xC9, 8, 1), "arithmetic"),
        (start_frame_with(0xC5, 8, 1), "hierarchical"),
        (start_frame_with(0xC1, 12, 1), "12 bits"),
        (start_frame_with(0xC0, 8, 2), "2 colour components"),
    ] {
        let error = read(&bytes).unwrap_err();
        assert_eq!(error.code(), "image_unsupported");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn encoded_bytes_are_bounded() {
    let limits = ImageLimits { max_bytes: 100, ..ImageLimits::default() };
    let bytes = fixture("grey.jpg");
    assert_eq!(decode(&bytes, &limits), Err(ImageError::TooManyBytes { bytes: bytes.len(), max: 100 }));
}

#[test]
fn pixels_and_edges_are_bounded_by_the_callers_limits() {
    for name in ["size-65x1.png", "size-65x1.jpg", "size-65x1.webp"] {
        let bytes = fixture(name);
        let pixels = ImageLimits { max_pixels: 64, ..ImageLimits::default() };
        let edge = ImageLimits { max_edge: 64, ..ImageLimits::default() };
        let fits = ImageLimits { max_edge: 65, max_pixels: 65, ..ImageLimits::default() };
        assert_eq!(decode(&bytes, &pixels).unwrap_err().code(), "image_too_large", "{name}");
        assert_eq!(decode(&bytes, &edge).unwrap_err().code(), "image_too_large", "{name}");
        assert!(decode(&bytes, &fits).is_ok(), "{name}");
    }
}

#[test]
fn what_is_no_picture_is_named_by_its_first_bytes() {
    assert_eq!(read(b""), Err(ImageError::Empty));
    let others: [&[u8]; 8] = [
        b"GIF89a\x01\0\x01\0\0\0\0;",
        b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0",
        b"II*\0\x08\0\0\0",
        b"<html><body>404</body></html>",
        b"\0\0\0\x20ftypavif",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\xff\xd8",
        b"\x89PNG",
    ];
    for bytes in others {
        assert_eq!(code(bytes), "image_unknown_format");
    }
    assert!(read(b"GIF89a").unwrap_err().to_string().contains("47 49 46 38 39 61"));
}

#[test]
fn a_picture_cut_anywhere_is_refused_or_whole() {
    for name in SMALL {
        let bytes = fixture(name);
        let whole = read(&bytes).unwrap();
        let mut refused = 0;
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                Ok(picture) => assert!(picture == whole, "{name} cut at {end} of {}: other pixels", bytes.len()),
                Err(_) => refused += 1,
            }
        }
        // A few bytes at the end (an end marker, padding, the last checksum) may be missing unnoticed, as in Pillow.
        assert!(refused + 40 >= bytes.len(), "{name}: {} of {} cuts were not noticed", bytes.len() - refused, bytes.len());
    }
}

/// So that a flipped bit of the size does not make a test slow.
fn small_limits() -> ImageLimits {
    ImageLimits { max_pixels: 1 << 18, ..ImageLimits::default() }
}

#[test]
fn every_flipped_bit_of_a_header_is_survived() {
    const HEADER: usize = 200;
    for name in SMALL {
        let bytes = fixture(name);
        for at in 0..bytes.len().min(HEADER) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // Not to panic is all that is asked; what comes out has the size it states.
                if let Ok(picture) = decode(&flipped, &small_limits()) {
                    assert_eq!(picture.values().len(), picture.width() * picture.height() * 3);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_is_survived(
        which in 0..SMALL.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = fixture(SMALL[which]);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(picture) = decode(&bytes, &small_limits()) {
            prop_assert_eq!(picture.values().len(), picture.width() * picture.height() * 3);
        }
    }

    #[test]
    fn noise_behind_a_signature_is_survived(which in 0..3_usize, noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let signature = [b"\xff\xd8\xff".as_slice(), PNG_SIGNATURE, b"RIFF\xff\0\0\0WEBP"][which];
        let _ = decode(&[signature, &noise].concat(), &small_limits());
    }
}
