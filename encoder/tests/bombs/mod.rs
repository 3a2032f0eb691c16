//! Pictures made to hurt, byte by byte (included by `#[path]` where what they cost is measured).
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::allow_attributes, reason = "each test uses its part")]

use std::{io::Write, path::Path};

use flate2::{Compression, Crc, write::ZlibEncoder};

/// One of this crate's pictures.
pub fn fixture(name: &str) -> Vec<u8> {
    let here = Path::new(file!()).parent().unwrap().join("../fixtures/images").join(name);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read(tree.join(here)).unwrap()
}

pub const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

pub fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    [&u32::try_from(data.len()).unwrap().to_be_bytes(), kind.as_slice(), data, &crc.sum().to_be_bytes()].concat()
}

pub fn deflate_zeros(bytes: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let block = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(block.len()) {
        encoder.write_all(&block).unwrap();
    }
    encoder.finish().unwrap()
}

/// An 8-bit grey PNG of this size, with chunks before the pixels and the pixels' own compressed bytes.
pub fn png(width: u32, height: u32, before: &[u8], idat: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes(), &height.to_be_bytes(), [8, 0, 0, 0, 0].as_slice()].concat();
    [PNG_SIGNATURE, &chunk(b"IHDR", &header), before, &chunk(b"IDAT", idat), &chunk(b"IEND", b"")].concat()
}

pub fn webp_canvas(width: u32, height: u32) -> Vec<u8> {
    let side = |pixels: u32| (pixels - 1).to_le_bytes().into_iter().take(3).collect::<Vec<_>>();
    let body = [b"WEBPVP8X".as_slice(), &10_u32.to_le_bytes(), &[2, 0, 0, 0], &side(width), &side(height)].concat();
    [b"RIFF".as_slice(), &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat()
}

/// A JPEG whose frame header states this size.
pub fn jpeg_of_size(width: u16, height: u16) -> Vec<u8> {
    let mut bytes = fixture("grey.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A JPEG with thousands of scans.
pub fn scans() -> Vec<u8> {
    let bytes = fixture("grey-progressive.jpg");
    let last = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let end = bytes.len() - 2;
    [&bytes[..end], &bytes[last..end].repeat(3_000), &bytes[end..]].concat()
}

/// Pictures that are refused, with the code they are refused by.
pub fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("png of 20,000 x 20,000", png(20_000, 20_000, b"", b"\x78\x9c\x63"), "image_too_large"),
        ("png with a long edge", png(1, 65_536, b"", b""), "image_too_large"),
        ("largest png", png(u32::MAX, u32::MAX, b"", b""), "image_too_large"),
        ("jpeg of 65,535 x 65,535", jpeg_of_size(65_535, 65_535), "image_too_large"),
        ("webp with a huge canvas", webp_canvas(1 << 14, 1 << 14), "image_too_large"),
        ("png of nothing", png(0, 5, b"", b""), "image_damaged"),
        ("jpeg of thousands of scans", scans(), "image_unsupported"),
        ("gif", b"GIF89a\xff\xff\xff\xff\0\0\0".to_vec(), "image_unknown_format"),
        ("jpeg cut short", fixture("grey.jpg")[..200].to_vec(), "image_damaged"),
    ]
}

/// Sound pictures as long as an edge may be: made as high and wide as a model wants them, they would have a row or column of 14 million pixels.
pub fn ribbons() -> Vec<(&'static str, Vec<u8>)> {
    // Each row is a filter byte and its pixels.
    vec![
        ("1 x 65,535", png(1, 65_535, b"", &deflate_zeros_of(2 * 65_535))),
        ("65,535 x 1", png(65_535, 1, b"", &deflate_zeros_of(1 + 65_535))),
    ]
}

fn deflate_zeros_of(bytes: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![0; bytes]).unwrap();
    encoder.finish().unwrap()
}

/// Small pictures of every format and of both kinds of JPEG and WebP.
pub const SMALL: [&str; 12] = [
    "grey.jpg",
    "grey-progressive.jpg",
    "restart.jpg",
    "cmyk.jpg",
    "size-7x9.jpg",
    "mode-P.png",
    "interlaced-palette4.png",
    "grey-trns.png",
    "lossless.webp",
    "lossy-alpha.webp",
    "animated.webp",
    "size-1x1.webp",
];

/// Small pictures beside which something large is packed: they are read, or damaged, and it is not unpacked.
pub fn packed() -> Vec<(&'static str, Vec<u8>)> {
    let (zeros, gibibyte, pixel) = (deflate_zeros(256 << 20), deflate_zeros(1 << 30), deflate_zeros(1));
    vec![
        ("256 MiB behind the pixels", png(9, 9, b"", &zeros)),
        ("1 GiB of text", png(9, 9, &chunk(b"zTXt", &[b"Comment\0\0", gibibyte.as_slice()].concat()), &pixel)),
        ("256 MiB of a colour profile", png(9, 9, &chunk(b"iCCP", &[b"icc\0\0", zeros.as_slice()].concat()), &pixel)),
    ]
}
