//! The run file's anchors to a source of them. Opening pools and models is the caller's.

use std::time::Duration;

use anchorite_anchors::Retriever;
use anchorite_index::PairStore;

use super::{Anchors, RunConfig, RunError};
use crate::data::{
    Reading,
    anchors::{AnchorSource, Drawn, ManifestAnchors, PoolAnchors, ServerAnchors, ServerOptions},
};

/// What is asked for anchors.
pub enum Asked {
    /// The pool of a manifest.
    Manifest(Box<dyn PairStore>),
    /// A pool, while training.
    Pool(Retriever),
    /// A server, while training, with the key it wants.
    Server(Option<String>),
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Manifest(_) => "Manifest",
            Self::Pool(_) => "Pool",
            Self::Server(_) => "Server",
        })
    }
}

/// Where the run's anchors come from.
///
/// # Errors
/// [`RunError::Data`]: manifest, pool, server. [`RunError::Value`]: a policy that only a manifest can carry out.
pub fn anchor_source(
    config: &RunConfig,
    anchors: &Anchors,
    asked: Asked,
    reading: Reading<'_>,
) -> Result<Box<dyn AnchorSource>, RunError> {
    let batch = anchors.batch.unwrap_or(config.batch);
    if !matches!(asked, Asked::Manifest(_)) && !anchors.policy.protect.sets.is_empty() {
        let rule = "is empty where anchors are asked for while training: make a manifest, which leaves protected pictures out";
        return Err(RunError::Value { field: "anchors.policy.protect.sets", rule });
    }
    Ok(match (asked, &anchors.manifest) {
        (Asked::Manifest(store), Some(path)) => {
            let drawn = Drawn { batch, seed: config.seed, max_rejects: config.data.max_rejects };
            Box::new(ManifestAnchors::read(path, &*store, drawn, reading)?)
        }
        (Asked::Manifest(_), None) => {
            return Err(RunError::Value { field: "anchors.manifest", rule: "names the manifest" });
        }
        (Asked::Pool(retriever), _) => Box::new(PoolAnchors::new(retriever, &anchors.policy, config.seed)?),
        (Asked::Server(key), _) => Box::new(ServerAnchors::connect(options(config, anchors, key), reading.cancel)?),
    })
}

fn options(config: &RunConfig, anchors: &Anchors, key: Option<String>) -> ServerOptions {
    ServerOptions {
        url: anchors.server.clone().unwrap_or_default(),
        pool: anchors.server_pool.clone(),
        key,
        policy: anchors.policy.clone(),
        seed: config.seed,
        timeout: Duration::from_secs_f64(anchors.timeout_s),
        retries: anchors.retries,
        follow_generations: anchors.follow_generations,
    }
}
