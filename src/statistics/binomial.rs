//! McNemar's exact test.

/// The two-sided p-value of McNemar's exact test: `first` and `second` are the numbers of questions that only one of two runs answers right. It is
/// the chance that a fair coin falls at least as unevenly, as SciPy's `binomtest(first, first + second)`; 1 where the runs never differ.
pub fn mcnemar(first: usize, second: usize) -> f64 {
    let tosses = first + second;
    // The smaller tail from its largest term down: only a chance that no number can hold becomes 0.
    let mut chance = log_chance(tosses, first.min(second)).exp();
    let mut tail = 0.0;
    for heads in (0..=first.min(second)).rev() {
        tail += chance;
        chance *= heads as f64 / (tosses - heads + 1) as f64;
    }
    (2.0 * tail).min(1.0)
}

/// The logarithm of the chance that a fair coin shows `heads` heads in `tosses` tosses.
fn log_chance(tosses: usize, heads: usize) -> f64 {
    let logs = |from: usize, to: usize| (from..=to).map(|i| (i as f64).ln()).sum::<f64>();
    logs(tosses - heads + 1, tosses) - logs(1, heads) - tosses as f64 * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From SciPy 1.17.1: `scipy.stats.binomtest(a, a + b).pvalue`.
    #[test]
    fn p_values_are_those_of_scipy() {
        for (a, b, expected) in SCIPY {
            for found in [mcnemar(a, b), mcnemar(b, a)] {
                assert!((found / expected - 1.0).abs() < 1e-9, "{a} and {b}: {found}, not {expected}");
            }
        }
        assert_eq!(mcnemar(0, 0), 1.0);
    }

    const SCIPY: [(usize, usize, f64); 8] = [
        (1, 0, 1.0),
        (3, 1, 0.625),
        (5, 5, 1.0),
        (12, 3, 0.03515625),
        (40, 22, 0.030015864349067285),
        (0, 17, 1.52587890625e-05),
        (300, 240, 0.011050481081929898),
        (2500, 2300, 0.0040700698140690795),
    ];
}
