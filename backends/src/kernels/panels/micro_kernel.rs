//! Tiles on the kinds of vectors. Three quarters of the registers hold sums: 12 of 16 on AVX2, 24 of 32 on AVX-512.

use std::{arch::x86_64::*, array, mem::transmute};

use super::{
    BLOCK, CHUNK, LINE, PACE, VECTORS,
    element::{PackedElement, Pair},
    prefetch::Prefetch,
};

/// The sums of a tile: for every output, those of the tile's rows.
pub(super) struct Sums<'a> {
    pub(super) numbers: &'a mut [f32],
    /// The distance from the sums of one output to those of the next.
    pub(super) stride: usize,
    /// Whether the sums start here; the old values are then not read.
    pub(super) fresh: bool,
}

/// The vectors of a kind of processor, and what they multiply.
pub(super) trait MicroKernel {
    type Element: PackedElement;
    /// The number of vectors of sums in a tile: a tile of `V` vectors of rows has `SUMS / V` outputs.
    const SUMS: usize;
    /// The number of packed elements, and of sums, in a vector.
    const LANES: usize;
    /// The number of rows of the largest tile.
    const ROWS: usize = VECTORS * Self::LANES;
    /// The number of lines of the next tile of `x` that the largest tile prefetches at a time: when all outputs of the
    /// chunk are through, the next tile is there.
    const AHEAD: usize = Self::SUMS * Self::LANES * size_of::<f32>() * PACE / (CHUNK * LINE);
    /// The number of lines of the next block of the weight that a tile prefetches at a time: 24 rows of `x` then get
    /// all of them.
    const ASKED: usize = Self::SUMS / 4;

    /// Adds the products of a block of packed elements to the sums of a tile.
    ///
    /// - `lanes`: the rows of the tile, see [`super::tiles`]
    /// - `x`: packed element by packed element, the packed elements of all rows
    /// - `weight`: `BLOCK` packed elements of every output of the tile, of which the first are multiplied
    /// - `next`: memory that is prefetched meanwhile, [`Self::AHEAD`] lines every [`PACE`] steps
    /// - `ahead`: memory of the weight that is prefetched meanwhile, [`Self::ASKED`] lines every [`PACE`] steps
    ///
    /// # Safety
    /// The processor must have the vectors.
    unsafe fn run(
        lanes: usize,
        x: &[Self::Element],
        weight: &[Self::Element],
        sums: Sums,
        next: *const Self::Element,
        ahead: &mut Prefetch,
    );
}

/// Defines the loop of a [`MicroKernel`] in vectors of `$lanes`, by the processor's instructions, for `V` vectors and some outputs.
macro_rules! tile_loop {
    (
        $run:ident, $features:literal, $kernel:ident, vectors of $lanes:literal,
        $zero:ident, $load:ident, $store:ident, $add:ident, $inputs:ident, $spread:ident, $multiply_add:ident
    ) => {
        #[target_feature(enable = $features)]
        fn $run<const V: usize, const OUTPUTS: usize>(
            x: &[<$kernel as MicroKernel>::Element],
            weight: &[<$kernel as MicroKernel>::Element],
            Sums { numbers, stride, fresh }: Sums,
            next: *const <$kernel as MicroKernel>::Element,
            ahead: &mut Prefetch,
        ) {
            let steps = x.len() / (V * $lanes);
            assert!(x.len() == steps * V * $lanes && weight.len() == OUTPUTS * BLOCK && steps <= BLOCK);
            let mut own = [[$zero(); V]; OUTPUTS];
            let (x, weight) = (x.as_ptr(), weight.as_ptr());
            let mut go = |step: usize| {
                // SAFETY: `V` vectors for every step, by the assertion.
                let inputs: [_; V] = array::from_fn(|v| unsafe { $inputs(x.add((step * V + v) * $lanes)) });
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
                for line in 0..$kernel::AHEAD {
                    let line = from / PACE * $kernel::AHEAD + line;
                    // This is a hint, and cannot fault.
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_byte_add(line * LINE).cast());
                }
                for _ in 0..$kernel::ASKED {
                    ahead.ask();
                }
                // The compiler knows this count. With any other, every step of a pair of vectors pays for the loop, and
                // one vector's sums went through memory at every step.
                for step in 0..PACE {
                    go(from + step);
                }
            }
            (whole..steps).for_each(go);
            for (own, sums) in own.iter().zip(numbers.chunks_mut(stride)) {
                for (own, sums) in own.iter().zip(sums.chunks_exact_mut($lanes)) {
                    // SAFETY: a vector's numbers.
                    unsafe { $store(sums.as_mut_ptr(), if fresh { *own } else { $add($load(sums.as_ptr()), *own) }) };
                }
            }
        }
    };
}

