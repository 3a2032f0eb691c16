//! Bytes to structs and back: no files, no unsafe, nothing allocated by the word of a length field. `FORMAT.md` beside the
//! crate describes every byte.
//!
//! | file | what |
//! | --- | --- |
//! | `bytes` | little-endian fields with checked lengths, and [`bytes::Damage`] |
//! | `header` | the first 512 bytes of every segment file |
//! | `manifest` | the file that names the live segments |
//! | `vectors` | f16 rows, 7-bit rows, scales, row numbers |
//! | `graph` | adjacency |
//! | `effort` | beam widths that keep each effort's promise |
//! | `sketches` | one bit per value, beside the adjacency |
//! | `pairs` | records |
//! | `dead` | deleted and replaced rows |

pub mod bytes;
pub mod dead;
pub mod effort;
pub mod graph;
pub mod header;
pub mod manifest;
pub mod pairs;
pub mod sketches;
pub mod vectors;
