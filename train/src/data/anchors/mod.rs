//! Anchors of a batch: pairs that keep what the model knew.
//!
//! | file | from |
//! |---|---|
//! | `manifest` | a manifest, its pairs read from the pool once |
//! | `pool` | a pool in this process, asked by the policy while training |
//! | `server` | a server, asked over HTTP while training |

mod manifest;
mod pool;
mod server;

use anchorite_index::Cancel;

pub use manifest::{Drawn, ManifestAnchors};
pub use pool::PoolAnchors;
pub use server::{ServerAnchors, ServerOptions};

use super::DataError;

/// A picture and its caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorPair {
    /// Encoded picture.
    pub picture: Vec<u8>,
    /// Its caption.
    pub caption: String,
}

/// A row of the finetune set that anchors are wanted for.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Its number.
    pub row: usize,
    /// Encoded picture.
    pub picture: &'a [u8],
    /// Its class.
    pub class: Option<String>,
    /// Its caption.
    pub caption: Option<&'a str>,
}

/// Which anchors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The batch's number, counted from 0 over the whole run.
    pub number: u64,
    /// The pass over the finetune set it belongs to.
    pub epoch: u64,
    /// How many, at least 2.
    pub count: usize,
}

/// Where anchors come from. For implementers: a batch is a function of what is wanted, the queries and what the source holds, whichever
/// thread asks and in whatever order.
pub trait AnchorSource: Send + Sync + std::fmt::Debug {
    /// Exactly as many anchors as wanted; with too few different ones some come twice.
    ///
    /// # Errors
    /// [`DataError`].
    fn batch(&self, wanted: Wanted, queries: &[Query<'_>], cancel: &Cancel) -> Result<Vec<AnchorPair>, DataError>;

    /// What the choice depends on besides the generation: a hash, or pool and policy.
    fn fingerprint(&self) -> String;

    /// The generation of what is asked while training, if a run may not go on with another. Default none: nothing is asked.
    fn generation(&self) -> Option<u64> {
        None
    }

    /// For people: what it is and how much it has.
    fn describe(&self) -> String;
}

/// Exactly `count` of the found ones, drawn by `draw`; one comes again only when all have come.
pub(crate) fn fill(found: &[AnchorPair], count: usize, draw: &mut super::Draw) -> Vec<AnchorPair> {
    let order = draw.order(found.len());
    order.iter().cycle().take(count).map(|&i| found[i as usize].clone()).collect()
}
