//! The promises of a pool on disk, one file each: `access` (how files are read), `graph` (what is found), `commit` (what survives), `dead` (rows deleted or replaced),
//! `effort` (recall), `filter` (recall among some), `mend` (damage put back), `merge` (segments joined), `precision` (pools of 7-bit rows), `power` (power cuts and failing calls), `model` (random
//! lives beside a plain list), `readers` (one generation each), `stream` (snapshots as tars), `old` (pools of
//! earlier versions), `corruption` (what damage
//! does).
#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod commit;
mod corruption;
mod dead;
mod effort;
mod filter;
mod graph;
mod medium;
mod mend;
mod merge;
mod model;
mod old;
mod power;
mod precision;
mod readers;
mod segments;
mod stream;
mod support;
