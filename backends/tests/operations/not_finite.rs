//! Numbers that are not finite, in every input of every operation.

use burn::tensor::{Tensor, TensorPrimitive};
use secateur_backends::{Mask, VlmBackend};

use crate::operations::Check;

impl<B: VlmBackend> Check<B> {
    /// NaN in an input is NaN in the result: a kernel that hides it hides a broken checkpoint.
    pub(super) fn not_finite(&mut self) {
        for (rows, inputs, outputs) in [(1, 64, 64), (5, 96, 31), (70, 1024, 512)] {
            let (x, weight) = (self.numbers(rows * inputs), self.numbers_in(self.weights, outputs * inputs));
            let broken = |numbers: &[f64]| [&[f64::NAN], &numbers[1..]].concat();
            for (of_x, of_weight, row, column) in
                [(broken(&x), weight.clone(), Some(0), None), (x.clone(), broken(&weight), None, Some(0))]
            {
                let of_x = || self.tensor(&of_x, [rows, inputs]).into_primitive().tensor();
                let of_weight =
                    || self.tensor_in(self.weights, &of_weight, [outputs, inputs]).into_primitive().tensor();
                for found in [B::linear_rows(of_x(), of_weight()), B::linear_rows_bf16(of_x(), of_weight())] {
                    let found = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(found));
                    let what = format!("a product of {rows}×{inputs}×{outputs}");
                    self.broken(&what, found, |i| row == Some(i / outputs) || column == Some(i % outputs));
                }
            }
        }
        for (queries, keys, heads, width) in [(1, 40, 2, 16), (40, 40, 4, 16), (1, 70, 4, 64), (70, 70, 4, 64)] {
            for which in 0..3 {
                let inputs = [queries, keys, keys].map(|tokens| self.numbers(tokens * heads * width));
                let mut inputs = inputs.into_iter().enumerate().map(|(i, mut numbers)| {
                    // Of every token the first number of the first head.
                    let step = if i == which { heads * width } else { usize::MAX };
                    numbers
                        .iter_mut()
                        .step_by(step)
                        .take(if i == which { usize::MAX } else { 0 })
                        .for_each(|x| *x = f64::NAN);
                    let tokens = numbers.len() / (heads * width);
                    self.tensor(&numbers, [1, tokens, heads, width]).swap_dims(1, 2)
                });
                let [q, k, v] = std::array::from_fn(|_| inputs.next().unwrap());
                for mask in [Mask::None, Mask::Causal] {
                    let found = [
                        B::attend(q.clone(), k.clone(), v.clone(), mask),
                        B::attend_bf16(q.clone(), k.clone(), v.clone(), mask),
                    ];
                    for found in found {
                        let what = format!("attention of {queries} to {keys}, {mask:?}, input {which}");
                        let first = queries * width;
                        self.broken(&what, found, |i| i < first && (which < 2 || i % width == 0));
                    }
                }
            }
        }
        let (x, weight) = (self.numbers(3 * 320), self.numbers(320));
        let x = self.tensor(&[&[f64::NAN], &x[1..]].concat(), [3, 320]);
        let weight = self.tensor(&weight, [320]);
        self.broken("rms_norm", B::rms_norm_rows(x.clone(), weight.clone(), 1e-5), |i| i < 320);
        self.broken("layer_norm", B::layer_norm_rows(x.clone(), weight.clone(), weight, 1e-5), |i| i < 320);
        let x = x.unsqueeze::<3>();
        for found in [B::quick_gelu(x.clone()), B::exact_gelu(x.clone()), B::silu_mul(x.clone(), x.clone())] {
            self.broken("a step", found, |i| i == 0);
        }
    }

    /// Checks which numbers of a result are none.
    fn broken<const D: usize>(&self, what: &str, found: Tensor<B, D>, is_nan: impl Fn(usize) -> bool) {
        let found: Vec<f32> = found.into_data().convert::<f32>().into_vec().unwrap();
        for (i, found) in found.iter().enumerate() {
            assert_eq!(found.is_nan(), is_nan(i), "{what}, {:?}, number {i}: {found}", self.weights);
        }
    }
}
