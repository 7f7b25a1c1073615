//! Dot products with rows of a weight on AVX-512 or AVX2, the weight widened in registers.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::kernels::instructions::{Instructions, has};

/// The number of bytes by which prefetches are ahead in a row of the weight.
const AHEAD: usize = 512;
/// The number of bytes in a line of the cache.
const LINE: usize = 64;

fn has_avx512() -> bool {
    has(Instructions::Avx512)
}

fn has_avx2() -> bool {
    has(Instructions::Avx2)
}

/// Writes `from` as f32 into `to`, if the processor has an instruction of 512 bits for it.
pub(super) fn widen_f16(from: &[f16], to: &mut [f32]) -> bool {
    // SAFETY: the processor has the feature that the function is compiled for.
    has_avx512().then(|| unsafe { widen_f16_avx512(from, to) }).is_some()
}

/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn widen_f16_avx512(from: &[f16], to: &mut [f32]) {
    let (blocks, rest) = from.as_chunks::<16>();
    let (wide, wide_rest) = to.as_chunks_mut::<16>();
    for (from, to) in blocks.iter().zip(wide) {
        // SAFETY: both hold 16 numbers.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) };
    }
    for (from, to) in rest.iter().zip(wide_rest) {
        *to = from.to_f32();
    }
}

/// The sum of 8 numbers.
#[target_feature(enable = "avx2")]
fn sum_avx2(x: __m256) -> f32 {
    let half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
}

/// Dot products of some rows of `x` with some rows of a weight, side by side: memory gives more to several streams than
/// to one, and each weight is widened once for all of `x`. `$load` widens as many weights as a vector holds.
macro_rules! dots {
    ($name:ident, $features:literal, $lanes:literal, $weight:ty, $load:expr, [$zero:ident, $own:ident, $fma:ident, $add:ident, $sum:ident]) => {
        /// # Safety
        /// The processor must have the features.
        #[target_feature(enable = $features)]
        unsafe fn $name<const XS: usize, const ROWS: usize>(
            x: [&[f32]; XS],
            w: [&[$weight]; ROWS],
        ) -> [[f32; ROWS]; XS] {
            let len = x.iter().map(|x| x.len()).chain(w.iter().map(|w| w.len())).min().unwrap_or_default();
            let (x, w) = (x.map(|x| x.as_ptr()), w.map(|w| w.as_ptr()));
            let load = $load;
            // There are enough chains to hide the latency of a sum: two for each product of a single row of `x`.
            let mut sums = [[[$zero(); 2]; ROWS]; XS];
            let mut i = 0;
            while i + 2 * $lanes <= len {
                for line in (0..2 * $lanes * size_of::<$weight>()).step_by(LINE) {
                    for w in w {
                        // This is a hint, and cannot fault.
                        _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(i).wrapping_byte_add(AHEAD + line).cast());
                    }
                }
                for lane in 0..2 {
                    let at = i + $lanes * lane;
                    let chain = if XS == 1 { lane } else { 0 };
                    // SAFETY: within `len`, and all slices hold `len` elements.
                    let own = x.map(|x| unsafe { $own(x.add(at)) });
                    for (row, w) in w.iter().enumerate() {
                        // SAFETY: as above.
                        let w = unsafe { load(w.add(at)) };
                        for (own, sums) in own.iter().zip(&mut sums) {
                            sums[row][chain] = $fma(*own, w, sums[row][chain]);
                        }
                    }
                }
                i += 2 * $lanes;
            }
            let mut totals = sums.map(|sums| sums.map(|[a, b]| $sum($add(a, b))));
            while i < len {
                for (x, totals) in x.iter().zip(&mut totals) {
                    for (w, total) in w.iter().zip(totals) {
                        // SAFETY: `i < len`.
                        *total += unsafe { *x.add(i) * f32::from(*w.add(i)) };
                    }
                }
                i += 1;
            }
            totals
        }
    };
}

macro_rules! dots_avx512 {
    ($name:ident, $weight:ty, $load:expr) => {
        dots!(
            $name,
            "avx512f",
            16,
            $weight,
            $load,
            [_mm512_setzero_ps, _mm512_loadu_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_reduce_add_ps]
        );
    };
}

macro_rules! dots_avx2 {
    ($name:ident, $weight:ty, $load:expr) => {
        dots!(
            $name,
            "avx2,fma,f16c",
            8,
            $weight,
            $load,
            [_mm256_setzero_ps, _mm256_loadu_ps, _mm256_fmadd_ps, _mm256_add_ps, sum_avx2]
        );
    };
}

dots_avx512!(f32_avx512, f32, |w: *const f32| unsafe { _mm512_loadu_ps(w) });
dots_avx512!(f16_avx512, f16, |w: *const f16| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(w.cast())) });
dots_avx512!(bf16_avx512, bf16, |w: *const bf16| unsafe {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(w.cast()))))
});
dots_avx2!(f32_avx2, f32, |w: *const f32| unsafe { _mm256_loadu_ps(w) });
dots_avx2!(f16_avx2, f16, |w: *const f16| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(w.cast())) });
dots_avx2!(bf16_avx2, bf16, |w: *const bf16| unsafe {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(w.cast()))))
});

macro_rules! choose {
    ($name:ident, $weight:ty, $avx512:ident, $avx2:ident) => {
        /// Dot products on the widest vectors of the processor; `None` where it has neither AVX-512 nor AVX2.
        pub(super) fn $name<const XS: usize, const ROWS: usize>(
            x: [&[f32]; XS],
            w: [&[$weight]; ROWS],
        ) -> Option<[[f32; ROWS]; XS]> {
            // SAFETY: the processor has the features that the functions are compiled for.
            unsafe {
                if has_avx512() {
                    return Some($avx512(x, w));
                }
                has_avx2().then(|| $avx2(x, w))
            }
        }
    };
}

choose!(of_f32, f32, f32_avx512, f32_avx2);
choose!(of_f16, f16, f16_avx512, f16_avx2);
choose!(of_bf16, bf16, bf16_avx512, bf16_avx2);
