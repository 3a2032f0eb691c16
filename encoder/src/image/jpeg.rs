//! JPEG through mozjpeg, a fork of libjpeg-turbo that decodes bit for bit as Pillow's does (slow integer DCT, fancy upsampling).
//!
//! The header is read twice: first by [`Header::read`], plain Rust, which finds what must be known before C code sees the
//! bytes (size, number of scans, coding kind), then by mozjpeg.
//!
//! Where the two differ: arithmetic coding is refused here (Pillow reads it). Of files whose coded data is *corrupt* but
//! complete both make the best they can, and without the `jpeg-simd` feature the made-up parts differ, since Pillow's SIMD
//! arithmetic saturates at values no encoder writes; a few such files Pillow refuses and we read.
//!
//! mozjpeg reports a fatal error by unwinding (it calls `resume_unwind` with the message, so no panic hook runs); that is caught
//! here and goes no further. A file that ends early is no error to libjpeg, which would make up the rest; [`Watched`]
//! notices that it asked for bytes that are not there. That is exactly when Pillow says "image file is truncated".

use std::any::Any;
use std::cell::Cell;
use std::io::{BufRead, Error, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, CompInfoExt, Decompress};

use super::{
    ImageLimits, Rgb, buffer_bytes, damaged,
    jpeg_planes::{Halved, Plane, Planes},
    unsupported,
};
use crate::ImageError;

const FORMAT: &str = "JPEG";

pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Rgb, ImageError> {
    let header = Header::read(bytes)?;
    header.check(limits)?;
    let ended_early = Cell::new(false);
    let source = Watched { rest: bytes, ended_early: &ended_early };
    match catch_unwind(AssertUnwindSafe(|| read_pixels(source, &header, limits))) {
        _ if ended_early.get() => Err(damaged(FORMAT, "it ends before the picture is complete")),
        Ok(Ok(picture)) => Ok(picture),
        Ok(Err(error)) => Err(error),
        Err(payload) => Err(damaged(FORMAT, unwind_message(payload.as_ref()))),
    }
}

fn unwind_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the decoder failed");
    text.strip_prefix("libjpeg fatal error: ").unwrap_or(text).to_owned()
}

/// The encoded bytes, with a note of whether more were asked for than there are.
struct Watched<'a> {
    rest: &'a [u8],
    ended_early: &'a Cell<bool>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.rest.read(into)
    }
}

impl BufRead for Watched<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended_early.set(true);
            // Any kind but UnexpectedEof, for which mozjpeg would go on with a made-up end of image.
            return Err(Error::other("the file ends early"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = self.rest.get(amount..).unwrap_or_default();
    }
}

/// The only code that runs inside the `catch_unwind`.
fn read_pixels(source: Watched<'_>, header: &Header, limits: &ImageLimits) -> Result<Rgb, ImageError> {
    let decoder = Decompress::new_reader(source).map_err(|error| damaged(FORMAT, error.to_string()))?;
    let (width, height) = decoder.size();
    if (width, height) != (usize::from(header.width), usize::from(header.height)) {
        return Err(damaged(FORMAT, "it states two sizes"));
    }
    limits.check_size(FORMAT, width as u64, height as u64)?;
    let bytes = buffer_bytes(FORMAT, width, height, 3)?;
    if let Some(layout) = PlaneLayout::of(&decoder) {
        return read_planes(decoder, layout);
    }
    let wanted = if header.components == 4 { ColorSpace::JCS_CMYK } else { ColorSpace::JCS_RGB };
    let mut started = decoder.to_colorspace(wanted).map_err(|error| damaged(FORMAT, error.to_string()))?;
    let values: Vec<u8> = started.read_scanlines().map_err(|error| damaged(FORMAT, error.to_string()))?;
    let values = if header.components == 4 { cmyk_to_rgb(&values, bytes) } else { values };
    Rgb::new(values, width, height).ok_or_else(|| damaged(FORMAT, "it has fewer rows than it states"))
}

/// The files whose last steps [`super::jpeg_planes`] does: luma and two differences, halved or not. That is nearly all of them.
#[derive(Clone, Copy)]
struct PlaneLayout {
    halved: Halved,
    /// Samples between rows, and rows, of each plane as libjpeg gives them: whole blocks, whole MCUs.
    room: [(usize, usize); 3],
}

