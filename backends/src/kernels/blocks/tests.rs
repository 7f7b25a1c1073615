//! Products of every layout of blocks, by every kernel, against the values of the goldens' files.

use super::*;
use crate::testing::require;
use bytes::Bytes as Shared;
use secateur_blocks::{BlockType, RowOrder, quantise};

/// A matrix of blocks whose values are random, and the values.
fn matrix(kind: BlockType, rows: usize, columns: usize) -> (Blocks, Vec<f32>) {
    let mut random = 12_345u32;
    let mut byte = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 24) as u8
    };
    let mut bytes = Vec::new();
    // Layouts that nothing writes get random bits, and scales near 1.
    if quantise(kind, &[], &mut bytes).is_some() {
        let values: Vec<f32> = (0..rows * columns).map(|_| f32::from(byte()) / 128.0 - 1.0).collect();
        quantise(kind, &values, &mut bytes).unwrap();
    } else {
        let places: &[usize] = match kind {
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q5K => &[0, 2],
            BlockType::Q2K => &[80, 82],
            BlockType::Q3K => &[108],
            _ => &[0],
        };
        for _ in 0..rows * columns / kind.values() {
            let from = bytes.len();
            bytes.extend((0..kind.bytes()).map(|_| byte()));
            places.iter().for_each(|at| bytes[from + at..][..2].copy_from_slice(&[byte(), 0x20 | (byte() & 0x80)]));
        }
    }
    let blocks = Blocks::new(kind, [rows, columns], RowOrder::Plain, Shared::from(bytes)).unwrap();
    let mut values = vec![0.0; rows * columns];
    values.chunks_exact_mut(columns).enumerate().for_each(|(row, to)| blocks.unpack_row(row, to));
    (blocks, values)
}

/// The largest error of a product, as a share of the sum of the magnitudes of its terms; NaN where one is NaN.
fn worst(found: &[f32], x: &[f32], w: &[f32], [rows, inner, outputs]: [usize; 3]) -> f64 {
    assert_eq!(found.len(), rows * outputs);
    let mut worst = 0.0;
    for (i, found) in found.iter().enumerate() {
        let (x, w) = (&x[i / outputs * inner..][..inner], &w[i % outputs * inner..][..inner]);
        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        let error = (f64::from(*found) - sum).abs() / size.max(f64::MIN_POSITIVE);
        if error > worst || error.is_nan() {
            worst = error;
        }
    }
    worst
}

#[test]
fn every_layout_is_multiplied_by_every_kernel() {
    for kind in BlockType::ALL {
        // Rows that end within a group, a group of rows that is not whole, and sizes that the matrix unit takes.
        for [rows, inner, outputs] in [[1, 512, 37], [3, 768, 32], [6, 256, 70], [20, 512, 37], [40, 1024, 288]] {
            let inner = if kind.values() == 32 { inner + 32 * (rows % 2) } else { inner };
            let (blocks, w) = matrix(kind, outputs, inner);
            let x: Vec<f32> = (0..rows * inner).map(|i| ((i * 7919 % 1013) as f32 - 500.0) / 300.0).collect();
            let sizes = [rows, inner, outputs];
            // The bounds: sums in f32; 8 bits of bf16 in both factors; 7 bits of a run's largest input.
            for (rounding, bound) in [(Rounding::None, 2e-6), (Rounding::Bf16, 4e-3), (Rounding::Int8, 8e-3)] {
                let found = worst(&multiply(&x, &blocks, sizes, rounding), &x, &w, sizes);
                assert!(found < bound, "{kind} {sizes:?} {rounding:?}: {found:e}");
            }
            let (exact, rounded) = (Unpacked::<f32>::new(&blocks), Unpacked::<bf16>::new(&blocks));
            let found = worst(&linear::exact_rows(&x, &exact, sizes), &x, &w, sizes);
            assert!(found < 2e-6, "{kind} {sizes:?} as f32: {found:e}");
            if require("avx512bf16") && rows >= 17 {
                let found = worst(&linear::rounded_rows(&x, &rounded, sizes, None).unwrap(), &x, &w, sizes);
                assert!(found < 4e-3, "{kind} {sizes:?} as bf16: {found:e}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let (blocks, _) = matrix(BlockType::Q4K, 40, 512);
    for rows in [1, 5, 30] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![0.5; rows * 512];
            x[300] = bad;
            for rounding in [Rounding::None, Rounding::Bf16, Rounding::Int8] {
                let found = multiply(&x, &blocks, [rows, 512, 40], rounding);
                assert!(found[..40].iter().all(|x| !x.is_finite()), "{rows} rows, {rounding:?}, {bad}");
                assert!(found[40..].iter().all(|x| x.is_finite()), "{rows} rows, {rounding:?}, {bad}");
            }
        }
    }
}
