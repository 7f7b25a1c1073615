//! Plain loops on the widest vectors of the processor.

/// Evaluates an expression, compiled for AVX-512 or AVX2 where the processor has it: without that, the compiler makes
/// vectors of 4 numbers. The results are the same, as the compiler does not join a product and a sum by itself.
///
/// This is a macro, so that no closure lacks its attribute: code that the compiler leaves outside of the functions
/// below is compiled for none of these vectors. Functions that the expression calls should be `#[inline(always)]`, too.
macro_rules! on_vectors {
    ($work:expr) => {
        $crate::kernels::vectors::inlined(
            #[inline(always)]
            || $work,
        )
    };
}
pub(super) use on_vectors;

/// Calls `f`, which must be `#[inline(always)]`; see [`on_vectors`].
#[inline(always)]
pub(super) fn inlined<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        use super::instructions::{Instructions, has};
        if has(Instructions::Avx512) {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { on_avx512(f) };
        }
        if has(Instructions::Avx2) {
            // SAFETY: as above.
            return unsafe { on_avx2(f) };
        }
    }
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn on_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn on_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Computes `eˣ` for `x` from −87 to 0 within 2e-7 of its value, and the value at −87 for smaller `x`. The compiler
/// turns its operations into vectors; the C library's `exp` is a call for every element.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that taking away a multiple of it loses no digits.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // NaN stays NaN: `max` would hide it.
    let x = if x < -87.0 { -87.0 } else { x };
    // e^x = 2^whole · e^rest. Adding and taking away 1.5 · 2²³ rounds to a whole number, which is then in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let whole = shifted - 12_582_912.0;
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * rest + 1.0 / 720.0;
    let series = series * rest + 1.0 / 120.0;
    let series = series * rest + 1.0 / 24.0;
    let series = series * rest + 1.0 / 6.0;
    let series = series * rest + 0.5;
    let series = series * rest * rest + rest + 1.0;
    let exponent = shifted.to_bits().wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

/// The share of a normal distribution below `x`, within 2e-7.
#[inline(always)]
pub(super) fn normal_below(x: f32) -> f32 {
    // Below −|x| it is t · e^(series(t) − x²/2). The series has the smallest error for |x| up to 13, where nothing is left.
    let t = 1.0 / (1.0 + 0.4 * x.abs());
    let series = 0.189_883_81;
    let series = series * t - 0.972_389_16;
    let series = series * t + 1.941_676_1;
    let series = series * t - 1.743_436_6;
    let series = series * t + 0.536_677_54;
    let series = series * t - 0.179_160_42;
    let series = series * t + 0.371_555_84;
    let series = series * t + 0.997_168_66;
    let series = series * t - 1.835_123;
    let tail = t * exp(series - 0.5 * x * x);
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// Computes `eˣ` as [`exp`], but within 1e-5 of its value, in two thirds of the operations; rounding to bf16 may change 2e-3.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn exp_to_round(x: f32) -> f32 {
    // e^x = 2^whole · 2^rest, as in `exp`, and NaN stays NaN. The series has the smallest error for `rest` from −½ to ½.
    let power = x * std::f32::consts::LOG2_E;
    let power = if power < -126.0 { -126.0 } else { power };
    let shifted = power + 12_582_912.0;
    let rest = power - (shifted - 12_582_912.0);
    let series = 9.582_853e-3;
    let series = series * rest + 0.055_906_43;
    let series = series * rest + 0.240_240_99;
    let series = series * rest + 0.693_124_2;
    let series = series * rest + 1.0;
    let exponent = shifted.to_bits().wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

/// The sum of `f` over pairs, in independent chains, which the compiler turns into vectors. Another order of the
/// chains' sum would change the last bits of layer norms, and VisPruner's official picks depend on these.
#[inline(always)]
pub(super) fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(&a, &b)| f(a, b)).sum::<f32>()
}

/// Replaces every number by `f` of it, and returns the sum of the results in the order of [`sum`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn replace(numbers: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = numbers.as_chunks_mut::<16>();
    let mut sums = [0.0f32; 16];
    for chunk in chunks {
        for lane in 0..16 {
            chunk[lane] = f(chunk[lane]);
            sums[lane] += chunk[lane];
        }
    }
    let mut after = 0.0;
    for x in rest {
        *x = f(*x);
        after += *x;
    }
    sums.iter().sum::<f32>() + after
}

/// The largest number, or −∞ of none, in independent chains as in [`sum`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn largest(numbers: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = numbers.as_chunks::<16>();
    let mut best = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for lane in 0..16 {
            best[lane] = larger(best[lane], chunk[lane]);
        }
    }
    best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_within_2e_7() {
        for i in 0..=8_700 {
            let x = -(i as f32) / 100.0;
            let (found, expected) = (f64::from(super::exp(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 2e-7, "exp({x}) = {found}, not {expected}");
        }
        assert!(super::exp(f32::NAN).is_nan());
    }

    #[test]
    fn normal_below_is_within_2e_7() {
        for i in -800..=800 {
            let x = i as f32 / 100.0;
            // The expected value is ½ plus the density times x + x³/3 + x⁵/(3·5) + …
            let wide = f64::from(x);
            let terms = std::iter::successors(Some((wide, 3.0)), |&(term, n)| Some((term * wide * wide / n, n + 2.0)));
            let density = (-wide * wide / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let expected = 0.5 + density * terms.take(200).map(|(term, _)| term).sum::<f64>();
            let found = super::normal_below(x);
            assert!((f64::from(found) - expected).abs() < 2e-7, "below {x}: {found}, not {expected}");
        }
        let ends = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN].map(super::normal_below);
        assert!(ends[0] < 1e-37 && ends[1] == 1.0 && ends[2].is_nan(), "{ends:?}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn exp_to_round_is_within_1e_5() {
        for i in 0..=8_700 {
            let x = -(i as f32) / 100.0;
            let (found, expected) = (f64::from(super::exp_to_round(x)), f64::from(x).exp());
            assert!((found / expected - 1.0).abs() < 1e-5, "exp({x}) = {found}, not {expected}");
        }
        assert!(super::exp_to_round(f32::NEG_INFINITY) < 1e-37 && super::exp_to_round(f32::NAN).is_nan());
    }
}
