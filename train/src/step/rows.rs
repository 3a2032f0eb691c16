//! The rows of all streams in one sequence, cut into chunks of one size.

use ort::value::{DynValue, Tensor as Value};

use super::graphs::Side;
use super::towers::{Feed, Width};
use super::{InputSizes, Pictures, StreamBatch};

/// Where the rows of one tower come from: pictures that streams own, or captions.
#[derive(Debug)]
pub(super) struct Rows {
    /// Stream and row in it, for each row that is embedded.
    sources: Vec<(usize, usize)>,
    /// For each stream, its first row here.
    pub(super) starts: Vec<usize>,
}

/// Some rows that are run at once; the last chunk is filled up by copies of its last row.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) start: usize,
    /// Rows that count.
    pub(super) real: usize,
    /// Rows that are run.
    pub(super) rows: usize,
}

impl Rows {
    pub(super) fn of(side: Side, streams: &[StreamBatch]) -> Self {
        let (mut sources, mut starts) = (Vec::new(), Vec::<usize>::new());
        for (i, stream) in streams.iter().enumerate() {
            match &stream.pictures {
                Pictures::SameAs(other) if side == Side::Vision => starts.push(starts[*other]),
                _ => {
                    starts.push(sources.len());
                    sources.extend((0..stream.pairs).map(|row| (i, row)));
                }
            }
        }
        Self { sources, starts }
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Chunks of at most `size` rows, or of exactly `fixed` where the graph fixes it.
    pub(super) fn chunks(&self, size: usize, fixed: Option<usize>) -> Vec<Chunk> {
        let rows = fixed.unwrap_or(size.min(self.len())).max(1);
        let chunk = |start: usize| Chunk { start, real: rows.min(self.len() - start), rows };
        (0..self.len()).step_by(rows).map(chunk).collect()
    }

    /// Names of the streams that have rows in a chunk.
    pub(super) fn names(&self, chunk: &Chunk, streams: &[StreamBatch]) -> String {
        let mut names: Vec<&str> =
            self.sources[chunk.start..chunk.start + chunk.real].iter().map(|(i, _)| streams[*i].name.as_str()).collect();
        names.dedup();
        names.join(", ")
    }

    /// What an input is fed for a chunk.
    pub(super) fn feed(&self, feed: Feed, chunk: &Chunk, streams: &[StreamBatch], sizes: InputSizes) -> Result<DynValue, String> {
        let sources: Vec<(usize, usize)> = (0..chunk.rows).map(|i| self.sources[chunk.start + i.min(chunk.real - 1)]).collect();
        let tokens = sizes.tokens;
        let width = |width, values: Vec<i64>| integers(width, [chunk.rows, tokens], values);
        match feed {
            Feed::Pixels => {
                let size = 3 * sizes.height * sizes.width;
                let picture = |(stream, row): &(usize, usize)| match &streams[*stream].pictures {
                    Pictures::Own(values) => &values[row * size..(row + 1) * size],
                    // Only streams that own pictures are among the sources.
                    Pictures::SameAs(_) => &[],
                };
                let values: Vec<f32> = sources.iter().flat_map(picture).copied().collect();
                floats([chunk.rows, 3, sizes.height, sizes.width], values)
            }
            Feed::Ids(w) => {
                let row = |(stream, row): &(usize, usize)| &streams[*stream].tokens[row * tokens..(row + 1) * tokens];
                width(w, sources.iter().flat_map(row).copied().collect())
            }
            Feed::Mask(w) => {
                let row = |(stream, row): &(usize, usize)| match &streams[*stream].mask {
                    Some(mask) => mask[row * tokens..(row + 1) * tokens].to_vec(),
                    None => vec![1; tokens],
                };
                width(w, sources.iter().flat_map(row).collect())
            }
            Feed::Segments(w) => width(w, vec![0; chunk.rows * tokens]),
            Feed::Positions(w) => width(w, (0..chunk.rows).flat_map(|_| 0..tokens as i64).collect()),
        }
    }
}

/// A float tensor that is fed.
pub(super) fn floats<const N: usize>(shape: [usize; N], values: Vec<f32>) -> Result<DynValue, String> {
    let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Value::from_array((shape, values)).map(Value::into_dyn).map_err(|e| e.to_string())
}

fn integers(width: Width, shape: [usize; 2], values: Vec<i64>) -> Result<DynValue, String> {
    let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    let made = match width {
        Width::Wide => Value::from_array((shape, values)).map(Value::into_dyn),
        // Token ids are below the vocabulary's size, which fits.
        Width::Narrow => Value::from_array((shape, values.iter().map(|&v| v as i32).collect::<Vec<i32>>())).map(Value::into_dyn),
    };
    made.map_err(|e| e.to_string())
}
