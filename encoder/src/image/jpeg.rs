//! JPEG through libjpeg-turbo's decoder, bit for bit as Pillow reads it (slow integer DCT, fancy upsampling).
//!
//! The header is read twice: first by [`Header::read`], plain Rust, which finds what must be known before C code sees the
//! bytes (size, number of scans, coding kind), then by libjpeg.
//!
//! Of the usual files only the part that is wanted is transformed and coloured; entropy coding is undone for all of it.
//!
//! Where Pillow and this differ: arithmetic coding is refused here (Pillow reads it). Of files whose coded data is *corrupt* but
//! complete both make the best they can, and on a processor without AVX2 the made-up parts differ, since Pillow's
//! arithmetic saturates at values no encoder writes; a few such files Pillow refuses and we read.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mozjpeg_sys::J_COLOR_SPACE;

use super::{
    ImageLimits, Part, Rgb, Window, damaged,
    jpeg_planes::{Halved, Plane, Planes},
    libjpeg::{Component, Decoder, EDGE, PlanesWanted, Stopped},
    unsupported,
};
use crate::ImageError;

const FORMAT: &str = "JPEG";

/// Decodes at least the part that `choose` names for a picture of so many rows and columns.
pub(super) fn decode<T>(
    bytes: &[u8],
    limits: &ImageLimits,
    choose: impl FnOnce(usize, usize) -> (Window, T),
) -> Result<(Part, T), ImageError> {
    let header = Header::read(bytes)?;
    header.check(limits)?;
    let (window, chosen) = choose(header.height.into(), header.width.into());
    let part = catch_unwind(AssertUnwindSafe(|| read_pixels(bytes, &header, window))).unwrap_or_else(|payload| match *payload
        .downcast::<Stopped>()
        .unwrap_or_else(|other| resume_unwind(other))
    {
        Stopped::EndedEarly => Err(damaged(FORMAT, "it ends before the picture is complete")),
        Stopped::Failed(reason) => Err(damaged(FORMAT, reason)),
    })?;
    Ok((part, chosen))
}

/// The only code that runs inside the `catch_unwind`.
fn read_pixels(bytes: &[u8], header: &Header, window: Window) -> Result<Part, ImageError> {
    let decoder = Decoder::new(bytes);
    let (width, height) = (usize::from(header.width), usize::from(header.height));
    if decoder.size() != (width, height) {
        return Err(damaged(FORMAT, "it states two sizes"));
    }
    let part = if let Some(layout) = PlaneLayout::of(&decoder) {
        read_planes(decoder, &layout, window)
    } else if header.components == 4 {
        let cmyk = decoder.rows(J_COLOR_SPACE::JCS_CMYK, 4);
        cmyk.and_then(|cmyk| Rgb::new(cmyk_to_rgb(&cmyk), width, height)).map(Part::whole)
    } else {
        decoder.rows(J_COLOR_SPACE::JCS_RGB, 3).and_then(|rgb| Rgb::new(rgb, width, height)).map(Part::whole)
    };
    part.ok_or_else(|| damaged(FORMAT, "it has fewer rows than it states"))
}

/// The files whose last steps [`super::jpeg_planes`] does: luma and two differences, halved or not. That is nearly all of them.
#[derive(Clone, Copy)]
struct PlaneLayout {
    halved: Halved,
    components: [Component; 3],
}

impl PlaneLayout {
    fn of(decoder: &Decoder<'_>) -> Option<Self> {
        let components = <[Component; 3]>::try_from(decoder.components()).ok()?;
        let [luma, blue, red] = components;
        let (columns, rows) = luma.sampling;
        let plain = decoder.color_space() == J_COLOR_SPACE::JCS_YCbCr && blue.sampling == (1, 1) && red.sampling == (1, 1);
        // libjpeg widens very narrow pictures in a simpler way.
        let narrow = columns == 2 && decoder.size().0.div_ceil(2) <= 2;
        if !plain || narrow || !(1..=2).contains(&columns) || !(1..=2).contains(&rows) {
            return None;
        }
        Some(Self { halved: Halved { columns: columns == 2, rows: rows == 2 }, components })
    }

    /// MCUs that hold `from..from + len` and what widening looks at around it, of an axis where an MCU has `edge` samples.
    fn mcus(from: usize, len: usize, of: usize, edge: usize) -> Range<usize> {
        // One sample of a halved difference, which is two of luma.
        let around = 2;
        from.saturating_sub(around) / edge..(from + len + around).min(of).div_ceil(edge)
    }
}

