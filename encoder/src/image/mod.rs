//! Picture bytes to the pixels a tower reads, equal to the reference level for level.
//!
//! ```text
//!   bytes ──sniff, check header──► JPEG │ PNG │ WebP decoder ──► Rgb ──resize only what the crop needs──► u8 crop ──► Pixels
//!           (ImageLimits)          (jpeg.rs png.rs webp.rs)           (geometry.rs, resample.rs)   (preprocess.rs)
//! ```
//!
//! The reference is open_clip's `image_transform` (torchvision on Pillow 13) applied to `Image.open(...).convert("RGB")`.
//! transformers 5 is *not* the reference: its image processor resizes tensors and differs from Pillow's by up to 215 levels.
//!
//! | file | subject |
//! |---|---|
//! | `jpeg.rs`, `png.rs`, `webp.rs` | one decoder each: header, limits, pixels as Pillow's `convert("RGB")` gives them |
//! | `libjpeg.rs` | the edge to libjpeg's C |
//! | `jpeg_idct.rs` | a JPEG's blocks of coefficients to samples, for AVX2 |
//! | `jpeg_planes.rs` | a JPEG's colour planes to RGB, as libjpeg does it |
//! | `resample.rs`, `resample_avx2.rs` | Pillow's 8-bit resampling arithmetic, evaluated for a window of the resized picture |
//! | `geometry.rs` | which size to resize to and which window to cut, as torchvision and open_clip do |
//! | `config.rs` | `preprocessor_config.json` and `preprocess_cfg.json` |
//! | `preprocess.rs` | the whole path as one value: [`Preprocess`] |
//!
//! Not here: file names, EXIF orientation (the reference does not apply it), colour profiles, anything but the first frame.

mod config;
mod geometry;
mod jpeg;
#[cfg(target_arch = "x86_64")]
mod jpeg_idct;
mod jpeg_planes;
mod libjpeg;
mod png;
mod preprocess;
mod resample;
#[cfg(target_arch = "x86_64")]
mod resample_avx2;
mod webp;

pub use config::PreprocessError;
pub use geometry::Geometry;
pub use preprocess::{Preprocess, Window};
pub use resample::Filter;

use crate::ImageError;

/// What a picture may cost. Everything is checked against the header, before the pixels are allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Encoded bytes; 32 MiB. The largest photographs of caption datasets are about half of that.
    pub max_bytes: usize,
    /// Width x height; 40 million. The buffers of one decode then add up to about 450 MB for the worst kind of file (16-bit
    /// RGBA, an animated WebP), so that a few at once fit a small server.
    pub max_pixels: u64,
    /// Pixels along an edge; 65,535, the most a JPEG can state.
    pub max_edge: u64,
    /// Scans of a JPEG; 100. Encoders write about ten; each scan may cost a pass over all pixels for a few bytes.
    pub max_jpeg_scans: usize,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_pixels: 40_000_000, max_edge: 65_535, max_jpeg_scans: 100 }
    }
}

impl ImageLimits {
    fn check_bytes(&self, bytes: usize) -> Result<(), ImageError> {
        match bytes {
            0 => Err(ImageError::Empty),
            _ if bytes > self.max_bytes => Err(ImageError::TooManyBytes { bytes, max: self.max_bytes }),
            _ => Ok(()),
        }
    }

    fn check_size(&self, format: &'static str, width: u64, height: u64) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(damaged(format, "the header states no pixels"));
        }
        let fits = width <= self.max_edge && height <= self.max_edge && width.saturating_mul(height) <= self.max_pixels;
        let (max_pixels, max_edge) = (self.max_pixels, self.max_edge);
        if fits { Ok(()) } else { Err(ImageError::TooLarge { width, height, max_pixels, max_edge }) }
    }
}

/// A decoded picture: rows of red, green, blue bytes. Neither side is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    values: Vec<u8>,
    width: usize,
    height: usize,
}

impl Rgb {
    /// Takes rows of red, green, blue bytes; `None` unless there are exactly `width * height * 3` of them and at least one.
    #[must_use]
    pub fn new(values: Vec<u8>, width: usize, height: usize) -> Option<Self> {
        let expected = width.checked_mul(height)?.checked_mul(3)?;
        (expected > 0 && values.len() == expected).then_some(Self { values, width, height })
    }

    /// `width * height * 3` bytes, row by row, red first.
    #[must_use]
    pub fn values(&self) -> &[u8] {
        &self.values
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_values(self) -> Vec<u8> {
        self.values
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }
}

/// Decodes a JPEG, PNG or WebP picture, recognised by content, to what Pillow's `convert("RGB")` gives: alpha is dropped
/// without blending, 16-bit grey is clipped (not scaled) to 8 bits, 16-bit colour keeps its high byte, CMYK is inverted as Adobe
/// writes it. Of an animation, the first frame. EXIF orientation is not applied.
///
/// # Errors
/// [`ImageError`]. A picture cut short is refused, as Pillow refuses it.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Rgb, ImageError> {
    let whole = |height, width| (Window { top: 0, left: 0, height, width }, ());
    decode_part(bytes, limits, whole).map(|(part, ())| part.pixels)
}

/// Some of a picture's pixels.
struct Part {
    pixels: Rgb,
    /// Row of the picture that they start with.
    top: usize,
    /// Column of the picture that they start with.
    left: usize,
}

impl Part {
    fn whole(pixels: Rgb) -> Self {
        Self { pixels, top: 0, left: 0 }
    }
}

/// As [`decode`], but of at least the window that `choose` names for a picture of so many rows and columns, where that is less work. The
/// window lies in the picture and is not empty. What else `choose` gives is handed on.
fn decode_part<T>(
    bytes: &[u8],
    limits: &ImageLimits,
    choose: impl FnOnce(usize, usize) -> (Window, T),
) -> Result<(Part, T), ImageError> {
    limits.check_bytes(bytes.len())?;
    let picture = match bytes {
        [0xFF, 0xD8, 0xFF, ..] => return jpeg::decode(bytes, limits, choose),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => png::decode(bytes, limits)?,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp::decode(bytes, limits)?,
        _ => return Err(unknown_format(bytes)),
    };
    let (_, chosen) = choose(picture.height(), picture.width());
    Ok((Part::whole(picture), chosen))
}

/// Bytes shown of something that is no picture: enough to recognise GIF, BMP, TIFF, HTML.
const HEAD_BYTES: usize = 12;

fn unknown_format(bytes: &[u8]) -> ImageError {
    let head: Vec<String> = bytes.iter().take(HEAD_BYTES).map(|byte| format!("{byte:02x}")).collect();
    ImageError::UnknownFormat { head: head.join(" ") }
}

fn damaged(format: &'static str, reason: impl Into<String>) -> ImageError {
    ImageError::Damaged { format, reason: reason.into() }
}

fn unsupported(what: impl Into<String>) -> ImageError {
    ImageError::Unsupported { what: what.into() }
}

/// Bytes of `width * height` pixels; the sides were checked against [`ImageLimits`], which may be set beyond this machine.
fn buffer_bytes(format: &'static str, width: usize, height: usize, channels: usize) -> Result<usize, ImageError> {
    let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels));
    bytes.ok_or_else(|| damaged(format, "more pixels than this machine can address"))
}