impl PlaneLayout {
    fn of<R>(decoder: &Decompress<R>) -> Option<Self> {
        let [luma, blue, red] = decoder.components() else { return None };
        let (columns, rows) = luma.sampling();
        let plain = decoder.color_space() == ColorSpace::JCS_YCbCr && blue.sampling() == (1, 1) && red.sampling() == (1, 1);
        let (width, height) = decoder.size();
        // libjpeg widens very narrow pictures in a simpler way.
        let narrow = columns == 2 && width.div_ceil(2) <= 2;
        if !plain || narrow || !(1..=2).contains(&columns) || !(1..=2).contains(&rows) {
            return None;
        }
        let mcu_rows = height.div_ceil(8 * usize::from(rows));
        let room = [luma, blue, red].map(|c| (c.row_stride(), mcu_rows * 8 * usize::from(c.sampling().1)));
        Some(Self { halved: Halved { columns: columns == 2, rows: rows == 2 }, room })
    }
}

fn read_planes(decoder: Decompress<Watched<'_>>, layout: PlaneLayout) -> Result<Rgb, ImageError> {
    let (width, height) = decoder.size();
    let mut started = decoder.raw().map_err(|error| damaged(FORMAT, error.to_string()))?;
    // Written and emptied, so that the rows that libjpeg leaves out at the bottom of its last blocks have values.
    let [mut luma, mut blue, mut red] = layout.room.map(|(stride, rows)| {
        let mut room = vec![0; stride * rows];
        room.clear();
        room
    });
    started.read_raw_data(&mut [&mut luma, &mut blue, &mut red]);
    let Halved { columns, rows } = layout.halved;
    let half = |full: usize, halved: bool| if halved { full.div_ceil(2) } else { full };
    let (half_width, half_height) = (half(width, columns), half(height, rows));
    let plane = |samples, at: usize, width, height| Plane { samples, stride: layout.room[at].0, width, height };
    let planes = Planes {
        luma: plane(luma, 0, width, height),
        differences: [plane(blue, 1, half_width, half_height), plane(red, 2, half_width, half_height)],
        halved: layout.halved,
    };
    let values = planes.into_rgb().and_then(|values| Rgb::new(values, width, height));
    values.ok_or_else(|| damaged(FORMAT, "it has fewer rows than it states"))
}

/// Pillow's conversion, arithmetic included: inks are stored inverted (Pillow assumes Adobe's habit for every file), then
/// each colour is what the ink and the black leave of white.
fn cmyk_to_rgb(cmyk: &[u8], bytes: usize) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(bytes);
    for pixel in cmyk.as_chunks::<4>().0 {
        let [inks @ .., black] = pixel.map(|value| 255 - u32::from(value));
        let white = 255 - black;
        rgb.extend(inks.map(|ink| {
            let product = ink * white + 128;
            let taken = ((product >> 8) + product) >> 8;
            white.saturating_sub(taken) as u8
        }));
    }
    rgb
}

/// What a JPEG says of itself, read without decoding.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    width: u16,
    height: u16,
    components: u8,
    bits: u8,
    coding: Coding,
    scans: usize,
}

/// The kinds of frame, by the marker that starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// Baseline, extended sequential or progressive with Huffman codes.
    Huffman,
    Lossless,
    Arithmetic,
    Hierarchical,
}

impl Coding {
    fn of_marker(marker: u8) -> Option<Self> {
        match marker {
            0xC0..=0xC2 => Some(Self::Huffman),
            0xC3 => Some(Self::Lossless),
            0xC9 | 0xCA => Some(Self::Arithmetic),
            0xC5..=0xC7 | 0xCB | 0xCD..=0xCF => Some(Self::Hierarchical),
            _ => None,
        }
    }
}

