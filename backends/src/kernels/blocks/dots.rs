//! Dot products of whole numbers, for few rows of `x`: every row of the weight is read once.

use std::{arch::x86_64::*, array};

use secateur_blocks::{Blocks, GROUP, Group};

use super::{
    groups::take_apart,
    planes::{BITS, Planes},
};
use crate::{
    Rounding,
    kernels::{
        columns::Columns,
        instructions::{Instructions, has},
        turns::in_turn,
    },
};

/// The largest number of rows of `x` for which this is faster than taking blocks apart into floats.
const FEW_ROWS: usize = 8;
/// The largest number of rows of `x` that are multiplied side by side.
const SIDE_BY_SIDE: usize = 4;
/// The number of groups of a row that are taken apart before they are multiplied: they stay in the L1 cache.
const SEGMENT: usize = 16;
/// The number of rows of the weight that a thread takes at a time.
const CHUNK: usize = 32;

/// The product `x · Wᵀ`, `[rows, outputs]`; `None` where the processor lacks the instructions, or for many rows.
pub(super) fn product(x: &[f32], weight: &Blocks, sizes: [usize; 3], rounding: Rounding) -> Option<Vec<f32>> {
    let [rows, inner, _] = sizes;
    if rows > FEW_ROWS || inner == 0 || !has(Instructions::Avx2) {
        return None;
    }
    Some(match rounding {
        Rounding::None => multiply::<3>(x, weight, sizes),
        // Eight bits need the instruction: in pairs, products of bytes do not fit into 16 bits.
        Rounding::Int8 if has(Instructions::Avx512Vnni) => multiply::<1>(x, weight, sizes),
        Rounding::Bf16 | Rounding::Int8 => multiply::<2>(x, weight, sizes),
    })
}

fn multiply<const N: usize>(x: &[f32], weight: &Blocks, [rows, inner, outputs]: [usize; 3]) -> Vec<f32> {
    let planes = Planes::<N>::of(x, inner);
    let groups = inner.div_ceil(GROUP);
    let mut out = vec![0.0f32; rows * outputs];
    let columns = Columns(out.as_mut_ptr());
    let segment_bytes = SEGMENT * GROUP / weight.kind().values() * weight.kind().bytes();
    in_turn(outputs.div_ceil(CHUNK), |apart: &mut Vec<Group>, chunk| {
        apart.resize(SEGMENT.min(groups), Group::ZERO);
        for output in chunk * CHUNK..outputs.min((chunk + 1) * CHUNK) {
            let mut sums = [0.0f32; FEW_ROWS];
            for (i, bytes) in weight.row(output).chunks(segment_bytes).enumerate() {
                let apart = &mut apart[..SEGMENT.min(groups - i * SEGMENT)];
                take_apart(weight.kind(), bytes, apart);
                for (row, sums) in (0..rows).step_by(SIDE_BY_SIDE).zip(sums.chunks_mut(SIDE_BY_SIDE)) {
                    let x = |side: usize| &planes[(row + side) * groups + i * SEGMENT..][..apart.len()];
                    let found = dots(apart, x, SIDE_BY_SIDE.min(rows - row));
                    sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
                }
            }
            for (row, sum) in sums[..rows].iter().enumerate() {
                // SAFETY: inside of the matrix, in a column of this chunk.
                unsafe { *columns.at(row * outputs + output) = *sum };
            }
        }
    });
    out
}

/// The dot products of a part of a row of the weight with `count` rows of `x`, up to [`SIDE_BY_SIDE`]; 0 for the others.
fn dots<'x, const N: usize>(row: &[Group], x: impl Fn(usize) -> &'x [Planes<N>], count: usize) -> [f32; SIDE_BY_SIDE] {
    fn of<const N: usize, const XS: usize>(row: &[Group], x: [&[Planes<N>]; XS]) -> [f32; SIDE_BY_SIDE] {
        // SAFETY: the processor has the features.
        let found = match has(Instructions::Avx512Vnni) {
            true => unsafe { with_vnni(row, x) },
            false => unsafe { with_avx2(row, x) },
        };
        array::from_fn(|i| if i < XS { found[i] } else { 0.0 })
    }
    match count {
        1 => of::<N, 1>(row, array::from_fn(x)),
        2 => of::<N, 2>(row, array::from_fn(x)),
        3 => of::<N, 3>(row, array::from_fn(x)),
        _ => of::<N, 4>(row, array::from_fn(x)),
    }
}

