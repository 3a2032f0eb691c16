//! Distance kernels: 7-bit rows against a signed query, 7-bit rows against each other, sketches against bit planes, f16 rows
//! against f32 queries.
//!
//! The processor is asked once ([`Cpu::detect`]); every kernel has a safe scalar twin. The integer kernels agree exactly. The
//! f16 kernels sum in one fixed order with fused multiply-add, so that they agree bit for bit too, and an exact search gives
//! the same scores on every machine.
//!
//! Rows are padded to whole 64-byte lines (`format::vectors`), so that no kernel has a tail.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod blocks;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;

/// Values of f32 that one step of the f16 kernels takes.
pub(crate) const F16_STEP: usize = 32;

/// A query against lines of bits, each with two numbers in its last four bytes; what they mean is `sketch`'s business.
#[derive(Clone, Debug)]
pub(crate) struct BitQuery {
    /// Four planes, each as long as a line.
    pub(crate) planes: Vec<u64>,
    pub(crate) base: f32,
    /// Weight of a line's first number.
    pub(crate) share: f32,
    /// Of the planes' dot product, before the line's second number.
    pub(crate) weight: f32,
    /// Beside it.
    pub(crate) offset: f32,
    /// One standard error, beside it too.
    pub(crate) error: f32,
}

impl BitQuery {
    /// From a line and its dot product with the planes; `offset` takes the place of its own.
    #[inline(always)]
    fn bound(&self, line: &[u8], dot: i32, offset: f32) -> f32 {
        let &[.., a, b, c, d] = line else { return f32::INFINITY };
        let (first, second) = (f32::from(i16::from_le_bytes([a, b])), f32::from(i16::from_le_bytes([c, d])));
        self.base + self.share * first + second * (self.weight * dot as f32 + offset)
    }

    /// Keeps the nodes whose bound is above the floor, or no number: damage may cost time, not answers.
    #[inline(always)]
    fn sift(&self, lines: &[u8], nodes: &mut Vec<u32>, Floor { least, errors }: Floor, dot: impl Fn(&[u8], &[u64]) -> i32) {
        let stride = self.planes.len() * 2;
        let offset = self.offset + errors * self.error;
        let mut kept = 0;
        // Kept without a branch: which of them stay is what no processor foretells.
        for at in 0..nodes.len() {
            let node = nodes[at];
            let line = &lines[node as usize * stride..][..stride];
            let out = self.bound(line, dot(line, &self.planes), offset) <= least;
            nodes[kept] = node;
            kept += usize::from(!out);
        }
        nodes.truncate(kept);
    }
}

/// What a node must be able to score.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// More than this,
    pub(crate) least: f32,
    /// if its estimate is taken for this many standard errors too low.
    pub(crate) errors: f32,
}

/// Which kernels this machine runs. Only [`Cpu::detect`] makes the fast ones, so holding one proves the features are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    DotProd,
}

impl Cpu {
    /// The portable kernels.
    #[must_use]
    pub fn scalar() -> Self {
        Self(Kind::Scalar)
    }

