//! Inputs as whole numbers with a scale for every 16 of them, in planes of 7 bits and a sign.
//!
//! Three planes hold 20 bits and a sign: with sums of whole numbers, which are exact, a product is then as good as one of
//! sums in f32. Two planes hold 13 bits, more than the 8 of bf16. One plane is what llama.cpp multiplies by.

use rayon::prelude::*;
use secateur_blocks::{GROUP, RUN};

use crate::kernels::vectors::on_vectors;

/// The number of bits of a plane without the sign.
pub(super) const BITS: u32 = 7;
/// A number whose last bit is that of 1.
const SHIFT: f32 = 12_582_912.0;
/// Half of what a plane counts to, from which on a number is carried to the next plane.
const HALF: i32 = 1 << (BITS - 1);

/// The inputs that belong to a group of a weight's values.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Planes<const N: usize> {
    /// The planes, the highest first.
    pub(super) planes: [[i8; GROUP]; N],
    /// A scale for every [`RUN`] of inputs.
    pub(super) scales: [f32; GROUP / RUN],
    /// The sum of every [`RUN`] of inputs.
    pub(super) sums: [f32; GROUP / RUN],
}

impl<const N: usize> Planes<N> {
    const ZERO: Self = Self { planes: [[0; GROUP]; N], scales: [0.0; GROUP / RUN], sums: [0.0; GROUP / RUN] };

    /// The largest whole number. Products of a plane of two planes or more by bytes fit into 16 bits in pairs.
    const MOST: f32 = match N {
        1 => 127.0,
        2 => ((1 << 13) - (1 << 7)) as f32,
        _ => ((1 << 20) - (1 << 14)) as f32,
    };

    /// The planes of every row of `x` `[rows, inner]`, filled up with zeros to whole groups.
    pub(super) fn of(x: &[f32], inner: usize) -> Vec<Self> {
        let groups = inner.div_ceil(GROUP);
        let mut planes = vec![Self::ZERO; x.len() / inner * groups];
        let fill = |(planes, x): (&mut [Self], &[f32])| {
            planes.iter_mut().zip(x.chunks(GROUP)).for_each(|(planes, x)| on_vectors!(planes.fill(x)));
        };
        // Handing one row to another thread takes longer than the row.
        match x.len() > inner {
            true => planes.par_chunks_mut(groups).zip(x.par_chunks(inner)).for_each(fill),
            false => fill((&mut planes, x)),
        }
        planes
    }

    #[inline(always)]
    fn fill(&mut self, x: &[f32]) {
        let mut own = [0.0f32; GROUP];
        own[..x.len()].copy_from_slice(x);
        for (run, x) in own.as_chunks::<RUN>().0.iter().enumerate() {
            let mut most = 0.0f32;
            // It is NaN where an input is not finite, so that all products are.
            let mut fault = 0.0f32;
            for x in x {
                most = if x.abs() > most { x.abs() } else { most };
                fault += x * 0.0;
            }
            let inverse = if most > 0.0 && fault == 0.0 { Self::MOST / most } else { 0.0 };
            let mut whole = [0i32; RUN];
            for i in 0..RUN {
                // Adding and taking away 1.5 · 2²³ rounds to a whole number, which is then in the low bits.
                let shifted = (x[i] * inverse + SHIFT).to_bits() as i32;
                whole[i] = shifted - SHIFT.to_bits() as i32;
            }
            self.scales[run] = most / Self::MOST + fault;
            // Whole numbers of what is not finite are of no use, and may be large.
            self.sums[run] = self.scales[run] * whole.iter().fold(0, |sum: i32, x| sum.wrapping_add(*x)) as f32;
            for plane in (0..N).rev() {
                let to: &mut [i8; RUN] = &mut self.planes[plane].as_chunks_mut().0[run];
                for i in 0..RUN {
                    // The highest plane has what is left.
                    let low = if plane == 0 { whole[i] } else { ((whole[i] + HALF) & (2 * HALF - 1)) - HALF };
                    to[i] = low as i8;
                    whole[i] = (whole[i] - low) >> BITS;
                }
            }
        }
    }
}
