//! Tiles of 6 outputs by up to 16 rows, or of 12 by 8: 12 of the 16 registers hold sums.

use std::{arch::x86_64::*, array};

use super::{BLOCK, LINE, PACE, Unit};

/// AVX2 and FMA.
pub(super) struct Avx2;

const SUMS: usize = Avx2::SUMS;
const LANES: usize = Avx2::LANES;

impl Unit for Avx2 {
    const SUMS: usize = 12;
    const LANES: usize = 8;

    unsafe fn along(vectors: usize, x: &[f32], weight: &[f32], sums: &mut [f32], next: *const f32) {
        // SAFETY: by the caller.
        unsafe {
            match vectors {
                1 => along::<1, SUMS>(x, weight, sums, next),
                _ => along::<2, { SUMS / 2 }>(x, weight, sums, next),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn along<const V: usize, const OUTPUTS: usize>(x: &[f32], weight: &[f32], sums: &mut [f32], next: *const f32) {
    let steps = x.len() / (V * LANES);
    assert!(x.len() == steps * V * LANES && weight.len() == OUTPUTS * BLOCK && steps <= BLOCK);
    let mut own = [[_mm256_setzero_ps(); V]; OUTPUTS];
    let (x, weight) = (x.as_ptr(), weight.as_ptr());
    let mut go = |step: usize| {
        // SAFETY: `V` vectors for every step, by the assertion.
        let inputs: [_; V] = array::from_fn(|v| unsafe { _mm256_loadu_ps(x.add((step * V + v) * LANES)) });
        for (output, own) in own.iter_mut().enumerate() {
            // SAFETY: a block of every output, by the assertion.
            let weight = unsafe { _mm256_broadcast_ss(&*weight.add(output * BLOCK + step)) };
            for v in 0..V {
                own[v] = _mm256_fmadd_ps(inputs[v], weight, own[v]);
            }
        }
    };
    let whole = steps / PACE * PACE;
    for from in (0..whole).step_by(PACE) {
        for line in 0..Avx2::AHEAD {
            // A hint, which faults nowhere.
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_byte_add((from / PACE * Avx2::AHEAD + line) * LINE).cast());
        }
        // A count that the compiler knows. With any other, every step of a pair of vectors pays for the loop, and one vector's sums went
        // through memory at every step.
        for step in 0..PACE {
            go(from + step);
        }
    }
    (whole..steps).for_each(go);
    for (own, sums) in own.iter().zip(sums.chunks_exact_mut(Avx2::ROWS)) {
        for (own, sums) in own.iter().zip(sums.chunks_exact_mut(LANES)) {
            // SAFETY: 8 numbers.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), _mm256_add_ps(_mm256_loadu_ps(sums.as_ptr()), *own)) };
        }
    }
}
