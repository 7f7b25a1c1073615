//! An operation beside its reference body.

use std::time::Instant;

use burn::tensor::{DType, Distribution, Tensor};
use secateur_backends::{
    VlmBackend,
    operations::{Operation, by_reference, use_reference},
    quietly,
};

/// The runs whose median is an operation's time.
const REPEATS: usize = 3;

/// An operation at a shape.
pub(super) struct Row {
    pub(super) operation: Operation,
    pub(super) shape: String,
    /// The type of the weights; activations have that of [`VlmBackend::activation_dtype`].
    pub(super) weights: DType,
    /// The largest difference from the reference body, as a share of its largest number, or why there is none.
    pub(super) error: Result<f64, String>,
    pub(super) allowed: f64,
    /// Milliseconds.
    pub(super) time: f64,
    /// Milliseconds that the first run took longer: kernels are compiled in it.
    pub(super) first: f64,
}

impl Row {
    pub(super) fn is_right(&self) -> bool {
        // NaN is not right.
        self.error.as_ref().is_ok_and(|&error| error <= self.allowed)
    }
}

/// Compares operations for one type of weights.
pub(super) struct Checker<'a, B: VlmBackend> {
    device: &'a B::Device,
    pub(super) weights: DType,
    pub(super) activations: DType,
    /// The bytes of the largest tensor that the device holds.
    largest: u64,
    /// When large shapes are left out.
    deadline: Instant,
    pub(super) rows: Vec<Row>,
    /// How many were left out.
    pub(super) left_out: usize,
}

impl<'a, B: VlmBackend> Checker<'a, B> {
    pub(super) fn new(device: &'a B::Device, weights: DType, largest: u64, deadline: Instant) -> Self {
        let activations = B::activation_dtype(weights);
        Self { device, weights, activations, largest, deadline, rows: Vec::new(), left_out: 0 }
    }

    /// Whether the device holds a tensor of so many numbers, which its reference body may make f32. If not, the shape is left out.
    pub(super) fn holds(&mut self, numbers: usize) -> bool {
        let holds = (numbers * size_of::<f32>()) as u64 <= self.largest;
        self.left_out += usize::from(!holds);
        holds
    }

    /// Random activations.
    pub(super) fn activations<const D: usize>(&self, shape: [usize; D]) -> Tensor<B, D> {
        self.random(shape, self.activations, 1.0)
    }

    /// Random numbers from `-scale` to `scale`.
    pub(super) fn random<const D: usize>(&self, shape: [usize; D], dtype: DType, scale: f64) -> Tensor<B, D> {
        Tensor::<B, D>::random(shape, Distribution::Uniform(-scale, scale), self.device).cast(dtype)
    }

    /// The share of the largest number by which roundings may differ.
    pub(super) fn tolerance(&self) -> f64 {
        match self.activations {
            DType::F16 => 4e-3,
            DType::BF16 => 3.2e-2,
            _ => 1e-5,
        }
    }

    /// Compares `work` with itself, where the operation goes by its reference body. `large` shapes may be left out.
    pub(super) fn compare<const D: usize>(
        &mut self,
        operation: Operation,
        shape: impl Into<String>,
        large: bool,
        allowed: f64,
        work: impl Fn() -> Tensor<B, D>,
    ) {
        if large && Instant::now() > self.deadline {
            self.left_out += 1;
            return;
        }
        let (mut time, mut first) = (f64::NAN, f64::NAN);
        let run = || {
            let began = Instant::now();
            let result = work();
            let _ = B::sync(self.device);
            (1e3 * began.elapsed().as_secs_f64(), result)
        };
        let said = |reason: Option<String>| reason.unwrap_or_else(|| "it panicked".to_owned());
        let own = quietly(|| {
            let (began, own) = run();
            let mut times: Vec<f64> = (0..REPEATS).map(|_| run().0).collect();
            times.sort_by(f64::total_cmp);
            (time, first) = (times[REPEATS / 2], (began - times[REPEATS / 2]).max(0.0));
            own
        });
        let asked = by_reference();
        use_reference(&[operation]);
        let error = own.map_err(said).and_then(|own| {
            let error = quietly(|| error(own, work()));
            error.map_err(|reason| format!("the reference body failed: {}", said(reason)))
        });
        use_reference(&asked);
        let (weights, shape) = (self.weights, shape.into());
        self.rows.push(Row { operation, shape, weights, error, allowed, time, first });
    }
}

