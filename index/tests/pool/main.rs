//! The promises of a pool on disk, one file each: `graph` (what is found), `commit` (what survives), `dead` (rows deleted or replaced),
//! `merge` (segments joined), `power` (power cuts and failing calls), `model` (random lives beside a plain
//! list), `readers` (one generation each), `corruption` (what damage
//! does).
#![expect(clippy::unwrap_used, reason = "tests")]

mod commit;
mod corruption;
mod dead;
mod graph;
mod medium;
mod merge;
mod model;
mod power;
mod readers;
mod support;
