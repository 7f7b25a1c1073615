//! `x · Wᵀ` for bf16 `W` `[out, in]` with `x` rounded to bf16 too, summed in f32: what GPUs do with bf16 activations, by the
//! processor's own instructions for it, in the layout of the file.

#[cfg(target_arch = "x86_64")]
mod dots;

use half::bf16;

/// The bits of `x` as bf16, to nearest even: [`bf16::from_f32`] without branches, which the compiler turns into vectors.
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // What is no number stays so, whatever rounding made of it.
    let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    (bits >> 16) as u16
}

/// The product, `[rows, outputs]`, of `x` rounded to nearest even; `None` where the processor lacks the instructions, or the sizes
/// are no multiples of their widths.
pub(crate) fn product(x: &[f32], weight: &[bf16], sizes: [usize; 3]) -> Option<Vec<f32>> {
    PRODUCTS.iter().find_map(|product| product(x, weight, sizes))
}

type Product = fn(&[f32], &[bf16], [usize; 3]) -> Option<Vec<f32>>;

/// The fastest first.
const PRODUCTS: &[Product] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    super::amx::rounded::product,
    #[cfg(target_arch = "x86_64")]
    super::panels::pairs::product,
    #[cfg(target_arch = "x86_64")]
    dots::product,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::require;

    /// The instructions of each way, the way, and the sizes that it takes.
    type Way = (&'static str, Product, fn([usize; 3]) -> bool);
    const WAYS: &[Way] = &[
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        ("amx", super::super::amx::rounded::product, |[rows, inner, outputs]| {
            rows > 1 && inner % 32 == 0 && outputs % 32 == 0
        }),
        #[cfg(target_arch = "x86_64")]
        ("avx512bf16", super::super::panels::pairs::product, |[rows, inner, _]| rows >= 17 && inner % 2 == 0),
        #[cfg(target_arch = "x86_64")]
        ("avx512bf16", dots::product, |[_, inner, _]| inner % 32 == 0),
    ];

    /// Numbers with few bits, whose products and sums f32 holds: any order of summing gives the same.
    #[test]
    fn every_way_equals_sums_in_f64() {
        for sizes in [
            [1, 32, 1],
            [4, 64, 6],
            [7, 96, 13],
            [130, 4096, 25],
            [9, 11_008, 14],
            [50, 2080, 64],
            [16, 64, 32],
            [33, 4096, 96],
            [70, 4128, 160],
            [40, 8288, 1056],
            [300, 4096, 224],
            [258, 2144, 416],
            // Rows that fill no tile, an odd number of pairs, outputs that fill no group.
            [17, 30, 25],
            [89, 1_030, 50],
        ] {
            let [rows, inner, outputs] = sizes;
            let number = |i: usize| bf16::from_f32((i * 7919 % 33) as f32 / 16.0 - 1.0);
            let x: Vec<f32> = (0..rows * inner).map(|i| number(i).to_f32()).collect();
            let weight: Vec<bf16> = (0..outputs * inner).map(|i| number(3 * i + 1)).collect();
            for (path, product, fits) in WAYS.iter().filter(|way| require(way.0)) {
                let found = product(&x, &weight, sizes);
                assert_eq!(found.is_some(), fits(sizes), "{path} {sizes:?}");
                let Some(found) = found else { continue };
                assert_eq!(found.len(), rows * outputs, "{path} {sizes:?}");
                for (i, found) in found.iter().enumerate() {
                    let (row, output) = (i / outputs, i % outputs);
                    let pairs = x[row * inner..][..inner].iter().zip(&weight[output * inner..][..inner]);
                    let expected: f64 = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    assert_eq!(f64::from(*found), expected, "{sizes:?} at {i}");
                }
            }
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        assert_eq!(nearest(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert!(bf16::from_bits(nearest(f32::NAN)).is_nan());
        for bits in (0..u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            assert_eq!(nearest(x), bf16::from_f32(x).to_bits(), "{bits:x}");
        }
    }
}
