//! The promises of a pool on disk, one file each: `graph` (what is found), `commit` (what survives), `dead` (rows deleted or replaced),
//! `merge` (segments joined), `corruption` (what damage
//! does).
#![expect(clippy::unwrap_used, reason = "tests")]

mod commit;
mod corruption;
mod dead;
mod graph;
mod merge;
mod support;
