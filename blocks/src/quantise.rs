//! Blocks made of values: the layouts that `--quantize` and `secateur quantize` write.

use half::f16;

use crate::{BlockType, RUN};

/// The number of values in a block with scales of its own for parts.
const SUPER: usize = 256;
/// The number of values in a sub-block of Q4_K.
const SUB: usize = 32;
/// The largest quant of Q4_K.
const Q4_MOST: f32 = 15.0;
/// The largest scale and minimum of a sub-block of Q4_K.
const Q4_SCALES: f32 = 63.0;

/// Appends the blocks of `values` to `to`.
///
/// The layouts that are written are Q5_0, Q8_0, Q4_K and Q6_K: `None` for others, and for values that do not fill whole blocks.
/// Values that are not finite make blocks of values that are not finite.
pub fn quantise(kind: BlockType, values: &[f32], to: &mut Vec<u8>) -> Option<()> {
    if !values.len().is_multiple_of(kind.values()) {
        return None;
    }
    let block: fn(&[f32], &mut Vec<u8>) = match kind {
        BlockType::Q5_0 => q5_0,
        BlockType::Q8_0 => q8_0,
        BlockType::Q4K => q4_k,
        BlockType::Q6K => q6_k,
        _ => return None,
    };
    values.chunks_exact(kind.values()).for_each(|values| block(values, to));
    Some(())
}

/// The largest magnitude; NaN where a value is NaN.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, value| if value.abs() > most || value.is_nan() { value.abs() } else { most })
}

/// `1 / x`, and 0 for 0.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

fn put(to: &mut Vec<u8>, x: f32) {
    to.extend(f16::from_f32(x).to_le_bytes());
}

/// The scale is the largest magnitude over 127, as in ggml.
fn q8_0(values: &[f32], to: &mut Vec<u8>) {
    let scale = largest(values) / 127.0;
    let inverse = inverse(scale);
    put(to, scale);
    to.extend(values.iter().map(|value| (value * inverse).round() as i8 as u8));
}

/// The value of the largest magnitude becomes −16, which five bits have and 16 is not, as in ggml.
fn q5_0(values: &[f32], to: &mut Vec<u8>) {
    let most = values.iter().fold(0.0, |most: f32, value| if value.abs() > most.abs() { *value } else { most });
    let scale = if largest(values).is_finite() { most / -16.0 } else { f32::NAN };
    let inverse = inverse(scale);
    put(to, scale);
    let quants: Vec<u8> = values.iter().map(|value| (value * inverse + 16.5).clamp(0.0, 31.0) as u8).collect();
    let fifth = quants.iter().enumerate().fold(0u32, |bits, (i, quant)| bits | u32::from(quant >> 4) << i);
    to.extend(fifth.to_le_bytes());
    to.extend(quants[..16].iter().zip(&quants[16..]).map(|(low, high)| low & 15 | (high & 15) << 4));
}

/// A line through quants: `value ≈ scale · quant − minimum`, the minimum at least 0.
#[derive(Clone, Copy, Default)]
struct Line {
    scale: f32,
    minimum: f32,
}

impl Line {
    fn quant(self, value: f32) -> f32 {
        ((value + self.minimum) * inverse(self.scale)).round().clamp(0.0, Q4_MOST)
    }

    fn error(self, values: &[f32], weights: &[f32], quants: &[f32]) -> f32 {
        let errors = values.iter().zip(weights).zip(quants);
        errors.map(|((value, weight), quant)| weight * (self.scale * quant - self.minimum - value).powi(2)).sum()
    }
}

