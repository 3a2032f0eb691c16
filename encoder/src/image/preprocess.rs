//! The whole path from bytes to [`Pixels`] as one value, made from a model folder's own file.

use super::{
    Filter, Geometry, ImageLimits, Part, Rgb, decode_part,
    geometry::Placed,
    resample::{Axis, Resize},
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
    /// [`ImageError`], from [`decode`](super::decode); the steps after it cannot fail.
    pub fn apply(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        let crop = self.crop_u8(bytes)?;
        Ok(Pixels { values: self.levels.normalise(crop.values()), height: crop.height(), width: crop.width() })
    }

    /// [`Preprocess::apply`] up to the point before normalisation: what the tower sees, as levels. For comparison with the reference.
    ///
    /// # Errors
    /// [`ImageError`], from [`decode`](super::decode).
    pub fn crop_u8(&self, bytes: &[u8]) -> Result<Rgb, ImageError> {
        let plan = |rows, columns| {
            let plan = Plan::new(self, rows, columns);
            (plan.resize.reads(), plan)
        };
        let (part, plan) = decode_part(bytes, &self.limits, plan)?;
        Ok(plan.run(&part))
    }

    /// As [`Preprocess::apply`], but of the part that `choose` names for a picture of so many rows and columns: it is cut out and
    /// resized to the output whatever its shape, as torchvision's `resized_crop` does. A window that leaves the picture is cut to it.
    ///
    /// # Errors
    /// [`ImageError`], from [`decode`](super::decode).
    pub fn apply_window(&self, bytes: &[u8], choose: impl FnOnce(usize, usize) -> Window) -> Result<Pixels, ImageError> {
        let inside = |rows, columns| {
            let window = choose(rows, columns).inside(rows, columns);
            (window, window)
        };
        let (part, window) = decode_part(bytes, &self.limits, inside)?;
        let part = Part::whole(cut(&part, window));
        let (height, width) = self.geometry.output();
        let axis = |from, to| Axis { from, to, start: 0, len: to };
        let levels = Resize::new(self.filter, axis(window.width, width), axis(window.height, height)).run(&part);
        Ok(Pixels { values: self.levels.normalise(&levels), height, width })
    }

    /// Resizes and cuts a decoded picture.
    #[must_use]
    pub fn crop(&self, picture: &Rgb) -> Rgb {
        Plan::new(self, picture.height(), picture.width()).run(&Part::whole(picture.clone()))
    }
}

impl Window {
    /// What of it lies in a picture, at least one pixel.
    fn inside(self, rows: usize, columns: usize) -> Self {
        let (top, left) = (self.top.min(rows - 1), self.left.min(columns - 1));
        Self { top, left, height: self.height.clamp(1, rows - top), width: self.width.clamp(1, columns - left) }
    }
}

/// What becomes of a picture of a certain size.
struct Plan {
    rows: Placed,
    columns: Placed,
    resize: Resize,
    fill: u8,
}

impl Plan {
    fn new(preprocess: &Preprocess, rows: usize, columns: usize) -> Self {
        let (rows, columns) = preprocess.geometry.place(rows, columns);
        let resize = Resize::new(preprocess.filter, columns.axis, rows.axis);
        Self { rows, columns, resize, fill: preprocess.geometry.fill() }
    }

    fn run(self, part: &Part) -> Rgb {
        let Self { rows, columns, resize, fill } = self;
        let window = resize.run(part);
        let values = if (rows.axis.len, columns.axis.len) == (rows.out, columns.out) {
            window
        } else {
            let mut bordered = vec![fill; rows.out * columns.out * 3];
            let inner = window.chunks_exact(columns.axis.len * 3);
            for (row, output) in inner.zip(bordered.chunks_exact_mut(columns.out * 3).skip(rows.before)) {
                output[columns.before * 3..][..row.len()].copy_from_slice(row);
            }
            bordered
        };
        Rgb::new(values, columns.out, rows.out).expect("the window and its border fill the output, whose sides are not zero")
    }
}

/// The window's pixels, from a part that holds them.
fn cut(part: &Part, window: Window) -> Rgb {
    let (picture, left) = (&part.pixels, window.left - part.left);
    let rows = picture.values().chunks_exact(picture.width() * 3).skip(window.top - part.top).take(window.height);
    let values = rows.flat_map(|row| &row[left * 3..(left + window.width) * 3]).copied().collect();
    Rgb::new(values, window.width, window.height).expect("the window lies inside the picture and is not empty")
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
