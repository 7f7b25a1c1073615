//! `x · Wᵀ` for bf16 `W` `[out, in]` with `x` rounded to bf16 too, summed in f32, as GPUs do with bf16 activations. The
//! processor's own instructions multiply, and the weight is read in the layout of the file.

#[cfg(target_arch = "x86_64")]
mod dots;

#[cfg(target_arch = "x86_64")]
pub(super) use dots::product;

#[cfg(test)]
mod tests {
    use half::bf16;

    use crate::{
        kernels::{rows::Floats, select::LinearBf16},
        testing::require,
    };

    /// A way in the tests: its instructions, its function, and the sizes that it takes.
    type Way = (&'static str, LinearBf16, fn([usize; 3]) -> bool);
    const WAYS: &[Way] = &[
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        ("amx", super::super::amx::rounded::product, |[rows, inner, outputs]| rows > 1 && inner >= 32 && outputs >= 32),
        #[cfg(target_arch = "x86_64")]
        ("avx512bf16", super::super::panels::pairs::product, |[rows, inner, _]| rows >= 17 && inner % 2 == 0),
        #[cfg(target_arch = "x86_64")]
        ("avx512bf16", super::product, |[_, inner, _]| inner % 32 == 0),
    ];

    /// The numbers have few bits, so that f32 holds their products and sums: any order of summing gives the same.
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
            // These have rows that fill no tile, an odd number of pairs, and outputs that fill no group.
            [17, 30, 25],
            [89, 1_030, 50],
            // Neither inputs nor outputs fill lines and tiles, with few rows and with many.
            [40, 3_420, 164],
            [300, 4_100, 180],
            [260, 40, 33],
        ] {
            let [rows, inner, outputs] = sizes;
            let number = |i: usize| bf16::from_f32((i * 7919 % 33) as f32 / 16.0 - 1.0);
            let x: Vec<f32> = (0..rows * inner).map(|i| number(i).to_f32()).collect();
            let weight: Vec<bf16> = (0..outputs * inner).map(|i| number(3 * i + 1)).collect();
            let bias: Vec<f32> = (0..outputs).map(|i| number(5 * i + 2).to_f32()).collect();
            for ((path, product, fits), bias) in
                WAYS.iter().filter(|way| require(way.0)).flat_map(|way| [(way, None), (way, Some(&bias[..]))])
            {
                let found = product(&x, &Floats { weight: &weight, inner }, sizes, bias);
                assert_eq!(found.is_some(), fits(sizes), "{path} {sizes:?}");
                let Some(found) = found else { continue };
                assert_eq!(found.len(), rows * outputs, "{path} {sizes:?}");
                for (i, found) in found.iter().enumerate() {
                    let (row, output) = (i / outputs, i % outputs);
                    let pairs = x[row * inner..][..inner].iter().zip(&weight[output * inner..][..inner]);
                    let sum: f64 = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let expected = sum + bias.map_or(0.0, |bias| f64::from(bias[output]));
                    assert_eq!(f64::from(*found), expected, "{sizes:?} at {i}");
                }
            }
        }
    }
}
