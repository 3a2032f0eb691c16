//! Every kernel of this machine equals its scalar twin: the integer ones exactly, the f16 ones bit for bit.

use anchorite_index::distance::Cpu;
use half::f16;
use proptest::prelude::*;

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

/// Rounds over all lengths: 91 here, 100,100 pairs; a long run sets ANCHORITE_KERNEL_ROUNDS.
fn rounds() -> u64 {
    std::env::var("ANCHORITE_KERNEL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(91)
}

/// Every length up to 1,100, from a place that no vector register is aligned to, with denormal numbers among the f16.
#[test]
fn every_length_from_an_odd_place_equals_the_scalar_twin() {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    const NUMBERS: usize = 16_384;
    let levels: Vec<u8> = (0..NUMBERS).map(|_| (next() & 127) as u8).collect();
    let signed: Vec<i8> = (0..NUMBERS).map(|_| next() as i8).collect();
    // Exponents 0 (denormal) to 30 of either sign; no infinity, no NaN.
    let halves: Vec<f16> = (0..NUMBERS).map(|_| f16::from_bits((next() & 0x83ff | (next() % 31) << 10) as u16)).collect();
    let floats: Vec<f32> = (0..NUMBERS).map(|_| next() as f32 / (1u64 << 31) as f32 - 1.0).collect();
    for round in 0..rounds() {
        for len in 1..=1_100usize {
            let mut window = || {
                let at = next() as usize % (NUMBERS - len);
                at..at + len
            };
            let (a, b) = (window(), window());
            let (row, query) = (odd(&levels[a.clone()], 64), odd(&signed[b.clone()], 0));
            let (other, half, float) = (odd(&levels[b.clone()], 64), odd(&halves[a], f16::ZERO), odd(&floats[b], 0.0));
            let of = |cpu: Cpu| {
                let f16 = cpu.dot_f16(&half[1..], &float[1..]).to_bits();
                (cpu.dot_query(&row[1..], &query[1..]), cpu.dot_rows(&row[1..], &other[1..]), f16)
            };
            let expected = of(Cpu::scalar());
            for cpu in Cpu::available() {
                assert_eq!(of(cpu), expected, "{}, round {round}, length {len}", cpu.name());
            }
        }
    }
}

/// One value, then the window, filled up to whole lines: from the second value on it is a row as kernels get them.
fn odd<T: Copy>(window: &[T], fill: T) -> Vec<T> {
    let mut values = vec![fill; 1 + window.len().next_multiple_of(64)];
    values[1..=window.len()].copy_from_slice(window);
    values
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

/// Whether the system names all of these features of the processor.
#[cfg(target_arch = "x86_64")]
fn has(features: &[&str]) -> bool {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags: Vec<&str> = told.lines().find(|line| line.starts_with("flags")).unwrap_or_default().split_whitespace().collect();
    features.iter().all(|feature| flags.contains(feature))
}

/// The tests above pass where no kernel is found but the scalar one.
#[test]
fn the_kernels_of_this_processor_are_found() {
    let found: Vec<&str> = Cpu::available().into_iter().map(Cpu::name).collect();
    #[cfg(target_arch = "x86_64")]
    let wide = ["avx512f", "avx512bw", "avx512_vnni", "avx512_vpopcntdq"];
    #[cfg(target_arch = "x86_64")]
    let expected =
        [is_x86_feature_detected!("avx2").then_some("avx2"), has(&wide).then_some("avx512-vnni")].into_iter().flatten();
    #[cfg(target_arch = "aarch64")]
    let expected =
        [Some("neon"), std::arch::is_aarch64_feature_detected!("dotprod").then_some("neon-dotprod")].into_iter().flatten();
    for name in expected {
        assert!(found.contains(&name), "{name} is not among {found:?}");
    }
}
