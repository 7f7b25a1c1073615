//! The helpers of the tests of kernels.

use burn::tensor::{Distribution, Tensor};

use crate::{Flex, kernels::instructions::has};

/// The largest difference between two lists of one length; NaN where one is NaN.
pub(crate) fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(!found.is_empty());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

/// The largest difference between two tensors of one shape; NaN where one is NaN, which Flex's own `max` drops if a
/// number follows.
pub(crate) fn difference<const D: usize>(found: Tensor<Flex, D>, expected: Tensor<Flex, D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found, expected].map(|x| x.into_data().to_vec::<f32>().unwrap());
    worst(&found, &expected)
}

/// The names of instructions in tests, for `SECATEUR_REQUIRE_PATHS`.
const PATHS: [&str; 5] = ["amx", "avx512bf16", "avx512vnni", "avx512", "avx2"];

/// Whether the processor has the instructions that a test of `path` needs. If not, the test says so and passes, unless
/// `SECATEUR_REQUIRE_PATHS` (names with commas) has the path.
pub(crate) fn require(path: &str) -> bool {
    let asked = std::env::var("SECATEUR_REQUIRE_PATHS").unwrap_or_default();
    let asked: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in asked.iter().chain([&path]) {
        assert!(PATHS.contains(name), "`{name}` is none of {PATHS:?}");
    }
    let there = is_there(path);
    assert!(there || !asked.contains(&path), "SECATEUR_REQUIRE_PATHS names {path}, which is not there");
    if !there {
        eprintln!("{}: no {path} here", std::thread::current().name().unwrap_or_default());
    }
    there
}

fn is_there(path: &str) -> bool {
    path.parse().is_ok_and(has)
}

/// Random queries, keys, values and a gradient, laid out as after a product: stored token by token, viewed head by head.
pub(crate) fn tensors(queries: usize, keys: usize) -> [Tensor<Flex, 4>; 4] {
    let random = |tokens| {
        let plain = Tensor::<Flex, 4>::random([2, tokens, 3, 16], Distribution::Normal(0.0, 1.5), &Default::default());
        plain.swap_dims(1, 2)
    };
    [random(queries), random(keys), random(keys), random(queries)]
}

/// Asserts that `found` is `expected`, within 1e-5 of the largest number.
pub(crate) fn check(found: Tensor<Flex, 4>, expected: Tensor<Flex, 4>, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let largest = expected.to_data().iter::<f32>().fold(1.0, |largest: f32, x| {
        assert!(x.is_finite(), "{what}: the reference is {x}");
        largest.max(x.abs())
    });
    let worst = difference(found, expected);
    assert!(worst < 1e-5 * largest, "{what}: {worst} of {largest}");
}

#[test]
fn nan_is_the_worst_difference() {
    assert!(worst(&[1.0, f32::NAN, 2.0], &[1.0, 2.0, 2.0]).is_nan());
    let [nan, numbers] =
        [[1.0, f32::NAN, 2.0], [1.0, 2.0, 2.5]].map(|x| Tensor::<Flex, 1>::from_floats(x, &Default::default()));
    assert!(difference(nan, numbers.clone()).is_nan());
    assert_eq!(difference(numbers.clone(), numbers), 0.0);
}
