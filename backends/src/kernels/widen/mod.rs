//! Widening of 16-bit floats to f32, as fast as the processor can, chosen at run time. For 32-bit floats there is
//! nothing to do.

#[cfg(target_arch = "x86_64")]
mod dots;

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::vectors::on_vectors;

/// A float that widens to f32 without loss.
pub(crate) trait Weight: Copy + Sync {
    /// The count of bf16 numbers that add up to such a float: 1 for bf16, 2 for f16, 3 for f32. It tells the type where
    /// numbers are loaded.
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux")),
        allow(dead_code, reason = "the only one that asks is the matrix unit, whose code is not compiled elsewhere")
    )]
    const PARTS: usize;

    /// Writes `from` as f32 into `to`; both have one length.
    fn widen(from: &[Self], to: &mut [f32]);

    /// Dot products, `Σ x·w` over one length in f32, for some rows of `x` with some rows of a weight.
    fn dots<const XS: usize, const ROWS: usize>(x: [&[f32]; XS], w: [&[Self]; ROWS]) -> [[f32; ROWS]; XS];
}

impl Weight for f32 {
    const PARTS: usize = 3;

    fn widen(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn dots<const XS: usize, const ROWS: usize>(x: [&[f32]; XS], w: [&[Self]; ROWS]) -> [[f32; ROWS]; XS] {
        #[cfg(target_arch = "x86_64")]
        if let Some(found) = dots::of_f32(x, w) {
            return found;
        }
        x.map(|x| w.map(|w| portable_dot(x, w, |w| w)))
    }
}

/// The number of partial sums of the portable dot product: enough independent chains to fill a vector unit.
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
        if dots::widen_f16(from, to) {
            return;
        }
        from.convert_to_f32_slice(to);
    }

    fn dots<const XS: usize, const ROWS: usize>(x: [&[f32]; XS], w: [&[Self]; ROWS]) -> [[f32; ROWS]; XS] {
        #[cfg(target_arch = "x86_64")]
        if let Some(found) = dots::of_f16(x, w) {
            return found;
        }
        x.map(|x| w.map(|w| portable_dot(x, w, f16::to_f32)))
    }
}

impl Weight for bf16 {
    const PARTS: usize = 1;

    fn widen(from: &[Self], to: &mut [f32]) {
        // This is a shift, which the compiler vectorises.
        on_vectors!({
            for (to, from) in to.iter_mut().zip(from) {
                *to = f32::from_bits(u32::from(from.to_bits()) << 16);
            }
        });
    }

    fn dots<const XS: usize, const ROWS: usize>(x: [&[f32]; XS], w: [&[Self]; ROWS]) -> [[f32; ROWS]; XS] {
        #[cfg(target_arch = "x86_64")]
        if let Some(found) = dots::of_bf16(x, w) {
            return found;
        }
        x.map(|x| w.map(|w| portable_dot(x, w, |w| f32::from_bits(u32::from(w.to_bits()) << 16))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Weight>(name: &str, narrow: impl Fn(f32) -> T, to_f32: impl Fn(T) -> f32 + Copy) {
        for len in [0, 1, 15, 16, 63, 64, 65, 200, 1024] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 32.0).collect();
            let w: Vec<T> = (0..len).map(|i| narrow(((i * 53 % 97) as f32 - 48.0) / 64.0)).collect();
            let exact: f64 = x.iter().zip(&w).map(|(x, &w)| f64::from(*x) * f64::from(to_f32(w))).sum();
            let [[one, _], [_, other]] = T::dots([&x[..]; 2], [&w[..]; 2]);
            for (path, got) in [
                ("one of four", one),
                ("another of four", other),
                ("chosen", T::dots([&x[..]], [&w])[0][0]),
                ("portable", portable_dot(&x, &w, to_f32)),
            ] {
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