impl<B: VlmBackend> Checker<'_, B> {
    /// Compares some outputs of a linear layer with dot products in float64 on the processor. On a device whose linear layer is its reference
    /// body, this alone can find a product that is wrong.
    pub(super) fn compare_with_float64(
        &mut self,
        shape: &str,
        [x, weight]: [&Tensor<B, 2>; 2],
        work: impl Fn() -> Tensor<B, 2>,
    ) {
        const OUTPUTS: usize = 16;
        let ([rows, inputs], outputs) = (x.dims(), weight.dims()[0]);
        let row = |x: &Tensor<B, 2>, at: usize| -> Vec<f64> {
            x.clone().narrow(0, at, 1).into_data().convert::<f64>().into_vec().unwrap_or_default()
        };
        let began = Instant::now();
        let found = quietly(|| {
            let found: Vec<f64> = work().into_data().convert::<f64>().into_vec().unwrap_or_default();
            let time = 1e3 * began.elapsed().as_secs_f64();
            let (mut worst, mut largest) = (0.0f64, f64::MIN_POSITIVE);
            for at in [0, rows - 1] {
                let x = row(x, at);
                for output in (0..OUTPUTS).map(|i| i * (outputs - 1) / (OUTPUTS - 1)) {
                    let expected: f64 = x.iter().zip(row(weight, output)).map(|(a, b)| a * b).sum();
                    let difference =
                        found.get(at * outputs + output).map_or(f64::INFINITY, |found| (found - expected).abs());
                    worst =
                        if difference.is_finite() && x.len() == inputs { worst.max(difference) } else { f64::INFINITY };
                    largest = largest.max(expected.abs());
                }
            }
            (worst / largest, time)
        });
        let (error, time) = match found {
            Ok((error, time)) => (Ok(error), time),
            Err(reason) => (Err(reason.unwrap_or_else(|| "it panicked".to_owned())), f64::NAN),
        };
        let (weights, allowed, shape) = (self.weights, self.tolerance(), format!("{shape}, by float64"));
        self.rows.push(Row { operation: Operation::Linear, shape, weights, error, allowed, time, first: 0.0 });
    }
}

/// The largest difference as a share of the largest number of `reference`; infinite where numbers are not finite or the shapes differ.
fn error<B: VlmBackend, const D: usize>(own: Tensor<B, D>, reference: Tensor<B, D>) -> f64 {
    let values = |x: Tensor<B, D>| x.into_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
    if own.dims() != reference.dims() {
        return f64::INFINITY;
    }
    let (own, reference) = (values(own), values(reference));
    if own.is_empty() || own.len() != reference.len() || own.iter().chain(&reference).any(|value| !value.is_finite()) {
        return f64::INFINITY;
    }
    let largest = reference.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let difference = own.iter().zip(&reference).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    f64::from(difference) / f64::from(largest)
}

#[cfg(test)]
mod tests {
    use secateur_backends::Flex;

    use super::*;

    fn compare(own: &[f32], reference: &[f32]) -> f64 {
        let tensor = |values: &[f32]| Tensor::<Flex, 1>::from_floats(values, &Default::default());
        error(tensor(own), tensor(reference))
    }

    #[test]
    fn errors_are_shares_and_nothing_broken_is_small() {
        assert_eq!(compare(&[1.0, 2.0, -4.0], &[1.0, 2.5, -4.0]), 0.125);
        assert_eq!(compare(&[1.0, f32::NAN], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(compare(&[1.0], &[f32::INFINITY]), f64::INFINITY);
        assert_eq!(compare(&[1.0], &[1.0, 1.0]), f64::INFINITY);
    }

    /// A product that is wrong in the same way with its reference body is found.
    #[test]
    fn float64_finds_a_product_that_is_wrong_in_itself() {
        let device = Default::default();
        let mut checker = Checker::<Flex>::new(&device, DType::F32, 1 << 20, Instant::now());
        let (x, weight) = (checker.activations([3, 40]), checker.activations([7, 40]));
        let right = || x.clone().matmul(weight.clone().transpose());
        checker.compare_with_float64("right", [&x, &weight], right);
        checker.compare_with_float64("one number", [&x, &weight], || right() + 0.01);
        checker.compare_with_float64("none", [&x, &weight], || right() * f32::NAN);
        checker.compare_with_float64("short", [&x, &weight], || right().narrow(0, 0, 1));
        checker.compare_with_float64("broken", [&x, &weight], || panic!("no such kernel"));
        let right: Vec<bool> = checker.rows.iter().map(Row::is_right).collect();
        assert_eq!(right, [true, false, false, false, false]);
    }

    /// The table must show a kernel that is wrong, and one that does not run.
    #[test]
    fn a_wrong_kernel_fails_and_the_others_go_on() {
        let device = Default::default();
        let mut checker = Checker::<Flex>::new(&device, DType::F32, 64, Instant::now());
        let x = checker.activations([3, 4]);
        let is_first = std::cell::Cell::new(0);
        checker.compare(Operation::Linear, "wrong", false, 1e-5, || {
            is_first.set(is_first.get() + 1);
            x.clone() + if is_first.get() <= 1 + REPEATS { 0.1 } else { 0.0 }
        });
        checker.compare(Operation::Attend, "broken", false, 1e-5, || -> Tensor<Flex, 2> { panic!("no such kernel") });
        checker.compare(Operation::RmsNorm, "right", false, 1e-5, || x.clone());
        checker.compare(Operation::RmsNorm, "late", true, 1e-5, || x.clone());
        let right: Vec<bool> = checker.rows.iter().map(Row::is_right).collect();
        assert_eq!(right, [false, false, true]);
        assert_eq!(checker.rows[1].error, Err("no such kernel".to_owned()));
        assert_eq!(checker.left_out, 1);
        assert_eq!([checker.holds(16), checker.holds(17)], [true, false]);
        assert_eq!(checker.left_out, 2);
        assert!(by_reference().is_empty());
    }
}
