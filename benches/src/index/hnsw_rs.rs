//! hnsw_rs as a peer.

use anyhow::{Context, Result};
use hnsw_rs::prelude::{Distance, Hnsw};
use rayon::prelude::*;

use super::{
    EF_CONSTRUCTION, M,
    data::{Data, Queries},
    dot::dot,
    engine::{Asked, BuildCost, Engine, Spent, built},
};

/// hnsw_rs with its own containers and its own search, and the fastest distance it can be given.
pub(super) struct HnswRs {
    pub(super) index: Option<Hnsw<'static, f32, OneMinusDot>>,
}

impl Engine for HnswRs {
    fn build(&mut self, data: &Data) -> Result<BuildCost> {
        let items: Vec<(&[f32], usize)> = data.base.chunks_exact(data.dim).zip(0..).collect();
        let (index, cost) = built(|| {
            let mut index = Hnsw::new(M, items.len(), 16, EF_CONSTRUCTION, OneMinusDot);
            index.parallel_insert_slice(&items);
            index.set_searching_mode(true);
            Ok(index)
        })?;
        self.index = Some(index);
        Ok(BuildCost { version: "0.3.5".to_owned(), ..cost })
    }

    fn search(&mut self, queries: &Queries, asked: Asked) -> Result<(Vec<Vec<u64>>, Spent)> {
        let index = self.index.as_ref().context("built first")?;
        let threads = rayon::ThreadPoolBuilder::new().num_threads(asked.threads).build()?;
        let all =
            || queries.vectors.par_chunks_exact(queries.dim).map(|q| index.search(q, asked.k, asked.ef)).collect::<Vec<_>>();
        let (found, spent) = Spent::on(|| Ok(threads.install(all)))?;
        Ok((found.into_iter().map(|hits| hits.into_iter().map(|h| h.d_id as u64).collect()).collect(), spent))
    }
}

/// `1 - dot`, never below zero, which hnsw_rs asserts.
#[derive(Clone, Copy, Default)]
pub(super) struct OneMinusDot;

impl Distance<f32> for OneMinusDot {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}