impl Header {
    /// Walks the markers of the whole file: the frame header gives the size, the rest is needed to count the scans.
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut header: Option<Self> = None;
        let mut scans = 0;
        for (marker, segment) in Segments::of(bytes) {
            match (marker, Coding::of_marker(marker)) {
                (START_OF_SCAN, _) => scans += 1,
                (_, Some(coding)) if header.is_none() => header = Some(Self::of_frame(coding, segment)?),
                _ => {}
            }
        }
        let header = header.ok_or_else(|| damaged(FORMAT, "it has no frame header"))?;
        Ok(Self { scans, ..header })
    }

    fn of_frame(coding: Coding, segment: &[u8]) -> Result<Self, ImageError> {
        let [bits, h1, h0, w1, w0, components, ..] = *segment else {
            return Err(damaged(FORMAT, "its frame header is cut short"));
        };
        let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
        Ok(Self { width, height, components, bits, coding, scans: 0 })
    }

    fn check(&self, limits: &ImageLimits) -> Result<(), ImageError> {
        limits.check_size(FORMAT, self.width.into(), self.height.into())?;
        match self {
            Self { coding: Coding::Lossless, .. } => Err(unsupported("a lossless JPEG")),
            Self { coding: Coding::Arithmetic, .. } => Err(unsupported("an arithmetic-coded JPEG")),
            Self { coding: Coding::Hierarchical, .. } => Err(unsupported("a hierarchical JPEG")),
            Self { bits, .. } if *bits != 8 => Err(unsupported(format!("a JPEG of {bits} bits a sample"))),
            Self { components, .. } if ![1, 3, 4].contains(components) => {
                Err(unsupported(format!("a JPEG of {components} colour components")))
            }
            Self { scans, .. } if *scans > limits.max_jpeg_scans => {
                Err(unsupported(format!("a JPEG of {scans} scans (at most {} are read)", limits.max_jpeg_scans)))
            }
            _ => Ok(()),
        }
    }
}

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// The marker segments of a file, in order, with what lies between them (scan data, garbage) skipped. Ends at the end of
/// the image or of the bytes, whichever comes first.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.rest.iter().position(|&byte| byte == 0xFF)?;
            let from_marker = self.rest.get(start..)?;
            let fill = from_marker.iter().position(|&byte| byte != 0xFF)?;
            let (marker, after) = from_marker.get(fill..)?.split_first()?;
            self.rest = after;
            match marker {
                // A stuffed byte, a stand-alone marker, a restart or the start of the image: no segment follows.
                0x00..=0x01 | 0xD0..=0xD8 => {}
                &END_OF_IMAGE => return None,
                &marker => {
                    let [l1, l0, ..] = *after else { return None };
                    let end = usize::from(u16::from_be_bytes([l1, l0])).max(2);
                    let segment = after.get(2..end.min(after.len()))?;
                    self.rest = after.get(end..).unwrap_or_default();
                    return Some((marker, segment));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mozjpeg::Compress;

    use super::*;

    /// A noisy picture as a JPEG with the given chroma sampling, in the settings that libjpeg's own tests use.
    fn compressed((width, height): (usize, usize), sampling: (u8, u8), progressive: bool) -> Vec<u8> {
        let noise = |at: usize| (at.wrapping_mul(2_654_435_761) >> 7) as u8;
        let values: Vec<u8> = (0..width * height * 3).map(|at| noise(at) / 2 + (at / 3 % width * 3) as u8 / 2).collect();
        let mut settings = Compress::new(ColorSpace::JCS_RGB);
        settings.set_size(width, height);
        settings.set_fastest_defaults();
        settings.set_quality(90.0);
        settings.set_chroma_sampling_pixel_sizes(sampling, sampling);
        if progressive {
            settings.set_progressive_mode();
        }
        let mut started = settings.start_compress(Vec::new()).unwrap();
        started.write_scanlines(&values).unwrap();
        started.finish().unwrap()
    }

    fn by_libjpeg(bytes: &[u8]) -> Vec<u8> {
        Decompress::new_mem(bytes).unwrap().rgb().unwrap().read_scanlines().unwrap()
    }

    #[test]
    fn planes_become_the_rgb_that_libjpeg_makes_of_them() {
        let mut by_planes = 0;
        for sampling in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            for size in (1..40).flat_map(|width| [(width, 1), (width, 2), (width, 17), (33, width), (width + 60, width)]) {
                let bytes = compressed(size, sampling, size.0 % 3 == 0);
                by_planes += usize::from(PlaneLayout::of(&Decompress::new_mem(&bytes).unwrap()).is_some());
                let ours = decode(&bytes, &ImageLimits::default()).unwrap();
                assert_eq!(ours.values(), by_libjpeg(&bytes), "{size:?} {sampling:?}");
            }
        }
        // All but the narrowest.
        assert!(by_planes > 700, "{by_planes}");
    }
}