/// The places of the scales of 64 values: every scale is that of four sums of four products.
const SCALES: [[i32; 16]; 4] = {
    let mut places = [[0; 16]; 4];
    let mut at = 0;
    while at < 64 {
        places[at / 16][at % 16] = (at / 4) as i32;
        at += 1;
    }
    places
};

/// # Safety
/// The processor must have AVX-512 with VNNI.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn with_vnni<const N: usize, const XS: usize>(row: &[Group], x: [&[Planes<N>]; XS]) -> [f32; XS] {
    // SAFETY: 64 bytes of anything, here and below.
    let whole = |bytes: &[i8; 64]| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    let floats = |floats: &[f32; 16]| unsafe { _mm512_loadu_ps(floats.as_ptr()) };
    let places: [__m512i; 4] = array::from_fn(|i| unsafe { _mm512_loadu_si512(SCALES[i].as_ptr().cast()) });
    let mut sums = [[_mm512_setzero_ps(); 2]; XS];
    for (at, group) in row.iter().enumerate() {
        let (scales, minima) = (floats(&group.scales), floats(&group.minima));
        let quants: [__m512i; 4] =
            array::from_fn(|i| unsafe { _mm512_loadu_si512(group.quants[64 * i..].as_ptr().cast()) });
        for (x, sums) in x.iter().zip(&mut sums) {
            let x = &x[at];
            let scales = _mm512_mul_ps(scales, floats(&x.scales));
            sums[1] = _mm512_fnmadd_ps(minima, floats(&x.sums), sums[1]);
            for i in 0..4 {
                let plane = |plane: usize| whole(&x.planes[plane].as_chunks::<64>().0[i]);
                let mut dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quants[i], plane(0));
                for next in 1..N {
                    dots = _mm512_dpbusd_epi32(_mm512_slli_epi32::<BITS>(dots), quants[i], plane(next));
                }
                let scales = _mm512_permutexvar_ps(places[i], scales);
                sums[i % 2] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, sums[i % 2]);
            }
        }
    }
    sums.map(|[a, b]| _mm512_reduce_add_ps(_mm512_add_ps(a, b)))
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
fn with_avx2<const N: usize, const XS: usize>(row: &[Group], x: [&[Planes<N>]; XS]) -> [f32; XS] {
    // SAFETY: 32 bytes of anything, here and below.
    let floats = |floats: &[f32]| unsafe { _mm256_loadu_ps(floats[..8].as_ptr()) };
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_ps(); 2]; XS];
    for (at, group) in row.iter().enumerate() {
        for (x, sums) in x.iter().zip(&mut sums) {
            let x = &x[at];
            let mut scales = [0.0f32; 16];
            for half in [0, 8] {
                let product = _mm256_mul_ps(floats(&group.scales[half..]), floats(&x.scales[half..]));
                unsafe { _mm256_storeu_ps(scales[half..].as_mut_ptr(), product) };
                sums[1] = _mm256_fnmadd_ps(floats(&group.minima[half..]), floats(&x.sums[half..]), sums[1]);
            }
            for i in 0..8 {
                let quants = unsafe { _mm256_loadu_si256(group.quants[32 * i..].as_ptr().cast()) };
                let dot = |plane: usize| {
                    let plane = unsafe { _mm256_loadu_si256(x.planes[plane][32 * i..].as_ptr().cast()) };
                    _mm256_madd_epi16(_mm256_maddubs_epi16(quants, plane), ones)
                };
                let mut dots = dot(0);
                for next in 1..N {
                    dots = _mm256_add_epi32(_mm256_slli_epi32::<{ BITS as i32 }>(dots), dot(next));
                }
                let scales = _mm256_set_m128(_mm_set1_ps(scales[2 * i + 1]), _mm_set1_ps(scales[2 * i]));
                sums[i % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scales, sums[i % 2]);
            }
        }
    }
    sums.map(|[a, b]| {
        let mut lanes = [0.0f32; 8];
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(a, b)) };
        lanes.iter().sum()
    })
}