/// The line with the smallest weighted error among those that the quants of several first guesses fit best.
fn best_line(values: &[f32]) -> Line {
    let mean_square = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
    // Large values matter more: they are multiplied by what is large elsewhere as often as small ones.
    let weights: Vec<f32> = values.iter().map(|value| mean_square.sqrt() + value.abs()).collect();
    let least = values.iter().fold(0.0, |least: f32, value| least.min(*value));
    let most = values.iter().fold(f32::NEG_INFINITY, |most: f32, value| most.max(*value));
    if most <= least {
        return Line { scale: 0.0, minimum: -least };
    }
    let mut best = Line { scale: (most - least) / Q4_MOST, minimum: -least };
    let quants: Vec<f32> = values.iter().map(|value| best.quant(*value)).collect();
    let mut error = best.error(values, &weights, &quants);
    for step in 0..=20 {
        let levels = Q4_MOST - 1.0 + 0.1 * step as f32;
        let guess = Line { scale: (most - least) / levels, minimum: -least };
        let quants: Vec<f32> = values.iter().map(|value| guess.quant(*value)).collect();
        let fitted = fit(values, &weights, &quants);
        let found = fitted.error(values, &weights, &quants);
        if fitted.scale > 0.0 && found < error {
            (best, error) = (fitted, found);
        }
    }
    best
}

