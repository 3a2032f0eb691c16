//! Results as pages: one HTML file that holds everything it shows.
//!
//! ```text
//!   RUN folders ──read──► RunFolder (evaluation, curve, metrics, settings) ──┐
//!   manifest, pool, task pictures ──(caller)──► Gallery ────────────────────┴──► Page ──► one file
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `html` | escaping, tables, the page |
//! | `svg` | charts |
//! | `gallery` | task pictures beside their anchors, as data URIs, bounded |
//! | `anchors` | a manifest: scores, reasons, classes, styles, gallery |
//! | `run` | what a run's folder holds: [`RunFolder`] |
//! | `compose` | runs to sections of a page |
//!
//! Not here: opening pools and models. What holds: no byte comes from elsewhere (no script, no link to a file); text from data is escaped; the
//! page's size is bounded by [`ReportLimits`].

mod anchors;
mod compose;
mod gallery;
pub mod html;
mod run;
pub mod svg;

pub use anchors::{AnchorsView, anchors_page};
pub use compose::{evaluation_page, report};
pub use gallery::{Gallery, Shown, Task};
pub use run::{ReportError, RunFolder};

/// Bounds of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLimits {
    /// Bytes of one picture. Default 64 KiB; larger ones are counted instead of shown.
    pub max_picture_bytes: usize,
    /// Bytes of all pictures together. Default 8 MiB, so that a page can be sent by mail.
    pub max_pictures_bytes: usize,
    /// Points of one training curve; longer ones are thinned evenly. Default 400.
    pub max_curve_points: usize,
    /// Bytes of one file of settings or metrics that is read. Default 256 MiB.
    pub max_file_bytes: u64,
}

impl Default for ReportLimits {
    fn default() -> Self {
        Self { max_picture_bytes: 64 << 10, max_pictures_bytes: 8 << 20, max_curve_points: 400, max_file_bytes: 256 << 20 }
    }
}
