//! The whole path from bytes to [`Pixels`] as one value, made from a model folder's own file.

use super::{
    Filter, Geometry, ImageLimits, Rgb, decode,
    resample::{Axis, resize_window},
};
use crate::{ImageError, Pixels};

/// A part of a picture, in its own pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// How a model wants its pictures.
///
/// ```
/// # use anchorite_encoder::image::Preprocess;
/// let preprocess = Preprocess::from_open_clip_json(r#"{"size": 224, "interpolation": "bicubic", "resize_mode": "shortest"}"#)?;
/// assert_eq!(preprocess.geometry().output(), (224, 224));
/// # Ok::<(), anchorite_encoder::image::PreprocessError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    geometry: Geometry,
    filter: Filter,
    levels: Levels,
    limits: ImageLimits,
}

impl Preprocess {
    pub(super) fn new(geometry: Geometry, filter: Filter, levels: Levels) -> Self {
        Self { geometry, filter, levels, limits: ImageLimits::default() }
    }

    /// The same with other limits than [`ImageLimits::default`].
    #[must_use]
    pub fn with_limits(self, limits: ImageLimits) -> Self {
        Self { limits, ..self }
    }

    /// What a picture may cost.
    #[must_use]
    pub fn limits(&self) -> &ImageLimits {
        &self.limits
    }

    /// How sizes change; [`Geometry::output`] is the size of everything that comes out.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How pixels are resampled.
    #[must_use]
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// Decodes, resizes, cuts and normalises one picture.
    ///
    /// # Errors
    /// [`ImageError`], from [`decode`]; the steps after it cannot fail.
    pub fn apply(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        let crop = self.crop_u8(bytes)?;
        Ok(Pixels { values: self.levels.normalise(crop.values()), height: crop.height(), width: crop.width() })
    }

    /// [`Preprocess::apply`] up to the point before normalisation: what the tower sees, as levels. For comparison with the reference.
    ///
    /// # Errors
    /// [`ImageError`], from [`decode`].
    pub fn crop_u8(&self, bytes: &[u8]) -> Result<Rgb, ImageError> {
        Ok(self.crop(&decode(bytes, &self.limits)?))
    }

    /// As [`Preprocess::apply`], but of the part that `choose` names for a picture of so many rows and columns: it is cut out and
    /// resized to the output whatever its shape, as torchvision's `resized_crop` does. A window that leaves the picture is cut to it.
    ///
    /// # Errors
    /// [`ImageError`], from [`decode`].
    pub fn apply_window(&self, bytes: &[u8], choose: impl FnOnce(usize, usize) -> Window) -> Result<Pixels, ImageError> {
        let picture = decode(bytes, &self.limits)?;
        let part = cut(&picture, choose(picture.height(), picture.width()));
        let (height, width) = self.geometry.output();
        let axis = |from, to| Axis { from, to, start: 0, len: to };
        let levels = resize_window(&part, self.filter, axis(part.width(), width), axis(part.height(), height));
        Ok(Pixels { values: self.levels.normalise(&levels), height, width })
    }

    /// Resizes and cuts a decoded picture.
    #[must_use]
    pub fn crop(&self, picture: &Rgb) -> Rgb {
        let (rows, columns) = self.geometry.place(picture.height(), picture.width());
        let window = resize_window(picture, self.filter, columns.axis, rows.axis);
        let values = if (rows.axis.len, columns.axis.len) == (rows.out, columns.out) {
            window
        } else {
            let mut bordered = vec![self.geometry.fill(); rows.out * columns.out * 3];
            let inner = window.chunks_exact(columns.axis.len * 3);
            for (row, output) in inner.zip(bordered.chunks_exact_mut(columns.out * 3).skip(rows.before)) {
                output[columns.before * 3..][..row.len()].copy_from_slice(row);
            }
            bordered
        };
        Rgb::new(values, columns.out, rows.out).expect("the window and its border fill the output, whose sides are not zero")
    }
}

/// The window's pixels, at least one of them.
fn cut(picture: &Rgb, window: Window) -> Rgb {
    let top = window.top.min(picture.height() - 1);
    let left = window.left.min(picture.width() - 1);
    let height = window.height.clamp(1, picture.height() - top);
    let width = window.width.clamp(1, picture.width() - left);
    let rows = picture.values().chunks_exact(picture.width() * 3).skip(top).take(height);
    let values = rows.flat_map(|row| &row[left * 3..(left + width) * 3]).copied().collect();
    Rgb::new(values, width, height).expect("the window lies inside the picture and is not empty")
}

/// What each of the 256 levels becomes, per channel: tabulated, so that the order of operations is the reference's and costs nothing.
#[derive(Clone, PartialEq)]
pub(super) struct Levels([[f32; 256]; 3]);

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = self.0.map(|table| (table[0], table[255]));
        f.debug_tuple("Levels").field(&ends).finish()
    }
}

/// How a level becomes a number before normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Divided by 255 in f32, as torchvision's `ToTensor` does.
    ToTensor,
    /// Multiplied in f64 and rounded to f32, as Hugging Face does.
    Factor(f64),
    /// Kept.
    None,
}

impl Levels {
    /// Scales, then subtracts and divides in f32 as torchvision's `Normalize` does.
    pub(super) fn new(scale: Scale, mean: [f64; 3], std: [f64; 3]) -> Self {
        let mut tables = [[0.0; 256]; 3];
        for ((table, mean), std) in tables.iter_mut().zip(mean).zip(std) {
            for (level, value) in (0_u8..=255).zip(table.iter_mut()) {
                *value = (scale.apply(level) - mean as f32) / std as f32;
            }
        }
        Self(tables)
    }

    fn normalise(&self, levels: &[u8]) -> Vec<f32> {
        let pixels = levels.as_chunks::<3>().0;
        let mut values = Vec::with_capacity(levels.len());
        for (channel, table) in self.0.iter().enumerate() {
            values.extend(pixels.iter().map(|pixel| table[usize::from(pixel[channel])]));
        }
        values
    }
}

impl Scale {
    fn apply(self, level: u8) -> f32 {
        match self {
            Self::ToTensor => f32::from(level) / 255.0,
            Self::Factor(factor) => (f64::from(level) * factor) as f32,
            Self::None => f32::from(level),
        }
    }
}
