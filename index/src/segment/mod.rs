//! One segment: the immutable files of one commit.
//!
//! | file | what |
//! | --- | --- |
//! | `files` | each file kind, mapped, its header checked, its sections as typed slices |
//! | `reader` | records and hits of one segment |
//! | `writer` | pairs in, files out |
//! | `check` | every checksum and every value |

mod check;
mod files;
mod reader;
mod writer;

pub(crate) use check::check_file;
pub(crate) use reader::{PreparedQuery, Segment, SegmentAnswer, exact};
pub(crate) use writer::{Pending, Sealed};
