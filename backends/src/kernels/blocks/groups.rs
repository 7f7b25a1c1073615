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
