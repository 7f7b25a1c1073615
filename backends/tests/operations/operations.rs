//! The operations that backends override, against plain loops in float64: in f32 on every backend, and in 16 bits on those that
//! compute in them.

use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use rand::{Rng, SeedableRng, rngs::StdRng};
use secateur_backends::{Job, Mask, VlmBackend};

use crate::every_backend::on_every_backend;

#[derive(Clone, Copy)]
enum Operations {
    Norms,
    Steps,
    Rotation,
    Products,
    Attention,
    Rounded,
    NotFinite,
}

impl Operations {
    /// Whether it reads weights, which a backend may keep in 16 bits while activations are in f32.
    fn reads_weights(self) -> bool {
        matches!(self, Self::Products | Self::Rounded | Self::NotFinite)
    }
}

impl Job for Operations {
    /// The backend's name, and the types of weights that were tried.
    type Output = (String, Vec<DType>);

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let mut tried = Vec::new();
        for weights in [DType::F32, DType::F16, DType::BF16] {
            let dtype = B::activation_dtype(weights);
            // Between products nothing differs from f32 where activations are in f32.
            let again = weights != DType::F32 && dtype == DType::F32 && !self.reads_weights();
            if B::weight_dtype(weights, &device) != weights || again {
                continue;
            }
            tried.push(weights);
            let random = StdRng::seed_from_u64(7);
            let mut check = Check::<B> { device: device.clone(), dtype, weights, random };
            match self {
                Self::Norms => check.norms(),
                Self::Steps => check.steps(),
                Self::Rotation => check.rotation(),
                Self::Products => check.products(),
                Self::Attention => check.attention(),
                Self::Rounded => check.rounded(),
                Self::NotFinite => check.not_finite(),
            }
        }
        (B::name(&device), tried)
    }
}

/// Tries the operations, and looks at what was tried: a round that is passed over tests nothing.
fn try_on_every_backend(operations: Operations) {
    for (backend, tried) in on_every_backend(&operations) {
        match (&backend[..], operations.reads_weights()) {
            ("flex", true) => assert_eq!(tried, [DType::F32, DType::F16, DType::BF16]),
            _ => assert!(tried.contains(&DType::F32), "{backend}"),
        }
    }
}

pub(super) struct Check<B: VlmBackend> {
    device: B::Device,
    /// That of activations.
    dtype: DType,
    pub(super) weights: DType,
    random: StdRng,
}

impl<B: VlmBackend> Check<B> {
    /// Random numbers, as activations hold them.
    pub(super) fn numbers(&mut self, count: usize) -> Vec<f64> {
        self.numbers_in(self.dtype, count)
    }

    /// Random numbers, as `dtype` holds them.
    pub(super) fn numbers_in(&mut self, dtype: DType, count: usize) -> Vec<f64> {
        (0..count)
            .map(|_| {
                let value: f32 = self.random.random_range(-2.0..2.0);
                match dtype {
                    DType::F16 => half::f16::from_f32(value).to_f64(),
                    DType::BF16 => half::bf16::from_f32(value).to_f64(),
                    _ => value.into(),
                }
            })
            .collect()
    }

    pub(super) fn tensor<const D: usize>(&self, values: &[f64], shape: [usize; D]) -> Tensor<B, D> {
        self.tensor_in(self.dtype, values, shape)
    }

