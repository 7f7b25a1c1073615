//! Attention dispersion: the tower's `[CLS]` attends to few tokens, the decoder's last token a little to all of them.
//!
//! Both attentions (in the decoder, that of the second layer) are given in two forms: the share that the best tokens
//! have together, averaged over images, and the distribution of single values, the largest of all images being 1.

use super::Attention;

/// The number of bins of a distribution.
pub const BINS: usize = 200;

/// The attention values of all images.
#[derive(Clone, Debug, Default)]
pub struct Dispersion {
    /// The attention of `[CLS]`, image by image.
    cls: Vec<Vec<f32>>,
    /// The attention of the last token, image by image.
    last: Vec<Vec<f32>>,
}

/// The spread of one attention over the tokens.
#[derive(Clone, Debug)]
pub struct Spread {
    /// The share of the attention that the best tokens have together: entry `i` is for the best `i + 1` tokens.
    pub cumulative: Vec<f32>,
    /// The distribution of single values.
    pub histogram: Histogram,
}

/// Counts in [`BINS`] bins of one width.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// The ends of the bins, one more than there are counts.
    pub edges: Vec<f64>,
    /// The number of values in each bin; a value at the last end belongs to the last bin.
    pub counts: Vec<u64>,
}

impl Dispersion {
    /// Counts an image whose attention was measured in two layers of the decoder.
    pub fn add(&mut self, attention: &Attention) {
        self.cls.push(attention.cls.clone());
        self.last.extend(attention.layers.get(1).map(|[_, _, last]| last.clone()));
    }

    /// The spread of the attention of `[CLS]`, then of the last token.
    pub fn spreads(&self) -> [Spread; 2] {
        [&self.cls, &self.last].map(|images| Spread { cumulative: cumulative(images), histogram: histogram(images) })
    }
}

fn cumulative(images: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0f64; images.first().map_or(0, Vec::len)];
    for image in images {
        let mut sorted: Vec<f64> = image.iter().map(|&value| f64::from(value)).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let total: f64 = sorted.iter().sum();
        mean.iter_mut().zip(sorted).for_each(|(mean, value)| *mean += value / total / images.len() as f64);
    }
    let mut sum = 0.0;
    mean.iter()
        .map(|share| {
            sum += share;
            sum as f32
        })
        .collect()
}

fn histogram(images: &[Vec<f32>]) -> Histogram {
    let values = || images.iter().flatten().map(|&value| f64::from(value));
    let largest = values().fold(f64::MIN_POSITIVE, f64::max);
    let (least, most) = (values().fold(f64::INFINITY, f64::min) / largest, 1.0);
    // Equal values lie in the middle of a range of 1, as in numpy.
    let (least, most) = if least < most { (least, most) } else { (most - 0.5, most + 0.5) };
    let edges: Vec<f64> = (0..=BINS).map(|i| least + (most - least) * i as f64 / BINS as f64).collect();
    let mut counts = vec![0; BINS];
    for value in values().map(|value| value / largest) {
        let bin = ((value - least) / (most - least) * BINS as f64) as usize;
        counts[bin.min(BINS - 1)] += 1;
    }
    Histogram { edges, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_every_value_is_counted() {
        let images = [vec![0.1, 0.3, 0.2], vec![0.5, 0.0, 0.5]];
        let found = cumulative(&images);
        assert!((found[0] - 0.5).abs() < 1e-6 && (found[2] - 1.0).abs() < 1e-6, "{found:?}");
        let Histogram { edges, counts } = histogram(&images);
        assert_eq!((edges.len(), counts.iter().sum::<u64>()), (BINS + 1, 6));
        assert_eq!((counts[0], counts[BINS - 1]), (1, 2));
        assert_eq!(histogram(&[vec![0.25; 3]]).counts.iter().sum::<u64>(), 3);
    }
}