fn read_planes(decoder: Decoder<'_>, layout: &PlaneLayout, window: Window) -> Option<Part> {
    let (width, height) = decoder.size();
    let [luma, ..] = layout.components;
    let (mcu_width, mcu_height) = (EDGE * luma.sampling.0, EDGE * luma.sampling.1);
    let columns = PlaneLayout::mcus(window.left, window.width, width, mcu_width);
    let rows = PlaneLayout::mcus(window.top, window.height, height, mcu_height);
    let samples = |c: Component| columns.start * EDGE * c.sampling.0..columns.end * EDGE * c.sampling.0;
    let wanted =
        PlanesWanted { mcu_rows: height.div_ceil(mcu_height), rows: rows.clone(), columns: layout.components.map(samples) };
    let planes = decoder.planes(wanted)?;
    // What was transformed, cut to the picture, is a picture of its own, of which the window is a part.
    let (left, top) = (columns.start * mcu_width, rows.start * mcu_height);
    let (right, bottom) = ((columns.end * mcu_width).min(width), (rows.end * mcu_height).min(height));
    let (full_width, full_height) = (right - left, bottom - top);
    let half = |full: usize, halved: bool| if halved { full.div_ceil(2) } else { full };
    let Halved { columns: half_columns, rows: half_rows } = layout.halved;
    let mut planes = planes.into_iter().zip(layout.components).enumerate().map(|(at, (samples, component))| {
        let (width, height) = match at {
            0 => (full_width, full_height),
            _ => (half(full_width, half_columns), half(full_height, half_rows)),
        };
        Plane { samples, stride: component.stride, left: columns.start * EDGE * component.sampling.0, width, height }
    });
    let planes = Planes { luma: planes.next()?, differences: [planes.next()?, planes.next()?], halved: layout.halved };
    let inside = Window { top: window.top - top, left: window.left - left, ..window };
    let pixels = Rgb::new(planes.into_rgb(inside)?, window.width, window.height)?;
    Some(Part { pixels, top: window.top, left: window.left })
}

/// Pillow's conversion, arithmetic included: inks are stored inverted (Pillow assumes Adobe's habit for every file), then
/// each colour is what the ink and the black leave of white.
fn cmyk_to_rgb(cmyk: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(cmyk.len() / 4 * 3);
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
    use mozjpeg::{ColorSpace, Compress, Decompress};

    use super::*;

    /// A noisy picture as a JPEG with the given chroma sampling, in the settings that libjpeg's own tests use.
    fn compressed((width, height): (usize, usize), sampling: (u8, u8), quality: u8) -> Vec<u8> {
        let noise = |at: usize| (at.wrapping_mul(2_654_435_761) >> 7) as u8;
        let values: Vec<u8> = (0..width * height * 3).map(|at| noise(at) / 2 + (at / 3 % width * 3) as u8 / 2).collect();
        let mut settings = Compress::new(ColorSpace::JCS_RGB);
        settings.set_size(width, height);
        settings.set_fastest_defaults();
        settings.set_quality(quality.into());
        settings.set_chroma_sampling_pixel_sizes(sampling, sampling);
        if width % 3 == 0 {
            settings.set_progressive_mode();
        }
        let mut started = settings.start_compress(Vec::new()).unwrap();
        started.write_scanlines(&values).unwrap();
        started.finish().unwrap()
    }

    /// In libjpeg's plain C, from the transform on.
    fn by_libjpeg(bytes: &[u8]) -> Vec<u8> {
        Decompress::new_mem(bytes).unwrap().rgb().unwrap().read_scanlines().unwrap()
    }

    fn whole(height: usize, width: usize) -> (Window, ()) {
        (Window { top: 0, left: 0, height, width }, ())
    }

    const SAMPLINGS: [(u8, u8); 4] = [(1, 1), (2, 1), (1, 2), (2, 2)];

    #[test]
    fn planes_become_the_rgb_that_libjpeg_makes_of_them() {
        let mut by_planes = 0;
        for sampling in SAMPLINGS {
            for size in (1..40).flat_map(|width| [(width, 1), (width, 2), (width, 17), (33, width), (width + 60, width)]) {
                let bytes = compressed(size, sampling, [90, 100, 30, 1][size.0 % 4]);
                by_planes += usize::from(PlaneLayout::of(&Decoder::new(&bytes)).is_some());
                let (ours, ()) = decode(&bytes, &ImageLimits::default(), whole).unwrap();
                assert_eq!(ours.pixels.values(), by_libjpeg(&bytes), "{size:?} {sampling:?}");
            }
        }
        // All but the narrowest.
        assert!(by_planes > 700, "{by_planes}");
    }

    #[test]
    fn a_window_is_the_same_part_of_the_whole() {
        let (width, height) = (77, 61);
        for sampling in SAMPLINGS {
            let bytes = compressed((width, height), sampling, 90);
            let all = by_libjpeg(&bytes);
            for number in 0..400_usize {
                let draw =
                    |salt: usize, below: usize| (number.wrapping_mul(2_654_435_761).wrapping_add(salt * 40_503) >> 8) % below;
                let (top, left) = (draw(1, height), draw(2, width));
                let window = Window { top, left, height: 1 + draw(3, height - top), width: 1 + draw(4, width - left) };
                let (part, ()) = decode(&bytes, &ImageLimits::default(), |_, _| (window, ())).unwrap();
                let (rows, columns) =
                    (top - part.top..top - part.top + window.height, left - part.left..left - part.left + window.width);
                for (row, expected) in rows.zip(all.chunks_exact(width * 3).skip(top)) {
                    let found = &part.pixels.values()[row * part.pixels.width() * 3..][columns.start * 3..columns.end * 3];
                    assert_eq!(found, &expected[left * 3..(left + window.width) * 3], "{window:?} {sampling:?}");
                }
            }
        }
    }
}
