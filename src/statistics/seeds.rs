//! A score over several seeds.

/// The mean of a score over seeds, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seeds {
    /// The mean.
    pub mean: f64,
    /// The standard error of the mean.
    pub standard_error: f64,
    /// Half the width of the 95 % interval around the mean, by Student's distribution.
    pub half_width: f64,
}

/// The 97.5 % points of Student's distribution for 1, 2, … degrees of freedom, from SciPy 1.17.1: `scipy.stats.t.ppf(0.975, df)`.
const STUDENT: [f64; 10] = [
    12.706204736174694,
    4.302652729749462,
    3.1824463052837078,
    2.7764451051977934,
    2.5705818356363146,
    2.4469118511449786,
    2.364624251592784,
    2.306004135204166,
    2.262157162798205,
    2.228138851986274,
];

/// The mean of `scores`, one for each seed; `None` for fewer than two.
pub fn seeds(scores: &[f64]) -> Option<Seeds> {
    let count = scores.len();
    let freedom = count.checked_sub(1).filter(|freedom| *freedom > 0)?;
    let mean = scores.iter().sum::<f64>() / count as f64;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / freedom as f64;
    let standard_error = (variance / count as f64).sqrt();
    Some(Seeds { mean, standard_error, half_width: student(freedom) * standard_error })
}

/// The 97.5 % point of Student's distribution; beyond the table by the first terms of its expansion, which is right to four digits there.
fn student(freedom: usize) -> f64 {
    const NORMAL: f64 = 1.959963984540054;
    let (z, n) = (NORMAL, freedom as f64);
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    let expansion = terms.iter().rev().fold(0.0, |sum, term| (sum + term) / n) + z;
    STUDENT.get(freedom - 1).copied().unwrap_or(expansion)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From SciPy 1.17.1: `scipy.stats.t.interval(0.95, 4, loc=mean, scale=sem)`.
    #[test]
    fn intervals_are_those_of_scipy() {
        let found = seeds(&[81.2, 80.1, 83.4, 82.0, 79.5]).unwrap();
        assert!((found.mean - 81.24).abs() < 1e-9);
        assert!((found.mean - found.half_width - 79.31922967113354).abs() < 1e-9);
        assert!((found.mean + found.half_width - 83.16077032886648).abs() < 1e-9);
        assert_eq!(seeds(&[1.0]), None);
        // `scipy.stats.t.ppf(0.975, 10)` by the expansion that serves from 11 on.
        assert!((student(11) - 2.200985160091639).abs() < 2e-4, "{}", student(11));
        assert!((student(200) - 1.9718962236339088).abs() < 1e-6);
    }
}
