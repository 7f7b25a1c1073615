//! Inputs as whole numbers with a scale for every 16 of them, in planes of 7 bits and a sign.
//!
//! Three planes hold 20 bits and a sign: with sums of whole numbers, which are exact, a product is then as good as one of
//! sums in f32. Two planes hold 13 bits, more than the 8 of bf16. One plane is what llama.cpp multiplies by.

use rayon::prelude::*;
use secateur_blocks::{GROUP, RUN};

use crate::kernels::vectors::on_vectors;

/// The number of bits of a plane without the sign.
pub(super) const BITS: u32 = 7;
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
        for (run, x) in x.chunks(RUN).enumerate() {
            let mut own = [0.0f32; RUN];
            own[..x.len()].copy_from_slice(x);
            let most = own.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            // It is NaN where an input is not finite, so that all products are.
            let fault = own.iter().map(|x| x * 0.0).sum::<f32>();
            let inverse = if most > 0.0 && fault == 0.0 { Self::MOST / most } else { 0.0 };
            let mut sum = 0;
            for (i, x) in own.into_iter().enumerate() {
                // Adding and taking away 1.5 · 2²³ rounds to a whole number.
                let mut whole = ((x * inverse + 12_582_912.0) - 12_582_912.0) as i32;
                sum += whole;
                for plane in (1..N).rev() {
                    let low = ((whole + HALF) & (2 * HALF - 1)) - HALF;
                    self.planes[plane][run * RUN + i] = low as i8;
                    whole = (whole - low) >> BITS;
                }
                self.planes[0][run * RUN + i] = whole as i8;
            }
            self.scales[run] = most / Self::MOST + fault;
            self.sums[run] = self.scales[run] * sum as f32;
        }
    }
}
