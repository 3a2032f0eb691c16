//! Rows to links: by our own inserter or through hnsw_rs, then one path for both: refined, audited, repaired.
//!
//! The containers of hnsw_rs are dropped once the links are out. It sees each vector as a slice of one number, the node id, and asks [`RowDistance`] how far two of them are: the rows
//! stay where they are (in a mapped file) and are not copied.

use hnsw_rs::{anndists::dist::Distance, hnsw::Hnsw};
use rayon::prelude::*;

use super::{
    audit,
    cross::link_answers,
    duplicates::Kinds,
    insert,
    params::{BuildProgress, Builder, Plan, Refine, Threads},
    refine::refine,
    view::{GraphView, Level, RowsView},
    walk::Scorer,
};
use crate::{
    Side, StoreError,
    distance::Cpu,
    format::{
        graph::{GraphFacts, MAX_LEVELS, NONE},
        vectors::ZERO,
    },
    quantize::QuantizedQuery,
    sketch::{SketchQuery, Sketches, Z, splitmix},
};

/// Vectors inserted between two looks at the cancel flag.
pub(super) const STEP: usize = 4_096;
/// Vectors inserted one by one before threads come in: hnsw_rs links badly when many threads meet an almost empty graph.
const SEQUENTIAL: usize = 1_000;

/// What to build.
pub(crate) struct BuildJob<'a> {
    pub(crate) side: Side,
    pub(crate) rows: RowsView<'a>,
    pub(crate) nodes: usize,
    /// Values per row, without padding.
    pub(crate) dim: usize,
    /// Rows of the other side, and how many: questions that will be asked are like these.
    pub(crate) asking: Option<(RowsView<'a>, usize)>,
}

/// One upper level of a graph in memory.
pub(crate) struct BuiltLevel {
    pub(crate) nodes: Vec<u32>,
    pub(crate) links: Vec<u32>,
}

/// A graph in memory.
pub(crate) struct Built {
    pub(crate) entry: u32,
    pub(crate) width: usize,
    pub(crate) level0: Vec<u32>,
    pub(crate) upper: Vec<BuiltLevel>,
    pub(crate) facts: GraphFacts,
    pub(crate) sketches: Option<Sketches>,
}

impl Built {
    pub(crate) fn nodes(&self) -> usize {
        self.level0.len() / self.width
    }

    pub(super) fn links(&self, node: u32) -> &[u32] {
        &self.level0[node as usize * self.width..][..self.width]
    }

    pub(crate) fn view(&self, cpu: Cpu) -> GraphView<'_> {
        let mut first = 0;
        let upper = self.upper.iter().map(|level| {
            let view = Level { nodes: &level.nodes, links: &level.links, first };
            first += level.nodes.len();
            view
        });
        let upper = upper.collect();
        let sketches = self.sketches.as_ref().map(|sketches| sketches.view(cpu));
        GraphView { nodes: self.nodes(), entry: self.entry, width: self.width, level0: &self.level0, upper, sketches }
    }
}

/// Half the squared Euclidean distance of two 7-bit rows. For unit vectors that is `1 - cosine`, and unlike it never below
/// zero (hnsw_rs asserts that) and exactly zero for equal rows.
pub(super) struct RowDistance<'a> {
    pub(super) rows: RowsView<'a>,
    sketches: Option<&'a Sketches>,
    facts: Vec<RowFacts>,
}

/// What a distance needs of a row beside its bytes, together in one cache line.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct RowFacts {
    scale: f32,
    /// Half the squared length.
    half: f32,
    /// Sum of `byte - 64`, for the bias of the kernel.
    sum: i32,
}

impl<'a> RowDistance<'a> {
    fn new(rows: RowsView<'a>, nodes: usize, sketches: Option<&'a Sketches>) -> Self {
        let facts = |node: u32| {
            let row = rows.row(node);
            let sum = row.iter().map(|&b| i32::from(b) - i32::from(ZERO)).sum();
            let scale = rows.scales[node as usize];
            let dot = rows.cpu.dot_rows(row, row) - i32::from(ZERO) * sum;
            RowFacts { scale, half: dot as f32 * scale * scale / 2.0, sum }
        };
        Self { rows, sketches, facts: (0..nodes as u32).into_par_iter().map(facts).collect() }
    }

