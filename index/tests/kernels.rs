//! Every kernel of this machine equals its scalar twin: the integer ones exactly, the f16 ones bit for bit.

use anchorite_index::distance::Cpu;
use half::f16;
use proptest::prelude::*;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn padded<T: Clone>(mut values: Vec<T>, fill: T) -> Vec<T> {
    values.resize(values.len().next_multiple_of(64).max(64), fill);
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn integer_kernels_equal_the_scalar_twin(pairs in prop::collection::vec((0u8..=127, 0u8..=127, -128i8..=127), 1..1100)) {
        let a = padded(pairs.iter().map(|p| p.0).collect(), 64);
        let b = padded(pairs.iter().map(|p| p.1).collect(), 64);
        let query = padded(pairs.iter().map(|p| p.2).collect(), 0);
        for cpu in Cpu::available() {
            prop_assert_eq!(cpu.dot_query(&a, &query), Cpu::scalar().dot_query(&a, &query), "{}", cpu.name());
            prop_assert_eq!(cpu.dot_rows(&a, &b), Cpu::scalar().dot_rows(&a, &b), "{}", cpu.name());
        }
    }

    #[test]
    fn bit_kernels_equal_the_scalar_twin(words in prop::collection::vec(any::<[u64; 5]>(), 1..40)) {
        let lines = words.len().next_multiple_of(8);
        let column = |n: usize| words.iter().map(move |w| w[n]).chain(std::iter::repeat(0)).take(lines);
        let row: Vec<u8> = column(0).flat_map(u64::to_le_bytes).collect();
        let planes: Vec<u64> = (1..5).flat_map(column).collect();
        for cpu in Cpu::available() {
            prop_assert_eq!(cpu.dot_bits(&row, &planes), Cpu::scalar().dot_bits(&row, &planes), "{}", cpu.name());
        }
    }

    #[test]
    fn f16_kernels_equal_the_scalar_twin(bits in prop::collection::vec((0u16..0x7c00, any::<bool>(), -2f32..2.0), 1..1100)) {
        let sign = |negative: bool| if negative { 0x8000 } else { 0 };
        let row = padded(bits.iter().map(|b| f16::from_bits(b.0 | sign(b.1))).collect(), f16::ZERO);
        let query = padded(bits.iter().map(|b| b.2).collect(), 0.0);
        let other: Vec<f32> = query.iter().rev().copied().collect();
        for cpu in Cpu::available() {
            let expected = [Cpu::scalar().dot_f16(&row, &query), Cpu::scalar().dot_f16(&row, &other)];
            prop_assert_eq!(cpu.dot_f16(&row, &query).to_bits(), expected[0].to_bits(), "{}", cpu.name());
            let four = cpu.dot_f16_x4(&row, [&query, &other, &query, &other]);
            let wanted = [expected[0], expected[1], expected[0], expected[1]];
            prop_assert_eq!(four.map(f32::to_bits), wanted.map(f32::to_bits), "{}", cpu.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any numbers of rows and queries: whole register blocks, parts of them, one, none.
    #[test]
    fn the_tile_kernels_equal_single_scores((rows, queries, width, seed) in (0usize..14, 0usize..14, 1usize..5, any::<u64>())) {
        let width = width * 64;
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let stored: Vec<f16> = (0..rows * width).map(|_| f16::from_f32(next())).collect();
        let asked: Vec<f32> = (0..queries * width).map(|_| next()).collect();
        for cpu in Cpu::available() {
            let mut wide = vec![0.0; stored.len()];
            cpu.widen(&stored, &mut wide);
            let mut scores = vec![f32::NAN; rows * queries];
            cpu.dot_tile(&wide, &asked, width, &mut scores);
            for (row, scores) in stored.chunks_exact(width).zip(scores.chunks_exact(queries.max(1))) {
                for (query, score) in asked.chunks_exact(width).zip(scores) {
                    prop_assert_eq!(score.to_bits(), Cpu::scalar().dot_f16(row, query).to_bits(), "{}", cpu.name());
                }
            }
        }
    }
}

/// Pairs in CI; a long run sets ANCHORITE_KERNEL_PAIRS.
const PAIRS: u64 = 100_000;

/// One pair after the other, of every length to 1,100 values, at addresses that no alignment helps, with values of every class of f16
/// that a row may hold: normal, denormal, zero.
#[test]
fn a_hundred_thousand_pairs_give_the_scalar_twins_answers() {
    let pairs = std::env::var("ANCHORITE_KERNEL_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(PAIRS);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let fast: Vec<Cpu> = Cpu::available().into_iter().filter(|cpu| *cpu != Cpu::scalar()).collect();
    let (mut bytes, mut others) = (vec![0u8; 1_300], vec![0u8; 1_300]);
    for pair in 0..pairs {
        rng.fill_bytes(&mut bytes);
        rng.fill_bytes(&mut others);
        let (at, len) = (pair as usize % 64, (pair as usize % 1_100 + 1).next_multiple_of(64));
        let query: Vec<i8> = others[at..at + len].iter().map(|&b| b as i8).collect();
        let halves: Vec<f16> = bytes[..len].iter().zip(&others).map(|(&a, &b)| half_of(a, b)).collect();
        let floats: Vec<f32> = others[..len].iter().map(|&b| f32::from(b) / 100.0 - 1.27).collect();
        bytes.iter_mut().chain(&mut others).for_each(|b| *b &= 127);
        let (row, other) = (&bytes[at..at + len], &others[at..at + len]);
        let scalar = Cpu::scalar();
        let expected = (scalar.dot_query(row, &query), scalar.dot_rows(row, other), scalar.dot_f16(&halves, &floats).to_bits());
        for cpu in &fast {
            let found = (cpu.dot_query(row, &query), cpu.dot_rows(row, other), cpu.dot_f16(&halves, &floats).to_bits());
            assert_eq!(found, expected, "{}, pair {pair}", cpu.name());
        }
    }
}

/// A finite f16 of these bytes: an exponent of all ones, which is no number, loses its lowest bit.
fn half_of(a: u8, b: u8) -> f16 {
    let bits = u16::from_le_bytes([a, b]);
    f16::from_bits(if bits & 0x7c00 == 0x7c00 { bits & !0x0400 } else { bits })
}

#[test]
fn extreme_bytes_do_not_saturate() {
    let a = vec![127u8; 16_384];
    for (query, expected) in [(vec![-128i8; 16_384], -127 * 128 * 16_384), (vec![127i8; 16_384], 127 * 127 * 16_384)] {
        for cpu in Cpu::available() {
            assert_eq!(cpu.dot_query(&a, &query), expected, "{}", cpu.name());
        }
    }
}

/// The tests above pass where no kernel is found but the scalar one.
#[test]
fn the_kernels_of_this_processor_are_found() {
    let found: Vec<&str> = Cpu::available().into_iter().map(Cpu::name).collect();
    #[cfg(target_arch = "x86_64")]
    let expected = [
        is_x86_feature_detected!("avx2").then_some("avx2"),
        (is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vpopcntdq")).then_some("avx512-vnni"),
    ]
    .into_iter()
    .flatten();
    #[cfg(target_arch = "aarch64")]
    let expected =
        [Some("neon"), std::arch::is_aarch64_feature_detected!("dotprod").then_some("neon-dotprod")].into_iter().flatten();
    for name in expected {
        assert!(found.contains(&name), "{name} is not among {found:?}");
    }
}
