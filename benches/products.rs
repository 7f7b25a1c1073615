//! The product that a language model spends its time in, at LLaVA-7B's widths: `x · Wᵀ` for 4,096 inputs and 11,008 outputs, of
//! a prompt and of one token.

use burn::tensor::{DType, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use secateur_backends::{Flex, VlmBackend, prepare_host};

const INPUTS: usize = 4096;
const OUTPUTS: usize = 11_008;

fn products(criterion: &mut Criterion) {
    prepare_host();
    let device = Default::default();
    let random = |shape: [usize; 2]| Tensor::<Flex, 2>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
    let weight = random([OUTPUTS, INPUTS]);
    for rows in [616, 104, 8, 1] {
        let x = random([rows, INPUTS]).into_primitive().tensor();
        let mut group = criterion.benchmark_group(format!("product of {rows} rows"));
        group.sample_size(10).throughput(Throughput::Elements((2 * rows * INPUTS * OUTPUTS) as u64));
        for (name, dtype, rounded) in [
            ("f32", DType::F32, false),
            ("f16", DType::F16, false),
            ("bf16", DType::BF16, false),
            ("bf16 rounded", DType::BF16, true),
        ] {
            let weight = weight.clone().cast(dtype).into_primitive().tensor();
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| match rounded {
                    true => Flex::linear_rows_bf16(x.clone(), weight.clone()),
                    false => Flex::linear_rows(x.clone(), weight.clone()),
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
