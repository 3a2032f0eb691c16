//! The graph: built by our inserter or by hnsw_rs, audited and repaired here, searched here over plain slices.
//!
//! | file | what |
//! | --- | --- |
//! | `params` | how a graph is built, with reasons |
//! | `build` | rows to links, through one of two builders, then one path |
//! | `insert` | our own builder |
//! | `refine` | one pass that widens the choice of links |
//! | `cross` | links between what one question of the other side finds |
//! | `duplicates` | equal rows: one goes in, the others hang below it |
//! | `audit` | finds nodes that no search can reach, and gives them a link |
//! | `view` | adjacency and 7-bit rows as slices, from a map or from memory |
//! | `beam`, `visited`, `walk`, `search` | greedy descent and beam search |
//! | `among` | the same over the nodes that may be found |
//! | `all` | every node that may be found, by its sketch |

mod all;
mod among;
mod audit;
mod beam;
mod build;
mod cross;
mod duplicates;
mod insert;
mod params;
mod refine;
mod search;
mod view;
mod visited;
mod walk;

pub(crate) use all::search_all;
pub(crate) use among::{Allowed, search_among};
pub(crate) use beam::Limit;
pub(crate) use build::{BuildJob, Built, build};
pub(crate) use params::Plan;
pub use params::{BuildParams, BuildProgress, Builder, Refine, Threads};
pub(crate) use search::{Outcome, SearchPlan, search, search_many};
pub(crate) use view::{Fault, FaultPart, GraphView, Level, RowsView};
pub(crate) use visited::{Scratch, ScratchPool};