/// The line that fits values and quants best, by weighted least squares; through 0 where its minimum would be below 0.
fn fit(values: &[f32], weights: &[f32], quants: &[f32]) -> Line {
    let mut sums = [0.0f32; 5];
    for ((value, weight), quant) in values.iter().zip(weights).zip(quants) {
        let terms = [*weight, weight * quant, weight * quant * quant, weight * value, weight * value * quant];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    let [w, wq, wqq, wv, wvq] = sums;
    let determinant = w * wqq - wq * wq;
    let line = Line { scale: (w * wvq - wv * wq) / determinant, minimum: (wq * wvq - wqq * wv) / determinant };
    if determinant > 0.0 && line.minimum >= 0.0 { line } else { Line { scale: wvq * inverse(wqq), minimum: 0.0 } }
}

fn q4_k(values: &[f32], to: &mut Vec<u8>) {
    let lines: Vec<Line> = values.chunks_exact(SUB).map(best_line).collect();
    let most = |of: fn(&Line) -> f32| lines.iter().map(of).fold(0.0, f32::max);
    let (scale, minimum) = (most(|line| line.scale) / Q4_SCALES, most(|line| line.minimum) / Q4_SCALES);
    let (scale, minimum) = match largest(values).is_finite() {
        true => (scale, minimum),
        // Nothing can be chosen, and nothing is hidden.
        false => (f32::NAN, f32::NAN),
    };
    let small = |of: f32, factor: f32| (of * inverse(factor)).round().clamp(0.0, Q4_SCALES) as u8;
    let small: Vec<[u8; 2]> =
        lines.iter().map(|line| [small(line.scale, scale), small(line.minimum, minimum)]).collect();
    put(to, scale);
    put(to, minimum);
    let mut packed = [0u8; 12];
    for (i, [scale, minimum]) in small.iter().enumerate() {
        if i < 4 {
            packed[i] |= scale;
            packed[i + 4] |= minimum;
        } else {
            packed[i + 4] |= scale & 15 | minimum << 4;
            packed[i - 4] |= scale >> 4 << 6;
            packed[i] |= minimum >> 4 << 6;
        }
    }
    to.extend(packed);
    // The scales are those that a reader finds, rounded to f16.
    let [scale, minimum] = [scale, minimum].map(|x| f16::from_f32(x).to_f32());
    let mut quants = [0u8; SUPER];
    for ((values, quants), small) in values.chunks_exact(SUB).zip(quants.chunks_exact_mut(SUB)).zip(&small) {
        let line = Line { scale: scale * f32::from(small[0]), minimum: minimum * f32::from(small[1]) };
        quants.iter_mut().zip(values).for_each(|(quant, value)| *quant = line.quant(*value) as u8);
    }
    for pair in quants.chunks_exact(2 * SUB) {
        to.extend(pair[..SUB].iter().zip(&pair[SUB..]).map(|(low, high)| low | high << 4));
    }
}

/// The scale with which quants from −32 to 31 fit 16 values best, weighted by their squares.
fn best_scale(values: &[f32]) -> f32 {
    let most = values.iter().fold(0.0, |most: f32, value| if value.abs() > most.abs() { *value } else { most });
    let (mut best, mut gain) = (0.0, 0.0);
    for step in -9..=9 {
        let inverse = -(32.0 + 0.1 * step as f32) * inverse(most);
        let (mut of_products, mut of_squares) = (0.0, 0.0);
        for value in values {
            let (quant, weight) = ((value * inverse).round().clamp(-32.0, 31.0), value * value);
            of_products += weight * value * quant;
            of_squares += weight * quant * quant;
        }
        if of_squares > 0.0 && of_products * of_products > gain * of_squares {
            (best, gain) = (of_products / of_squares, of_products * of_products / of_squares);
        }
    }
    best
}

fn q6_k(values: &[f32], to: &mut Vec<u8>) {
    let scales: Vec<f32> = values.chunks_exact(RUN).map(best_scale).collect();
    let most = scales.iter().fold(0.0, |most: f32, scale| if scale.abs() > most.abs() { *scale } else { most });
    // The largest scale becomes −128, which a signed byte has and 128 is not.
    let scale = if largest(values).is_finite() { most / -128.0 } else { f32::NAN };
    let small: Vec<i8> = scales.iter().map(|own| (own * inverse(scale)).round().clamp(-128.0, 127.0) as i8).collect();
    let read = f16::from_f32(scale).to_f32();
    let mut quants = [0u8; SUPER];
    for ((values, quants), small) in values.chunks_exact(RUN).zip(quants.chunks_exact_mut(RUN)).zip(&small) {
        let inverse = inverse(read * f32::from(*small));
        for (quant, value) in quants.iter_mut().zip(values) {
            *quant = ((value * inverse).round().clamp(-32.0, 31.0) + 32.0) as u8;
        }
    }
    for half in quants.chunks_exact(128) {
        to.extend((0..64).map(|i| half[i] & 15 | (half[i + 64] & 15) << 4));
    }
    for half in quants.chunks_exact(128) {
        to.extend((0..32).map(|i| (0..4).fold(0, |bits, part| bits | half[i + 32 * part] >> 4 << (2 * part))));
    }
    to.extend(small.iter().map(|small| *small as u8));
    put(to, scale);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Blocks, RowOrder};

    fn back(kind: BlockType, values: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        quantise(kind, values, &mut bytes).unwrap();
        let blocks = Blocks::new(kind, [1, values.len()], RowOrder::Plain, Bytes::from(bytes)).unwrap();
        let mut found = vec![0.0; values.len()];
        blocks.unpack_row(0, &mut found);
        found
    }

    /// The error of a value in steps of the layout, of which a row of the largest magnitude has as many as there are quants.
    fn worst_step(kind: BlockType, values: &[f32], levels: f32) -> f32 {
        let step = 2.0 * largest(values) / levels;
        let errors = back(kind, values).into_iter().zip(values).map(|(found, value)| (found - value).abs() / step);
        errors.fold(0.0, |worst, error| if error > worst || error.is_nan() { error } else { worst })
    }

    proptest! {
        #[test]
        fn values_come_back_within_a_step(values in proptest::collection::vec(-3.0f32..3.0, 256)) {
            // The scales of parts are rounded too, and so is their scale: more than half a step can be lost.
            for (kind, levels) in [(BlockType::Q5_0, 31.0), (BlockType::Q8_0, 254.0), (BlockType::Q6K, 63.0), (BlockType::Q4K, 15.0)] {
                let worst = worst_step(kind, &values, levels);
                prop_assert!(worst < 1.0, "{kind}: {worst}");
            }
        }
    }

    #[test]
    fn special_rows_come_back() {
        for kind in [BlockType::Q5_0, BlockType::Q8_0, BlockType::Q6K, BlockType::Q4K] {
            assert_eq!(back(kind, &[0.0; 256]), [0.0; 256], "{kind}");
            let mut values = [0.5f32; 256];
            assert!(back(kind, &values).iter().all(|value| (value - 0.5).abs() < 0.01), "{kind}");
            values[7] = f32::NAN;
            assert!(back(kind, &values).iter().any(|value| !value.is_finite()), "{kind}");
            values[7] = f32::INFINITY;
            assert!(back(kind, &values).iter().any(|value| !value.is_finite()), "{kind}");
        }
        assert_eq!(quantise(BlockType::Q5K, &[0.0; 256], &mut Vec::new()), None);
        assert_eq!(quantise(BlockType::Q4K, &[0.0; 32], &mut Vec::new()), None);
    }
}
