//! What the tests of kernels compare by.

use burn::tensor::Tensor;

use crate::Flex;

/// The largest difference between two lists of one length; NaN where one is NaN.
pub(crate) fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(!found.is_empty());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

/// The largest difference between two tensors of one shape; NaN where one is NaN, which Flex's own `max` drops if a number follows.
pub(crate) fn difference<const D: usize>(found: Tensor<Flex, D>, expected: Tensor<Flex, D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found, expected].map(|x| x.into_data().to_vec::<f32>().unwrap());
    worst(&found, &expected)
}

/// The instructions that tests name, for `SECATEUR_REQUIRE_PATHS`.
const PATHS: [&str; 4] = ["amx", "avx512bf16", "avx512", "avx2"];

/// Whether the processor has the instructions that a test of `path` needs. Where it has not, the test says so and passes, unless
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

#[cfg(target_arch = "x86_64")]
fn is_there(path: &str) -> bool {
    match path {
        #[cfg(target_os = "linux")]
        "amx" => crate::kernels::has_matrix_unit(),
        "avx512bf16" => {
            is_x86_feature_detected!("avx512bf16")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
        }
        "avx512" => {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
        "avx2" => {
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
        }
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn is_there(_path: &str) -> bool {
    false
}

#[test]
fn nan_is_the_worst_difference() {
    assert!(worst(&[1.0, f32::NAN, 2.0], &[1.0, 2.0, 2.0]).is_nan());
    let [nan, numbers] =
        [[1.0, f32::NAN, 2.0], [1.0, 2.0, 2.5]].map(|x| Tensor::<Flex, 1>::from_floats(x, &Default::default()));
    assert!(difference(nan, numbers.clone()).is_nan());
    assert_eq!(difference(numbers.clone(), numbers), 0.0);
}
