//! Rows of blocks as groups of whole numbers with scales, and groups as floats.

use half::bf16;
use secateur_blocks::{BlockType, Format, GROUP, Group, RUN, with_format};

use crate::kernels::vectors::on_vectors;
#[cfg(target_arch = "x86_64")]
use crate::kernels::{
    instructions::{Instructions, has},
    nearest::nearest,
};

/// The number of bytes in a line of the cache.
const LINE: usize = 64;
/// The number of bytes by which prefetches are ahead: rows follow each other in memory.
const AHEAD: usize = 3072;

/// Takes whole blocks of a row apart. The offset of the layout's quants becomes part of the minima.
pub(super) fn take_apart(kind: BlockType, bytes: &[u8], row: &mut [Group]) {
    #[cfg(target_arch = "x86_64")]
    if kind == BlockType::Q4K && has(Instructions::Avx512) {
        // SAFETY: the processor has the features.
        return unsafe { vectors::take_apart_q4_k(bytes, row) };
    }
    with_format!(kind, F => on_vectors!(all::<F>(bytes, row)));
}

#[inline(always)]
fn all<F: Format>(bytes: &[u8], row: &mut [Group]) {
    for (bytes, group) in bytes.chunks(Group::bytes::<F>()).zip(&mut *row) {
        prefetch(bytes.as_ptr().wrapping_add(AHEAD), Group::bytes::<F>());
        group.unpack::<F>(bytes);
    }
    // By now the scales have left the processor's store buffer, from which they are not read as wide vectors.
    for group in row.iter_mut().filter(|_| F::OFFSET != 0) {
        for run in 0..GROUP / RUN {
            group.minima[run] += group.scales[run] * f32::from(F::OFFSET);
        }
    }
}

/// Prefetches some bytes.
#[inline(always)]
fn prefetch(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes, LINE);
}

/// A float that the values of a group become.
pub(super) trait Value: Copy + Default + Sync {
    /// Writes the values of a group that [`take_apart`] made, rounded where necessary.
    fn write(group: &Group, to: &mut [Self; GROUP]);
}

impl Value for f32 {
    fn write(group: &Group, to: &mut [Self; GROUP]) {
        #[cfg(target_arch = "x86_64")]
        if has(Instructions::Avx512) {
            // SAFETY: the processor has the features.
            return unsafe { vectors::floats(group, to) };
        }
        on_vectors!(each(group, to, |value| value));
    }
}

impl Value for bf16 {
    fn write(group: &Group, to: &mut [Self; GROUP]) {
        #[cfg(target_arch = "x86_64")]
        {
            if has(Instructions::Avx512Bf16) {
                // SAFETY: the processor has the features.
                return unsafe { vectors::rounded(group, to) };
            }
            on_vectors!(each(group, to, |value| bf16::from_bits(nearest(value))));
        }
        #[cfg(not(target_arch = "x86_64"))]
        each(group, to, bf16::from_f32);
    }
}

#[inline(always)]
fn each<V: Copy>(group: &Group, to: &mut [V; GROUP], of: impl Fn(f32) -> V) {
    for (run, to) in to.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
        let (scale, minimum) = (group.scales[run], group.minima[run]);
        let quants: &[u8; RUN] = &group.quants.as_chunks().0[run];
        for (to, quant) in to.iter_mut().zip(quants) {
            *to = of(scale * f32::from(*quant) - minimum);
        }
    }
}

/// The loops above in intrinsics: the compiler's own vectors of them took seven times as long.
#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::{arch::x86_64::*, mem::transmute};

    use half::bf16;
    use secateur_blocks::{GROUP, Group, RUN};

    use super::{AHEAD, prefetch};

    /// The bytes of a block of Q4_K.
    const Q4_K: usize = 144;
    /// The places of eight scales, each of which is that of two runs.
    const TWICE: [i32; 16] = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7];

    /// [`super::take_apart`] for Q4_K, most weights' layout: twice as fast as the compiler's vectors.
    #[target_feature(enable = "f16c,avx512f,avx512bw")]
    pub(super) fn take_apart_q4_k(bytes: &[u8], row: &mut [Group]) {
        let fours = _mm512_set1_epi8(15);
        // SAFETY: 16 whole numbers.
        let twice = unsafe { _mm512_loadu_si512(TWICE.as_ptr().cast()) };
        let behind = _mm512_add_epi32(twice, _mm512_set1_epi32(8));
        for (block, group) in bytes.as_chunks::<Q4_K>().0.iter().zip(row) {
            prefetch(block.as_ptr().wrapping_add(AHEAD), Q4_K);
            let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            let factors = _mm_cvtph_ps(_mm_cvtsi32_si128(word(0) as i32));
            let [scale, minimum] = [factors, _mm_movehdup_ps(factors)].map(|x| _mm512_broadcastss_ps(x));
            let [scales, minima, rest] = [word(4), word(8), word(12)];
            let join = |low: u32, rest: u32| {
                let high = rest & 0x0f0f_0f0f | (low >> 6 & 0x0303_0303) << 4;
                (u64::from(low & 0x3f3f_3f3f) | u64::from(high) << 32) as i64
            };
            let small = _mm_set_epi64x(join(minima, rest >> 4), join(scales, rest));
            let factors = _mm512_mask_mov_ps(scale, 0xff00, minimum);
            let of_sub_blocks = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(small)), factors);
            // SAFETY: 16 floats each.
            unsafe {
                _mm512_storeu_ps(group.scales.as_mut_ptr(), _mm512_permutexvar_ps(twice, of_sub_blocks));
                _mm512_storeu_ps(group.minima.as_mut_ptr(), _mm512_permutexvar_ps(behind, of_sub_blocks));
            }
            for (half, quants) in group.quants.as_chunks_mut::<128>().0.iter_mut().enumerate() {
                // SAFETY: 64 bytes of the block, and room for 128 quants.
                unsafe {
                    let bytes = _mm512_loadu_si512(block.as_ptr().add(16 + 64 * half).cast());
                    let low = _mm512_and_si512(bytes, fours);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), fours);
                    let to = quants.as_mut_ptr();
                    _mm512_storeu_si512(to.cast(), _mm512_shuffle_i64x2::<0b01_00_01_00>(low, high));
                    _mm512_storeu_si512(to.add(64).cast(), _mm512_shuffle_i64x2::<0b11_10_11_10>(low, high));
                }
            }
        }
    }

    /// The values of a run.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn run(group: &Group, run: usize) -> __m512 {
        let (scale, minimum) = (_mm512_set1_ps(group.scales[run]), _mm512_set1_ps(group.minima[run]));
        let quants: &[u8; RUN] = &group.quants.as_chunks().0[run];
        // SAFETY: 16 bytes of anything.
        let quants = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(quants.as_ptr().cast()) });
        _mm512_fmsub_ps(_mm512_cvtepi32_ps(quants), scale, minimum)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn floats(group: &Group, to: &mut [f32; GROUP]) {
        for (i, to) in to.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
            // SAFETY: a run of floats.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), run(group, i)) };
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn rounded(group: &Group, to: &mut [bf16; GROUP]) {
        for (i, to) in to.as_chunks_mut::<{ 2 * RUN }>().0.iter_mut().enumerate() {
            let pair = _mm512_cvtne2ps_pbh(run(group, 2 * i + 1), run(group, 2 * i));
            // SAFETY: two runs of floats; 512 bits of anything.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), transmute::<__m512bh, __m512i>(pair)) };
        }
    }
}