    pub(super) fn between(&self, a: u32, b: u32) -> f32 {
        let (of_a, of_b) = (self.facts[a as usize], self.facts[b as usize]);
        let dot = self.rows.cpu.dot_rows(self.rows.row(a), self.rows.row(b)) - i32::from(ZERO) * of_b.sum;
        (of_a.half + of_b.half - dot as f32 * (of_a.scale * of_b.scale)).max(0.0)
    }
}

/// A row compared with many others: its bias is taken off once. Distances equal those of [`RowDistance::between`].
pub(super) struct RowQuery<'a> {
    pub(super) node: u32,
    of: &'a RowDistance<'a>,
    query: QuantizedQuery,
    sketch: Option<SketchQuery<'a>>,
    facts: RowFacts,
}

impl<'a> RowQuery<'a> {
    pub(super) fn new(of: &'a RowDistance<'a>, node: u32) -> Self {
        let facts = of.facts[node as usize];
        // Bytes are 1 to 127, so the difference fits; padding becomes zero.
        let values: Vec<i8> = of.rows.row(node).iter().map(|&b| b.wrapping_sub(ZERO) as i8).collect();
        let query = QuantizedQuery::of(values, i32::from(ZERO) * facts.sum, facts.scale);
        let sketch = of.sketches.map(|sketches| SketchQuery::new(sketches.view(of.rows.cpu), &query, Z));
        Self { node, of, query, sketch, facts }
    }

    /// Asks for a list of links ahead of its use: two lines at most widths.
    pub(super) fn ask_for<T>(&self, links: &[T]) {
        for place in links.iter().step_by(64 / size_of::<u32>()) {
            self.of.rows.cpu.prefetch_value(place);
        }
    }

    /// A score as what sketches estimate. Half the squared length of the other row is about a half: rows have unit length.
    fn as_product(&self, score: f32) -> f32 {
        (score + self.facts.half + 0.5) / self.facts.scale
    }

    pub(super) fn distance(&self, other: u32) -> f32 {
        let facts = self.of.facts[other as usize];
        let dot = self.of.rows.cpu.dot_query(self.of.rows.row(other), &self.query.values) - self.query.bias;
        (self.facts.half + facts.half - dot as f32 * (self.facts.scale * facts.scale)).max(0.0)
    }
}

/// The negative distance.
impl Scorer for RowQuery<'_> {
    fn sift(&self, nodes: &mut Vec<u32>, floor: f32) {
        if let Some(sketch) = &self.sketch {
            sketch.sift(nodes, self.as_product(floor));
        }
    }

    fn sift_surely(&self, nodes: &mut Vec<u32>, floor: f32) {
        if let Some(sketch) = &self.sketch {
            sketch.sift_surely(nodes, self.as_product(floor));
        }
    }

    fn score(&self, node: u32) -> f32 {
        -self.distance(node)
    }

    fn prefetch_sketch(&self, node: u32) {
        match &self.sketch {
            Some(sketch) => sketch.prefetch(node),
            None => self.prefetch(node),
        }
    }

    fn prefetch(&self, node: u32) {
        self.of.rows.prefetch(node);
        self.of.rows.cpu.prefetch_value(&self.of.facts[node as usize]);
    }
}

impl Distance<u32> for &RowDistance<'_> {
    fn eval(&self, a: &[u32], b: &[u32]) -> f32 {
        self.between(a[0], b[0])
    }
}

/// Builds, audits and repairs the graph of `job`.
pub(crate) fn build(job: &BuildJob<'_>, plan: &Plan) -> Result<Built, StoreError> {
    let sketches = Sketches::of(&job.rows, job.nodes, job.dim);
    let distance = RowDistance::new(job.rows, job.nodes, sketches.as_ref());
    let kinds = Kinds::of(&job.rows, job.nodes);
    let passes = if plan.params.refine == Refine::Off { 1 } else { 2 };
    let total = kinds.first.len() as u64 * passes;
    let report = |done: usize| {
        if let Some(report) = &plan.report {
            report(BuildProgress { side: job.side, done: done as u64, total });
        }
    };
    let mut built = match plan.params.builder {
        Builder::Own => insert::insert_all(&distance, &kinds.first, job.nodes, plan, &report)?,
        Builder::HnswRs => {
            let hnsw = Hnsw::new(plan.params.m, kinds.first.len(), MAX_LEVELS, plan.params.ef_construction, &distance);
            insert_all(&hnsw, &scattered(&kinds.first), plan, &report)?;
            export(&hnsw, job.nodes, plan)
        }
    };
    if plan.params.refine == Refine::Alpha {
        let inserted = kinds.first.len();
        refine(&mut built, &distance, &kinds.first, plan, &|done| report(inserted + done))?;
    }
    built.sketches = sketches;
    if let (Some(asking), Refine::Alpha) = (&job.asking, plan.params.refine) {
        link_answers(&mut built, &job.rows, (&asking.0, asking.1), plan)?;
    }
    built.facts.duplicates = kinds.attach(&mut built);
    built.facts.orphans_repaired = audit::repair(&mut built, &job.rows, &plan.cancel)?;
    built.facts.links = built.level0.iter().filter(|&&link| link != NONE).count() as u64;
    Ok(built)
}