    pub(super) fn tensor_in<const D: usize>(&self, dtype: DType, values: &[f64], shape: [usize; D]) -> Tensor<B, D> {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), (&self.device, dtype))
    }

    /// Compares with a tolerance relative to the largest number.
    fn same<const D: usize>(&self, what: &str, found: Tensor<B, D>, expected: &[f64]) {
        let tolerance = match self.dtype {
            DType::F16 => 2e-3,
            DType::BF16 => 1.6e-2,
            _ => 4e-6,
        };
        self.within(tolerance, what, found, expected);
    }

    /// The same with a tolerance of its own.
    fn within<const D: usize>(&self, tolerance: f64, what: &str, found: Tensor<B, D>, expected: &[f64]) {
        assert_eq!(found.dtype(), self.dtype, "{what}");
        let found: Vec<f32> = found.into_data().convert::<f32>().into_vec().unwrap();
        assert_eq!(found.len(), expected.len(), "{what}");
        let largest = expected.iter().fold(1.0f64, |largest, value| largest.max(value.abs()));
        let tolerance = largest * tolerance;
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference <= tolerance, "{what}, {:?}, number {i}: {found}, not {expected}", self.weights);
        }
    }

    fn norms(&mut self) {
        for (rows, width) in [(1, 8), (3, 300), (70, 1024)] {
            let (x, weight, bias) = (self.numbers(rows * width), self.numbers(width), self.numbers(width));
            let [rms, layer] = [false, true].map(|centred| {
                let rows = x.chunks(width).flat_map(|row| {
                    let mean = if centred { row.iter().sum::<f64>() / width as f64 } else { 0.0 };
                    let square = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / width as f64;
                    let scale = (square + 1e-5).sqrt();
                    let bias = |i: usize| if centred { bias[i] } else { 0.0 };
                    row.iter()
                        .enumerate()
                        .map(|(i, value)| (value - mean) / scale * weight[i] + bias(i))
                        .collect::<Vec<_>>()
                });
                rows.collect::<Vec<f64>>()
            });
            let [one, other] = [&weight, &bias].map(|values| self.tensor(values, [width]));
            // Rows with a gap between them.
            let gap = Tensor::zeros([rows, 5], (&self.device, self.dtype));
            let x = Tensor::cat(vec![self.tensor(&x, [rows, width]), gap], 1).narrow(1, 0, width);
            self.same("rms_norm", B::rms_norm_rows(x.clone(), one.clone(), 1e-5), &rms);
            self.same("layer_norm", B::layer_norm_rows(x, one, other, 1e-5), &layer);
        }
    }

    fn steps(&mut self) {
        // Activations of very large numbers, which have no f16.
        if self.dtype == DType::F32 {
            let x = [-3e38, -1e30, -200.0, -89.0, 0.0, 89.0, 1e30];
            let expected: Vec<f64> = x.iter().map(|&value| if value > 0.0 { value } else { 0.0 }).collect();
            let (large, one) = (self.tensor(&x, [1, 1, 7]), Tensor::ones([1, 1, 7], (&self.device, self.dtype)));
            let values = |x: Tensor<B, 3>| x.into_data().convert::<f32>().into_vec::<f32>().unwrap();
            for found in [values(B::silu_mul(large.clone(), one)), values(B::quick_gelu(large))] {
                let is_near = |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs() <= expected * 1e-5;
                assert_eq!(found.len(), expected.len());
                assert!(found.iter().zip(&expected).all(is_near), "{found:?}");
            }
        }
        for (rows, width) in [(1, 5), (33, 344)] {
            let (x, y) = (self.numbers(rows * width), self.numbers(rows * width));
            let logistic = |value: f64| 1.0 / (1.0 + (-value).exp());
            let gated: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x * logistic(*x) * y).collect();
            let quick: Vec<f64> = x.iter().map(|x| x * logistic(1.702 * x)).collect();
            let exact: Vec<f64> = x.iter().map(|x| x * normal_below(*x)).collect();
            let (x, y) = (self.tensor(&x, [1, rows, width]), self.tensor(&y, [1, rows, width]));
            self.same("gate", B::silu_mul(x.clone(), y), &gated);
            self.same("quick_gelu", B::quick_gelu(x.clone()), &quick);
            self.same("exact_gelu", B::exact_gelu(x), &exact);
        }
    }

    fn rotation(&mut self) {
        let (heads, tokens, width) = (3, 9, 16);
        let (x, half) = (self.numbers(tokens * heads * width), self.numbers(2 * tokens * width / 2));
        // A part of a longer table, as after a cached prompt, and heads seen in rows of tokens, as after a product.
        let table = |first: usize| {
            move |half: &[f64], token: usize, i: usize| half[(first + token) * width / 2 + i % (width / 2)]
        };
        let (cos, sin) = (table(tokens), table(0));
        let mut expected = Vec::new();
        for head in 0..heads {
            for token in 0..tokens {
                let row = &x[(token * heads + head) * width..][..width];
                for i in 0..width {
                    let turned = if i < width / 2 { -row[i + width / 2] } else { row[i - width / 2] };
                    expected.push(row[i] * cos(&half, token, i) + turned * sin(&half, token, i));
                }
            }
        }
        let half = self.tensor(&half, [1, 1, 2 * tokens, width / 2]);
        let whole = Tensor::cat(vec![half.clone(), half], 3);
        let x = self.tensor(&x, [1, tokens, heads, width]).swap_dims(1, 2);
        let found = B::apply_rope(x, whole.clone().narrow(2, tokens, tokens), whole.narrow(2, 0, tokens));
        self.same("rotate", found, &expected);
    }

    fn products(&mut self) {
        // A row, few, some, and so many that large GPUs choose large tiles; then inputs that are an odd number of their stages.
        let shapes = [(1, 128, 344), (1, 344, 128), (5, 256, 96), (130, 344, 130), (1100, 300, 1030)];
        let odd =
            [(2, 32, 16), (5, 96, 64), (70, 160, 64), (1100, 96, 1030), (576, 40, 2), (600, 616, 128), (1, 96, 40)];
        // Matrices of 2^18 numbers and more, which CPUs multiply in other ways.
        let large = [(8, 512, 512), (70, 1024, 512)];
        for (rows, inputs, outputs) in shapes.into_iter().chain(odd).chain(large) {
            let (x, weight, expected) = self.product(rows, inputs, outputs);
            let found = B::linear_rows(x.clone().into_primitive().tensor(), weight.clone().into_primitive().tensor());
            let what = format!("linear of {rows}×{inputs}×{outputs}");
            self.same(&what, Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(found)), &expected);
            if self.weights == self.dtype {
                self.same("product", B::matmul_f32(x, weight.transpose()), &expected);
            }
        }
    }

    /// Activations `[rows, inputs]`, a weight `[outputs, inputs]`, and their product.
    fn product(&mut self, rows: usize, inputs: usize, outputs: usize) -> (Tensor<B, 2>, Tensor<B, 2>, Vec<f64>) {
        let (x, weight) = (self.numbers(rows * inputs), self.numbers_in(self.weights, outputs * inputs));
        let product = |row: &[f64], weight: &[f64]| row.iter().zip(weight).map(|(a, b)| a * b).sum::<f64>();
        let expected = x
            .chunks(inputs)
            .flat_map(|row| weight.chunks(inputs).map(|weight| product(row, weight)).collect::<Vec<_>>())
            .collect();
        (self.tensor(&x, [rows, inputs]), self.tensor_in(self.weights, &weight, [outputs, inputs]), expected)
    }

    /// Products and attention of whoever asks for bf16: inputs may be rounded to it, and nothing else.
    fn rounded(&mut self) {
        let rounds = self.weights == DType::BF16;
        for (rows, inputs, outputs) in [(1, 4096, 64), (5, 320, 70), (66, 96, 31), (70, 1024, 512)] {
            let (x, weight, expected) = self.product(rows, inputs, outputs);
            let found = B::linear_rows_bf16(x.into_primitive().tensor(), weight.into_primitive().tensor());
            let found = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(found));
            let what = format!("linear_rows_bf16 of {rows}×{inputs}×{outputs}");
            match rounds {
                true => self.within(1.6e-2, &what, found, &expected),
                false => self.same(&what, found, &expected),
            }
        }
    }

    fn attention(&mut self) {
        // One query, a whole sequence, the end of one; and heads too wide for some kernels' blocks.
        for (queries, keys, width) in
            [(1, 1, 32), (1, 700, 128), (77, 77, 64), (40, 100, 32), (1, 9, 300), (200, 200, 64)]
        {
            for group in [1, 3] {
                self.attention_of(queries, keys, width, group);
            }
        }
    }

    /// Two heads of keys, each shared by `group` heads of queries.
    fn attention_of(&mut self, queries: usize, keys: usize, width: usize, group: usize) {
        let kv_heads = 2;
        let heads = kv_heads * group;
        let q = self.numbers(queries * heads * width);
        let [k, v] = [0, 1].map(|_| self.numbers(keys * kv_heads * width));
        let [of_q, of_k, of_v] = [(&q, queries, heads), (&k, keys, kv_heads), (&v, keys, kv_heads)]
            .map(|(values, tokens, heads)| self.tensor(values, [1, tokens, heads, width]).swap_dims(1, 2));
        for mask in [Mask::None, Mask::Causal] {
            let mut expected = Vec::new();
            for head in 0..heads {
                let query_row = |token: usize| &q[(token * heads + head) * width..][..width];
                let row = |of: &[f64], token: usize| of[(token * kv_heads + head / group) * width..][..width].to_vec();
                for query in 0..queries {
                    let seen = if mask == Mask::Causal { keys - queries + query + 1 } else { keys };
                    let dot = |key: usize| {
                        let both = query_row(query).iter().zip(row(&k, key));
                        both.map(|(a, b)| a * b).sum::<f64>() / (width as f64).sqrt()
                    };
                    let scores: Vec<f64> = (0..seen).map(dot).collect();
                    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let shares: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
                    let total: f64 = shares.iter().sum();
                    for i in 0..width {
                        let found = (0..seen).map(|key| shares[key] * row(&v, key)[i]).sum::<f64>();
                        expected.push(found / total);
                    }
                }
            }
            let what = format!("attention of {queries} to {keys}, {group} heads to each of keys, {mask:?}");
            self.same(&what, B::attend(of_q.clone(), of_k.clone(), of_v.clone(), mask), &expected);
        }
    }
}

/// The share of a normal distribution below `x`, for `x` from −4 to 4: ½ and the density times x + x³/3 + x⁵/(3·5) + …
fn normal_below(x: f64) -> f64 {
    let terms = std::iter::successors(Some((x, 3.0)), |&(term, n)| Some((term * x * x / n, n + 2.0)));
    0.5 + (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * terms.take(60).map(|(term, _)| term).sum::<f64>()
}

// A test each, so that one that fails does not hide the others.

#[test]
fn norms_are_what_they_say() {
    try_on_every_backend(Operations::Norms);
}

#[test]
fn steps_between_products_are_what_they_say() {
    try_on_every_backend(Operations::Steps);
}

#[test]
fn rotation_is_what_it_says() {
    try_on_every_backend(Operations::Rotation);
}

#[test]
fn products_are_what_they_say() {
    try_on_every_backend(Operations::Products);
}

#[test]
fn attention_is_what_it_says() {
    try_on_every_backend(Operations::Attention);
}

#[test]
fn what_is_no_number_stays_none() {
    try_on_every_backend(Operations::NotFinite);
}

#[test]
fn products_that_may_round_are_what_they_say() {
    try_on_every_backend(Operations::Rounded);
}
