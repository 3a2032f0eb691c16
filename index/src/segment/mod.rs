//! One segment: the immutable files of one commit.
//!
//! | file | what |
//! | --- | --- |
//! | `files` | each file kind, mapped, its header checked, its sections as typed slices |
//! | `vectors` | the vectors of one side, mapped: what is searched, and what scores are computed from |
//! | `reader` | records of one segment |
//! | `hits`, `scan` | hits: by the graph of one segment; by comparing every row, of several |
//! | `select` | which rows, and which nodes, a filtered search may find |
//! | `calibrate` | which beam width keeps each effort's promise on a new graph |
//! | `writer` | pairs in, files out |
//! | `copy` | rows one by one, for merging |
//! | `dead` | which rows are dead |
//! | `mend` | damaged vectors files put back from what is sound |
//! | `check` | every checksum and every value |

mod calibrate;
mod check;
mod copy;
mod dead;
mod files;
mod hits;
mod mend;
mod order;
mod reader;
mod scan;
mod select;
mod vectors;
mod writer;

pub(crate) use check::check_file;
pub(crate) use copy::Source;
pub(crate) use dead::RowsBySegment;
pub(crate) use hits::{Beam, PreparedQuery, SegmentAnswer};
pub(crate) use mend::mend_vectors;
pub(crate) use reader::Segment;
pub(crate) use scan::exact;
pub(crate) use select::Selection;
pub(crate) use writer::{Pending, Sealed, Shape, build_graph};
