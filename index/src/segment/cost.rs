//! Which way to a query's hits costs least on one segment, by estimate.
//!
//! ```text
//!   rows that may be found, rows there, beam width ──► nanoseconds of each way ──► the least: graph, sketches, or every row
//! ```
//!
//! The unit prices are those of one thread on 100,000 rows of 512 values (`benches -- filters`). What matters is their ratio, which is about
//! the same on other machines: all of them wait for memory.

/// How the hits of one query are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a beam of this width over the graph.
    Graph(usize),
    /// By the sketch of every row that may be found, with a beam of this width.
    Sketches(usize),
    /// Every row that may be found compared.
    Rows,
}

/// What a segment is to one query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terrain {
    /// Vectors there.
    pub(super) nodes: usize,
    /// Those that may be found.
    pub(super) allowed: usize,
    /// Whether rows have sketches.
    pub(super) sketched: bool,
}

/// Rows that are compared one by one rather than looked for: a beam that walks around others has its lowest recall when so few are
/// strewn over a large graph, and preparing a query for sketches takes as long as comparing 100.
const FEW_SKETCHED: usize = 100;
/// The same without sketches, where the other choice is the graph.
const FEW: usize = 2_000;
/// Most hits that sketches are asked for: a beam is a sorted list, and each insertion moves half of it.
const MOST_HITS: usize = 256;
/// Narrowest beam over sketches: its floor decides which rows are compared.
const LEAST_SKETCH_BEAM: usize = 64;

/// Preparing a query, descending, scoring the best again.
const GRAPH_START: f64 = 10_000.0;
/// A slot of a beam where all rows, or nearly all, may be found.
const SLOT: f64 = 1_400.0;
/// How much a slot costs more with each halving of what may be found: links of rows that may not be found are followed unseen.
const SLOT_PER_HALVING: f64 = 0.6;
const SKETCHES_START: f64 = 12_000.0;
/// A row looked at by its sketch. Measured: 15 us for 100 rows, 48 for 1,000, 97 for 3,000, 226 for 10,000, 407 for 20,000, 880 for 50,000.
const SKETCH: f64 = 16.0;
/// What each of the first rows costs more: as long as the floor is low, many are compared.
const FIRST: f64 = 10.0;
/// How many those are.
const FIRST_ROWS: usize = 3_000;

impl Terrain {
    /// Whether so many rows may not be found that a search is one of the others around them: a tenth or more.
    pub(super) fn is_sparse(self) -> bool {
        self.allowed < self.nodes / 10 * 9
    }

    /// The cheapest way to `k` hits, where the graph needs a beam of `ef`; 0 where it has none that would do.
    pub(super) fn way(self, ef: usize, k: usize) -> Way {
        if !self.sketched || k > MOST_HITS {
            return if ef > 0 && self.beats_rows(ef) { Way::Graph(ef) } else { Way::Rows };
        }
        if self.allowed <= FEW_SKETCHED {
            return Way::Rows;
        }
        let beam = k.saturating_mul(2).max(LEAST_SKETCH_BEAM);
        if ef > 0 && self.graph(ef) < self.sketches() { Way::Graph(ef) } else { Way::Sketches(beam) }
    }

    fn graph(self, ef: usize) -> f64 {
        let halvings = if self.is_sparse() { (self.nodes as f64 / self.allowed as f64).log2() } else { 0.0 };
        GRAPH_START + ef as f64 * SLOT * (1.0 + SLOT_PER_HALVING * halvings)
    }

    fn sketches(self) -> f64 {
        SKETCHES_START + self.allowed as f64 * SKETCH + self.allowed.min(FIRST_ROWS) as f64 * FIRST
    }

    /// Without sketches: a beam costs as much as four rows a slot when all may be found, and twelve when it walks around others.
    fn beats_rows(self, ef: usize) -> bool {
        if self.is_sparse() { self.allowed > FEW.max(ef.saturating_mul(12)) } else { self.allowed > ef.saturating_mul(4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(nodes: usize, allowed: usize, ef: usize) -> Way {
        Terrain { nodes, allowed, sketched: true }.way(ef, 10)
    }

    #[test]
    fn whole_pools_go_by_the_graph_and_small_ones_by_sketches() {
        assert_eq!(way(100_000, 100_000, 64), Way::Graph(64));
        assert_eq!(way(1_250, 1_250, 24), Way::Graph(24));
        assert_eq!(way(1_250, 1_250, 64), Way::Sketches(64));
        assert_eq!(way(50, 50, 24), Way::Rows);
    }

    #[test]
    fn the_rarer_the_match_and_the_wider_the_beam_the_sooner_sketches_win() {
        assert_eq!(way(100_000, 10_000, 256), Way::Sketches(64));
        assert_eq!(way(10_000_000, 5_000_000, 256), Way::Graph(256));
        assert_eq!(way(10_000_000, 1_000, 256), Way::Sketches(64));
    }

    #[test]
    fn a_graph_without_a_beam_that_would_do_is_not_searched() {
        assert_eq!(way(10_000_000, 10_000_000, 0), Way::Sketches(64));
        assert_eq!(Terrain { nodes: 900, allowed: 900, sketched: false }.way(0, 10), Way::Rows);
    }
}