    /// The fastest kernels of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::scalar())
    }

    /// All kernels this machine can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut found = vec![Self::scalar()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            found.push(Self(Kind::Avx2));
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512vpopcntdq")
            {
                found.push(Self(Kind::Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            found.push(Self(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                found.push(Self(Kind::DotProd));
            }
        }
        found
    }

    /// What the kernels are called in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::DotProd => "neon-dotprod",
        }
    }

    /// Sum of `row[i] * query[i]`; bytes of `row` are at most 127.
    ///
    /// # Panics
    /// When the lengths differ or are no multiple of 64: rows and queries are padded where they are made.
    #[must_use]
    pub fn dot_query(self, row: &[u8], query: &[i8]) -> i32 {
        assert!(row.len() == query.len() && row.len().is_multiple_of(64), "rows and queries are padded alike");
        match self.0 {
            Kind::Scalar => scalar::dot_query(row, query),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::dot_query_avx2(self, row, query),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => x86::dot_query_vnni(self, row, query),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => neon::dot_query_neon(self, row, query),
            #[cfg(target_arch = "aarch64")]
            Kind::DotProd => neon::dot_query_dotprod(self, row, query),
        }
    }

    /// Sum of `a[i] * (b[i] - 64)`; bytes are at most 127.
    ///
    /// # Panics
    /// When the lengths differ or are no multiple of 64.
    #[must_use]
    pub fn dot_rows(self, a: &[u8], b: &[u8]) -> i32 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(64), "rows are padded alike");
        match self.0 {
            Kind::Scalar => scalar::dot_rows(a, b),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::dot_rows_avx2(self, a, b),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => x86::dot_rows_vnni(self, a, b),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => neon::dot_rows_neon(self, a, b),
            #[cfg(target_arch = "aarch64")]
            Kind::DotProd => neon::dot_rows_dotprod(self, a, b),
        }
    }

    /// Ones that `row` shares with each of four planes of bits, weighted 1, 2, 4 and -8: the dot product of bits with signed
    /// numbers of four bits.
    ///
    /// # Panics
    /// When the row is no multiple of 64 bytes, or the planes are not four times its length.
    #[must_use]
    pub fn dot_bits(self, row: &[u8], planes: &[u64]) -> i32 {
        assert!(row.len().is_multiple_of(64) && planes.len() * 2 == row.len(), "four planes as long as the row");
        match self.0 {
            Kind::Scalar => scalar::dot_bits(row, planes),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::dot_bits_avx2(self, row, planes),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => x86::dot_bits_avx512(self, row, planes),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::dot_bits(self, row, planes),
        }
    }

    /// Leaves out the nodes whose line gives a bound of at most `floor`.
    pub(crate) fn sift(self, lines: &[u8], query: &BitQuery, nodes: &mut Vec<u32>, floor: Floor) {
        assert!(query.planes.len().is_multiple_of(32), "planes are whole lines");
        match self.0 {
            Kind::Scalar => query.sift(lines, nodes, floor, scalar::dot_bits),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => query.sift(lines, nodes, floor, |line, planes| x86::dot_bits_avx2(self, line, planes)),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => x86::sift_avx512(self, lines, query, nodes, floor),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => query.sift(lines, nodes, floor, |line, planes| neon::dot_bits(self, line, planes)),
        }
    }

    /// Dot product of an f16 row with a query.
    ///
    /// # Panics
    /// When the lengths differ or are no multiple of 32.
    #[must_use]
    pub fn dot_f16(self, row: &[f16], query: &[f32]) -> f32 {
        assert!(row.len() == query.len() && row.len().is_multiple_of(F16_STEP), "rows and queries are padded alike");
        match self.0 {
            Kind::Scalar => scalar::dot_f16(row, query),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni => x86::dot_f16(self, row, query),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::dot_f16(self, row, query),
        }
    }

    /// Dot products of one f16 row with four queries, each equal to [`Cpu::dot_f16`]: the row is read and widened once.
    ///
    /// # Panics
    /// As [`Cpu::dot_f16`].
    #[must_use]
    pub fn dot_f16_x4(self, row: &[f16], queries: [&[f32]; 4]) -> [f32; 4] {
        let fits = queries.iter().all(|q| q.len() == row.len());
        assert!(fits && row.len().is_multiple_of(F16_STEP), "rows and queries are padded alike");
        match self.0 {
            Kind::Scalar => queries.map(|q| scalar::dot_f16(row, q)),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni => x86::dot_f16_x4(self, row, queries),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::dot_f16_x4(self, row, queries),
        }
    }

    /// Asks for the line where a value begins.
    pub(crate) fn prefetch_value<T>(self, value: &T) {
        match self.0 {
            Kind::Scalar => {}
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni => x86::prefetch_value(value),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::prefetch_value(value),
        }
    }

    /// Dot products of every row with every query, each equal to [`Cpu::dot_f16`] of the same values:
    /// `out[row * queries + query]`. Rows and queries lie one behind the other, `width` values each, widened before
    /// ([`Cpu::widen`]): for many queries, where the arithmetic is what costs.
    ///
    /// # Panics
    /// When `width` is no multiple of 32, or the lengths do not fit it or `out`.
    pub fn dot_tile(self, rows: &[f32], queries: &[f32], width: usize, out: &mut [f32]) {
        assert!(width.is_multiple_of(F16_STEP) && width > 0, "rows and queries are padded alike");
        assert!(rows.len().is_multiple_of(width) && queries.len().is_multiple_of(width), "whole rows and queries");
        assert!(out.len() == (rows.len() / width) * (queries.len() / width), "one place for each pair");
        match self.0 {
            Kind::Scalar => scalar::dot_tile(rows, queries, width, out),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => tile::avx2(self, rows, queries, (width, out)),
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => tile::avx512(self, rows, queries, (width, out)),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::dot_tile(self, rows, queries, (width, out)),
        }
    }

    /// Copies f16 values as f32.
    ///
    /// # Panics
    /// When the lengths differ or are no multiple of 32.
    pub fn widen(self, from: &[f16], to: &mut [f32]) {
        assert!(from.len() == to.len() && from.len().is_multiple_of(F16_STEP), "rows are padded alike");
        match self.0 {
            Kind::Scalar => to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32()),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni => tile::widen(self, from, to),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::widen(self, from, to),
        }
    }

    /// Asks for a row's cache lines ahead of its use.
    pub(crate) fn prefetch(self, bytes: &[u8]) {
        match self.0 {
            Kind::Scalar => {}
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Vnni => x86::prefetch(bytes),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::DotProd => neon::prefetch(bytes),
        }
    }
}