/// The nodes in an order without meaning: near rows lie side by side, and hnsw_rs should not get them cluster by cluster.
fn scattered(nodes: &[u32]) -> Vec<u32> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable_by_key(|node| (splitmix(u64::from(*node)), *node));
    nodes
}

fn insert_all(
    hnsw: &Hnsw<'_, u32, &RowDistance<'_>>,
    ids: &[u32],
    plan: &Plan,
    report: &dyn Fn(usize),
) -> Result<(), StoreError> {
    let mut done = 0;
    while done < ids.len() {
        if plan.cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let sequential = plan.params.threads == Threads::One || done < SEQUENTIAL;
        let end = ids.len().min(done + if done < SEQUENTIAL { SEQUENTIAL } else { STEP });
        let step: Vec<(&[u32], usize)> = (done..end).map(|i| (&ids[i..=i], ids[i] as usize)).collect();
        if sequential {
            step.into_iter().for_each(|item| hnsw.insert_slice(item));
        } else {
            hnsw.parallel_insert_slice(&step);
        }
        done = end;
        report(done);
    }
    Ok(())
}

/// Copies the links out. Links on a level that their target does not have (hnsw_rs pushes some) and links to oneself are
/// dropped, and so is what does not fit the fixed width.
fn export(hnsw: &Hnsw<'_, u32, &RowDistance<'_>>, nodes: usize, plan: &Plan) -> Built {
    let width = plan.params.m * 2;
    let mut level0 = vec![NONE; nodes * width];
    let mut level_of = vec![0u8; nodes];
    let mut upper_links: Vec<(u8, u32, Vec<u32>)> = Vec::new();
    for point in hnsw.get_point_indexation() {
        level_of[point.get_origin_id()] = point.get_point_id().0;
    }
    for point in hnsw.get_point_indexation() {
        let node = point.get_origin_id();
        for (level, neighbours) in point.get_neighborhood_id().iter().enumerate().take(usize::from(level_of[node]) + 1) {
            let mut links: Vec<u32> = Vec::with_capacity(width);
            let fits = |n: &u32| *n as usize != node && usize::from(level_of[*n as usize]) >= level;
            for link in neighbours.iter().map(|n| n.d_id as u32).filter(fits) {
                if !links.contains(&link) {
                    links.push(link);
                }
            }
            if level == 0 {
                links.truncate(width);
                level0[node * width..][..links.len()].copy_from_slice(&links);
            } else {
                links.truncate(plan.params.m);
                upper_links.push((level as u8, node as u32, links));
            }
        }
    }
    let upper = upper_levels(upper_links, plan.params.m);
    let entry = upper.last().and_then(|top| top.nodes.first()).copied().unwrap_or(0);
    let facts =
        GraphFacts { m: plan.params.m as u32, ef_construction: plan.params.ef_construction as u32, ..GraphFacts::default() };
    Built { entry, width, level0, upper, facts, sketches: None }
}

/// Sorts nodes into levels and turns node ids into positions.
pub(super) fn upper_levels(mut links: Vec<(u8, u32, Vec<u32>)>, m: usize) -> Vec<BuiltLevel> {
    links.sort_unstable_by_key(|(level, node, _)| (*level, *node));
    let level = |group: &[(u8, u32, Vec<u32>)]| {
        let nodes: Vec<u32> = group.iter().map(|(_, node, _)| *node).collect();
        let mut positions = vec![NONE; nodes.len() * m];
        for (i, (_, _, targets)) in group.iter().enumerate() {
            let found = targets.iter().filter_map(|target| nodes.binary_search(target).ok());
            for (place, position) in positions[i * m..][..m].iter_mut().zip(found) {
                *place = position as u32;
            }
        }
        BuiltLevel { nodes, links: positions }
    };
    links.chunk_by(|a, b| a.0 == b.0).map(level).collect()
}
