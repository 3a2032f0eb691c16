//! PNG through the `image` crate, with limits, then to RGB as Pillow's `convert("RGB")` does.
//!
//! Pillow's habits, found by trying: alpha is dropped, not blended; 16-bit grey without alpha (its mode `I;16`) is *clipped* to
//! 255, so that almost everything is white; 16-bit grey with alpha and 16-bit colour keep the high byte.

use std::io::Cursor;

use image::error::ImageError as PngError;
use image::{DynamicImage, ImageFormat, ImageReader, Limits};

use super::{ImageLimits, Rgb, damaged, unsupported};
use crate::ImageError;

const FORMAT: &str = "PNG";

/// Bytes of decoder memory per allowed pixel: 8 for 16-bit RGBA, the widest kind, and as much again for rows and chunks.
const BYTES_PER_PIXEL: u64 = 16;

pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Rgb, ImageError> {
    let header = Header::read(bytes)?;
    limits.check_size(FORMAT, header.width.into(), header.height.into())?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    reader.limits(decoder_limits(&header));
    let picture = reader.decode().map_err(refusal)?;
    to_rgb(picture, &header).ok_or_else(|| damaged(FORMAT, "it has fewer rows than it states"))
}

/// The first chunk, which the format puts at fixed offsets.
struct Header {
    width: u32,
    height: u32,
    /// 16-bit grey without an alpha channel. The decoder adds one if a grey level is declared transparent; Pillow does not.
    grey16: bool,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let Some([_, _, _, _, b'I', b'H', b'D', b'R', w3, w2, w1, w0, h3, h2, h1, h0, bits, kind]) = bytes.get(8..26) else {
            return Err(damaged(FORMAT, "it does not start with a header"));
        };
        let width = u32::from_be_bytes([*w3, *w2, *w1, *w0]);
        let height = u32::from_be_bytes([*h3, *h2, *h1, *h0]);
        Ok(Self { width, height, grey16: (*bits, *kind) == (16, 0) })
    }
}

fn decoder_limits(header: &Header) -> Limits {
    /// For chunks beside the pixels (colour profiles, text) and for small pictures.
    const BASE: u64 = 4 << 20;
    let mut limits = Limits::default();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    limits.max_alloc = Some(BASE + BYTES_PER_PIXEL * u64::from(header.width) * u64::from(header.height));
    limits
}

fn refusal(error: PngError) -> ImageError {
    match error {
        PngError::Unsupported(what) => unsupported(format!("a PNG with {what}")),
        other => damaged(FORMAT, other.to_string()),
    }
}

fn to_rgb(picture: DynamicImage, header: &Header) -> Option<Rgb> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let values = match picture {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageRgba8(pixels) => map_pixels::<4, _>(pixels.as_raw(), |[r, g, b, _]| [r, g, b]),
        DynamicImage::ImageLuma8(pixels) => map_pixels::<1, _>(pixels.as_raw(), |[l]| [l; 3]),
        DynamicImage::ImageLumaA8(pixels) => map_pixels::<2, _>(pixels.as_raw(), |[l, _]| [l; 3]),
        DynamicImage::ImageLuma16(pixels) => map_pixels::<1, _>(pixels.as_raw(), |[l]| [clipped(l); 3]),
        DynamicImage::ImageLumaA16(pixels) if header.grey16 => map_pixels::<2, _>(pixels.as_raw(), |[l, _]| [clipped(l); 3]),
        DynamicImage::ImageLumaA16(pixels) => map_pixels::<2, _>(pixels.as_raw(), |[l, _]| [high(l); 3]),
        DynamicImage::ImageRgb16(pixels) => map_pixels::<3, _>(pixels.as_raw(), |rgb| rgb.map(high)),
        DynamicImage::ImageRgba16(pixels) => map_pixels::<4, _>(pixels.as_raw(), |[r, g, b, _]| [r, g, b].map(high)),
        _ => return None,
    };
    Rgb::new(values, width, height)
}

fn clipped(value: u16) -> u8 {
    value.min(255) as u8
}

fn high(value: u16) -> u8 {
    (value >> 8) as u8
}

fn map_pixels<const N: usize, T: Copy>(samples: &[T], to_rgb: impl Fn([T; N]) -> [u8; 3]) -> Vec<u8> {
    let pixels = samples.as_chunks::<N>().0;
    let mut values = Vec::with_capacity(pixels.len() * 3);
    for &pixel in pixels {
        values.extend_from_slice(&to_rgb(pixel));
    }
    values
}
