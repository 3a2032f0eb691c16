//! How many rows against many queries are cut into register blocks, whatever registers there are: the loops around the kernels of
//! `tile` and `neon`.

/// Rows, queries, values of each.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: *const f32,
    pub(super) queries: *const f32,
    pub(super) width: usize,
}

/// One register block: the scores of `R` rows and `Q` queries.
pub(super) type Block<const R: usize, const Q: usize> = [[f32; Q]; R];

/// Covers all rows and queries by blocks of `R x Q`, and what is left by rows and queries alone. `block(row, query, (whole rows,
/// whole queries))` computes one. The few queries of a block stay in the nearest cache while all rows pass by them: of the two they are
/// the more, and what passes comes from the second cache.
pub(super) fn blocks<const R: usize, const Q: usize>(
    (rows, queries): (usize, usize),
    out: &mut [f32],
    block: &impl Fn(usize, usize, (bool, bool)) -> Block<R, Q>,
) {
    let mut query = 0;
    while query < queries {
        let many_queries = query + Q <= queries;
        let breadth = if many_queries { Q } else { 1 };
        let mut row = 0;
        while row < rows {
            let many_rows = row + R <= rows;
            let height = if many_rows { R } else { 1 };
            let scores = block(row, query, (many_rows, many_queries));
            for (i, line) in scores.iter().enumerate().take(height) {
                out[(row + i) * queries + query..][..breadth].copy_from_slice(&line[..breadth]);
            }
            row += height;
        }
        query += breadth;
    }
}

/// A smaller block in the place of a whole one.
#[inline(always)]
pub(super) fn pad<const R: usize, const Q: usize, const SR: usize, const SQ: usize>(small: Block<SR, SQ>) -> Block<R, Q> {
    let mut out = [[0.0; Q]; R];
    for (line, from) in out.iter_mut().zip(&small) {
        line[..SQ].copy_from_slice(from);
    }
    out
}
