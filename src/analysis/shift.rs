//! Attention shift: late tokens are attended to because they are late, which the tower's `[CLS]` does not do.
//!
//! For each visual token: the mean attention of all tokens that can see it (`full`), of the visual ones (`image`), of
//! the text after them (`text`), and of the last token (`last`), averaged over heads and images. As in the official
//! script, `text` is the sum over the text without its last token, divided by the number of text tokens including the last.

use super::Attention;

/// The kinds of tokens whose attention is averaged.
pub const KINDS: [&str; 4] = ["full", "image", "text", "last"];

/// The mean attention over images.
#[derive(Clone, Debug, Default)]
pub struct Shift {
    images: usize,
    cls: Vec<f64>,
    /// The sums by layer, then by [`KINDS`].
    layers: Vec<[Vec<f64>; 4]>,
}

impl Shift {
    /// Counts an image.
    pub fn add(&mut self, attention: &Attention) {
        let Attention { cls, layers, images, all, texts } = attention;
        self.images += 1;
        self.layers.resize_with(layers.len(), Default::default);
        add(&mut self.cls, cls.iter().map(|&paid| f64::from(paid)));
        for (sums, [image, text, last]) in self.layers.iter_mut().zip(layers) {
            let paid = |i: usize| [image[i], text[i], last[i]].map(f64::from);
            let each = |of: &dyn Fn(usize) -> f64| (0..image.len()).map(of).collect::<Vec<f64>>();
            let means = [
                each(&|i| paid(i).iter().sum::<f64>() / all[i] as f64),
                each(&|i| paid(i)[0] / images[i] as f64),
                each(&|i| paid(i)[1] / *texts as f64),
                each(&|i| paid(i)[2]),
            ];
            sums.iter_mut().zip(means).for_each(|(sum, mean)| add(sum, mean.into_iter()));
        }
    }

    /// The attention of the tower's `[CLS]`, a number for each token.
    pub fn cls(&self) -> Vec<f32> {
        self.mean(&self.cls)
    }

    /// The attention in the decoder by layer, then by [`KINDS`], a number for each token.
    pub fn layers(&self) -> Vec<[Vec<f32>; 4]> {
        self.layers.iter().map(|kinds| kinds.each_ref().map(|kind| self.mean(kind))).collect()
    }

    fn mean(&self, sums: &[f64]) -> Vec<f32> {
        sums.iter().map(|sum| (sum / self.images.max(1) as f64) as f32).collect()
    }
}

fn add(sums: &mut Vec<f64>, numbers: impl ExactSizeIterator<Item = f64>) {
    sums.resize(numbers.len(), 0.0);
    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
}
