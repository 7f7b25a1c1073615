//! Floats of 16 bits (and of 32, for which there is nothing to do) to f32, as fast as the processor can, chosen at run time.

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// A float that widens to f32 without loss.
pub(crate) trait Weight: Copy + Sync {
    /// How many bf16 numbers add up to it: 1 for bf16, 2 for f16, 3 for f32, which tells the type where it is loaded. The only one that
    /// asks is the matrix unit, whose code is not compiled elsewhere.
    #[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
    const PARTS: usize;

    /// Writes `from` as f32 into `to`; both have one length.
    fn widen(from: &[Self], to: &mut [f32]);

    /// `from` as f32, in `buffer` unless it is.
    fn wide<'a>(from: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        use rayon::prelude::*;
        const CHUNK: usize = 1 << 16;
        buffer.resize(from.len(), 0.0);
        buffer.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| Self::widen(from, to));
        buffer
    }

    /// `Σ x·w` over one length, in f32, for several rows of a weight.
    fn dots<const ROWS: usize>(x: &[f32], w: [&[Self]; ROWS]) -> [f32; ROWS];
}

impl Weight for f32 {
    const PARTS: usize = 3;

    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn wide<'a>(from: &'a [Self], _: &'a mut Vec<f32>) -> &'a [f32] {
        from
    }

    fn dots<const ROWS: usize>(x: &[f32], w: [&[Self]; ROWS]) -> [f32; ROWS] {
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx512() {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { x86::dots_f32(x, w) };
        }
        w.map(|w| portable_dot(x, w, |w| w))
    }
}

/// Partial sums of the portable dot product: enough independent chains to fill a vector unit.
const LANES: usize = 16;

fn portable_dot<T: Copy>(x: &[f32], w: &[T], widen: impl Fn(T) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (x_blocks, x_rest) = x.as_chunks::<LANES>();
    let (w_blocks, w_rest) = w.as_chunks::<LANES>();
    for (x, w) in x_blocks.iter().zip(w_blocks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * widen(w[lane]);
        }
    }
    let rest: f32 = x_rest.iter().zip(w_rest).map(|(x, &w)| x * widen(w)).sum();
    sums.iter().sum::<f32>() + rest
}

impl Weight for f16 {
    const PARTS: usize = 2;

    fn widen(from: &[Self], to: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx512() {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { x86::widen_f16(from, to) };
        }
        from.convert_to_f32_slice(to);
    }

    fn dots<const ROWS: usize>(x: &[f32], w: [&[Self]; ROWS]) -> [f32; ROWS] {
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx512() {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { x86::dots_f16(x, w) };
        }
        w.map(|w| portable_dot(x, w, f16::to_f32))
    }
}

impl Weight for bf16 {
    const PARTS: usize = 1;

    fn widen(from: &[Self], to: &mut [f32]) {
        // A shift: the compiler vectorises it.
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }

    fn dots<const ROWS: usize>(x: &[f32], w: [&[Self]; ROWS]) -> [f32; ROWS] {
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx512() {
            // SAFETY: as above.
            return unsafe { x86::dots_bf16(x, w) };
        }
        w.map(|w| portable_dot(x, w, |w| f32::from_bits(u32::from(w.to_bits()) << 16)))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::{bf16, f16};

    pub(super) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
    }

    /// # Safety
    /// The processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn widen_f16(from: &[f16], to: &mut [f32]) {
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

    /// Bytes of a row of the weight that memory is asked for beforehand.
    const AHEAD: usize = 512;
    /// Bytes of a line of the cache.
    const LINE: usize = 64;

    /// Dot products of `x` with rows of a weight, side by side: memory gives more to several runs than to one. `$load` widens 16 weights.
    macro_rules! dots {
        ($name:ident, $weight:ty, $load:expr, $widen:expr) => {
            /// # Safety
            /// The processor must have AVX-512F.
            #[target_feature(enable = "avx512f")]
            pub(super) unsafe fn $name<const ROWS: usize>(x: &[f32], w: [&[$weight]; ROWS]) -> [f32; ROWS] {
                let len = w.iter().fold(x.len(), |len, w| len.min(w.len()));
                let (x, w) = (x.as_ptr(), w.map(|w| w.as_ptr()));
                let load = $load;
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                let mut i = 0;
                while i + 32 <= len {
                    // SAFETY: `i + 32 <= len`, and all slices hold `len` elements.
                    let own = unsafe { [_mm512_loadu_ps(x.add(i)), _mm512_loadu_ps(x.add(i + 16))] };
                    for (w, sums) in w.iter().zip(&mut sums) {
                        let w = w.wrapping_add(i);
                        for line in (0..32 * size_of::<$weight>()).step_by(LINE) {
                            // A hint, which faults nowhere.
                            _mm_prefetch::<_MM_HINT_T0>(w.wrapping_byte_add(AHEAD + line).cast());
                        }
                        for (lane, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: as above.
                            *sum = _mm512_fmadd_ps(own[lane], unsafe { load(w.add(16 * lane)) }, *sum);
                        }
                    }
                    i += 32;
                }
                let mut totals = sums.map(|[a, b]| _mm512_reduce_add_ps(_mm512_add_ps(a, b)));
                while i < len {
                    for (w, total) in w.iter().zip(&mut totals) {
                        // SAFETY: `i < len`.
                        *total += unsafe { *x.add(i) * $widen(*w.add(i)) };
                    }
                    i += 1;
                }
                totals
            }
        };
    }

    dots!(dots_f32, f32, |w: *const f32| unsafe { _mm512_loadu_ps(w) }, f32::from);
    dots!(dots_f16, f16, |w: *const f16| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(w.cast())) }, f16::to_f32);
    dots!(
        dots_bf16,
        bf16,
        |w: *const bf16| unsafe {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(w.cast()))))
        },
        bf16::to_f32
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Weight>(name: &str, narrow: impl Fn(f32) -> T, to_f32: impl Fn(T) -> f32 + Copy) {
        for len in [0, 1, 15, 16, 63, 64, 65, 200, 1024] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 32.0).collect();
            let w: Vec<T> = (0..len).map(|i| narrow(((i * 53 % 97) as f32 - 48.0) / 64.0)).collect();
            let exact: f64 = x.iter().zip(&w).map(|(x, &w)| f64::from(*x) * f64::from(to_f32(w))).sum();
            for (path, got) in [("chosen", T::dots(&x, [&w])[0]), ("portable", portable_dot(&x, &w, to_f32))] {
                assert!((f64::from(got) - exact).abs() < 1e-3, "{name} {path} len {len}: {got} for {exact}");
            }
            let mut wide = vec![0.0; len];
            T::widen(&w, &mut wide);
            assert!(w.iter().zip(wide).all(|(&w, wide)| to_f32(w) == wide), "{name} widen len {len}");
        }
    }

    #[test]
    fn every_path_agrees() {
        check("f16", f16::from_f32, f16::to_f32);
        check("bf16", bf16::from_f32, bf16::to_f32);
        check("f32", f32::from, f32::from);
    }
}