/// Defines a [`MicroKernel`] of `$sums` vectors of `$lanes`, from functions that go along a block: each is for tiles of
/// `$tile` lanes, with so many vectors and outputs.
macro_rules! micro_kernel {
    (
        $(#[$about:meta])* $kernel:ident of $element:ty, $sums:literal sums of $lanes:literal,
        $($tile:literal: $run:ident<$vectors:literal, $outputs:literal>),+
    ) => {
        $(#[$about])*
        pub(super) struct $kernel;

        impl MicroKernel for $kernel {
            type Element = $element;
            const SUMS: usize = $sums;
            const LANES: usize = $lanes;

            unsafe fn run(
                lanes: usize,
                x: &[$element],
                weight: &[$element],
                sums: Sums,
                next: *const $element,
                ahead: &mut Prefetch,
            ) {
                // SAFETY: by the caller.
                unsafe {
                    match lanes {
                        $($tile => $run::<$vectors, $outputs>(x, weight, sums, next, ahead),)+
                        lanes => unreachable!("there is no tile of {lanes} rows"),
                    }
                }
            }
        }
    };
}

micro_kernel!(
    /// The vectors of AVX2 and FMA.
    Avx2 of f32, 12 sums of 8,
    8: avx2<1, 12>, 16: avx2<2, 6>
);
micro_kernel!(
    /// The vectors of AVX-512.
    Avx512 of f32, 24 sums of 16,
    8: avx512_half<1, 24>, 16: avx512<1, 24>, 32: avx512<2, 12>
);
micro_kernel!(
    /// The vectors of AVX-512 with products of pairs of bf16 numbers.
    Avx512Bf16 of Pair, 24 sums of 16,
    8: pairs_half<1, 24>, 16: pairs<1, 24>, 32: pairs<2, 12>
);

tile_loop!(
    avx2, "avx2,fma", Avx2, vectors of 8,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps
);
tile_loop!(
    avx512, "avx512f", Avx512, vectors of 16,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_fmadd_ps
);
// Half a vector takes half the time where a whole one is multiplied in two halves.
tile_loop!(
    avx512_half, "avx512f,avx512vl,fma", Avx512, vectors of 8,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_fmadd_ps
);
tile_loop!(
    pairs, "avx512f,avx512bf16", Avx512Bf16, vectors of 16,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, load_pairs, spread_pair, multiply_add_pairs
);
tile_loop!(
    pairs_half, "avx512f,avx512vl,avx512bf16", Avx512Bf16, vectors of 8,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps,
    load_half_of_pairs, spread_half_of_pairs, multiply_add_half_of_pairs
);

/// Defines the three steps of a vector of pairs.
macro_rules! of_pairs {
    (
        $features:literal, $pairs:ident, $sums:ident,
        $load:ident: $load_bits:ident, $spread:ident: $spread_bits:ident, $multiply_add:ident: $dot_product:ident
    ) => {
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn $load(at: *const Pair) -> $pairs {
            // SAFETY: a vector's pairs, by the caller; its bits are whatever they are.
            unsafe { transmute($load_bits(at.cast())) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn $spread(pair: Pair) -> $pairs {
            // SAFETY: bits as they are.
            unsafe { transmute($spread_bits(transmute::<Pair, i32>(pair))) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn $multiply_add(a: $pairs, b: $pairs, sums: $sums) -> $sums {
            $dot_product(sums, a, b)
        }
    };
}

of_pairs!(
    "avx512f,avx512bf16", __m512bh, __m512,
    load_pairs: _mm512_loadu_si512, spread_pair: _mm512_set1_epi32, multiply_add_pairs: _mm512_dpbf16_ps
);
of_pairs!(
    "avx512f,avx512vl,avx512bf16", __m256bh, __m256,
    load_half_of_pairs: _mm256_loadu_si256, spread_half_of_pairs: _mm256_set1_epi32, multiply_add_half_of_pairs: _mm256_dpbf16_ps
);
