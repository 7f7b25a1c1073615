//! Tiles on the two kinds of vectors. Three quarters of the registers hold sums: 12 of 16 of AVX2, 24 of 32 of AVX-512.

use std::{arch::x86_64::*, array};

use super::{BLOCK, CHUNK, LINE, PACE, VECTORS};

/// The vectors of a kind of processor.
pub(super) trait Unit {
    /// Vectors of sums in a tile: one of `V` vectors of rows has `SUMS / V` outputs.
    const SUMS: usize;
    /// Numbers in a vector.
    const LANES: usize;
    /// Rows of the largest tile.
    const ROWS: usize = VECTORS * Self::LANES;
    /// Lines of the next tile of `x` that the largest one asks for at a time: when all outputs of the chunk are through, it is there.
    const AHEAD: usize = Self::SUMS * Self::LANES * size_of::<f32>() * PACE / (CHUNK * LINE);

    /// Adds the products of a block of inputs to the sums of a tile of one or two `vectors`.
    ///
    /// - `x`: input by input, the vectors of rows
    /// - `weight`: of every output of the tile `BLOCK` inputs, of which the first are multiplied
    /// - `sums`: of every output of the tile those of its rows, `stride` apart
    /// - `next`: memory that is asked for meanwhile, [`Self::AHEAD`] lines every [`PACE`] steps
    ///
    /// # Safety
    /// The processor must have the vectors.
    unsafe fn along(vectors: usize, x: &[f32], weight: &[f32], sums: &mut [f32], stride: usize, next: *const f32);
}

/// A [`Unit`] of `$sums` vectors of `$lanes` numbers, by the processor's instructions.
macro_rules! unit {
    (
        $(#[$about:meta])* $unit:ident, $features:literal, $sums:literal sums of $lanes:literal,
        $zero:ident, $spread:ident, $load:ident, $store:ident, $add:ident, $multiply_add:ident
    ) => {
        $(#[$about])*
        pub(super) struct $unit;

        impl Unit for $unit {
            const SUMS: usize = $sums;
            const LANES: usize = $lanes;

            unsafe fn along(vectors: usize, x: &[f32], weight: &[f32], sums: &mut [f32], stride: usize, next: *const f32) {
                #[target_feature(enable = $features)]
                fn along<const V: usize, const OUTPUTS: usize>(
                    x: &[f32],
                    weight: &[f32],
                    sums: &mut [f32],
                    stride: usize,
                    next: *const f32,
                ) {
                    let steps = x.len() / (V * $lanes);
                    assert!(x.len() == steps * V * $lanes && weight.len() == OUTPUTS * BLOCK && steps <= BLOCK);
                    let mut own = [[$zero(); V]; OUTPUTS];
                    let (x, weight) = (x.as_ptr(), weight.as_ptr());
                    let mut go = |step: usize| {
                        // SAFETY: `V` vectors for every step, by the assertion.
                        let inputs: [_; V] = array::from_fn(|v| unsafe { $load(x.add((step * V + v) * $lanes)) });
                        for (output, own) in own.iter_mut().enumerate() {
                            // SAFETY: a block of every output, by the assertion.
                            let weight = $spread(unsafe { *weight.add(output * BLOCK + step) });
                            for v in 0..V {
                                own[v] = $multiply_add(inputs[v], weight, own[v]);
                            }
                        }
                    };
                    let whole = steps / PACE * PACE;
                    for from in (0..whole).step_by(PACE) {
                        for line in 0..$unit::AHEAD {
                            let line = from / PACE * $unit::AHEAD + line;
                            // A hint, which faults nowhere.
                            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_byte_add(line * LINE).cast());
                        }
                        // A count that the compiler knows. With any other, every step of a pair of vectors pays for the loop, and one
                        // vector's sums went through memory at every step.
                        for step in 0..PACE {
                            go(from + step);
                        }
                    }
                    (whole..steps).for_each(go);
                    for (own, sums) in own.iter().zip(sums.chunks_mut(stride)) {
                        for (own, sums) in own.iter().zip(sums.chunks_exact_mut($lanes)) {
                            // SAFETY: a vector's numbers.
                            unsafe { $store(sums.as_mut_ptr(), $add($load(sums.as_ptr()), *own)) };
                        }
                    }
                }
                // SAFETY: by the caller.
                unsafe {
                    match vectors {
                        1 => along::<1, $sums>(x, weight, sums, stride, next),
                        _ => along::<2, { $sums / 2 }>(x, weight, sums, stride, next),
                    }
                }
            }
        }
    };
}

unit!(
    /// AVX2 and FMA: tiles of 6 outputs by up to 16 rows, or of 12 by 8.
    Avx2, "avx2,fma", 12 sums of 8,
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps
);
unit!(
    /// AVX-512F: tiles of 12 outputs by up to 32 rows, or of 24 by 16.
    Avx512, "avx512f", 24 sums of 16,
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps
);
