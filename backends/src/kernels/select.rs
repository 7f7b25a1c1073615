//! Which kernel runs for an operation on this processor: the table, from the fastest kernel down. The first that the processor has, and that
//! is made for the sizes, is taken; what none takes goes by portable code.

use half::bf16;

use super::{
    heads::{Heads, NewHeads},
    instructions::{Instructions, has},
    rows::Rows,
};
use crate::Mask;

/// A kernel of an operation.
pub(super) struct Kernel<F> {
    pub(super) needs: Instructions,
    /// The kernel's name for people.
    pub(super) name: &'static str,
    pub(super) run: F,
}

/// `softmax(q·kᵀ/√head_dim)·v` to the last heads; `None`, and nothing written, for sizes or a mask that a kernel is not made for.
pub(super) type Attend = fn([&Heads; 3], Mask, &mut NewHeads) -> Option<()>;

/// `x · Wᵀ`, plus a bias in every row if there is one, for sizes `[rows, inputs, outputs]`; `None` for sizes that a kernel is not made for.
pub(super) type LinearBf16 = fn(&[f32], &dyn Rows<bf16>, [usize; 3], Option<&[f32]>) -> Option<Vec<f32>>;

/// Attention in f32 of several queries.
pub(super) const ATTEND: &[Kernel<Attend>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx512, name: "tiles of 512 bits", run: super::panels::attend::attend_avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx2, name: "tiles of 256 bits", run: super::panels::attend::attend_avx2 },
];

/// Attention of several queries that may round to bf16.
pub(super) const ATTEND_BF16: &[Kernel<Attend>] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Kernel { needs: Instructions::Amx, name: "matrix unit", run: super::amx::attend::attend },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx512Bf16, name: "tiles of pairs", run: super::panels::attend::attend_bf16 },
];

/// Products with bf16 weights that may round their inputs to bf16.
pub(super) const LINEAR_BF16: &[Kernel<LinearBf16>] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Kernel { needs: Instructions::Amx, name: "matrix unit", run: super::amx::rounded::product },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx512Bf16, name: "tiles of pairs", run: super::panels::pairs::product },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx512Bf16, name: "dot products of pairs", run: super::rounded::product },
];

/// Exact products of many rows, whose kernels are generic over the weight: `linear::dispatch` asks for them by name.
pub(super) const LINEAR: &[Kernel<Exact>] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Kernel { needs: Instructions::Amx, name: "matrix unit, in parts", run: Exact::MatrixUnit },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx512, name: "tiles of 512 bits", run: Exact::Tiles },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx2, name: "tiles of 256 bits", run: Exact::Tiles },
];

/// Products of blocks with few rows; the kernel itself is chosen in `blocks::dots`.
const BLOCKS: &[Kernel<()>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx512Vnni, name: "whole numbers, 512 bits", run: () },
    #[cfg(target_arch = "x86_64")]
    Kernel { needs: Instructions::Avx2, name: "whole numbers, 256 bits", run: () },
];

/// A kernel for exact products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    /// The matrix unit, on numbers that are taken apart into bf16 ones.
    MatrixUnit,
    /// Tiles in registers.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    Tiles,
}

/// The kernels of a row of the table that the processor has.
pub(super) fn there<F>(kernels: &'static [Kernel<F>]) -> impl Iterator<Item = &'static Kernel<F>> {
    kernels.iter().filter(|kernel| has(kernel.needs))
}

/// Operations, and the kernel that each of them has for most sizes on this processor.
pub(crate) fn choices() -> Vec<(&'static str, &'static str)> {
    fn first<F>(kernels: &'static [Kernel<F>], portable: &'static str) -> &'static str {
        there(kernels).next().map_or(portable, |kernel| kernel.name)
    }
    let exact = "as without rounding";
    vec![
        ("products of many rows", first(LINEAR, "blocks, portable")),
        ("products of many rows in bf16", first(LINEAR_BF16, exact)),
        ("products of blocks with few rows", first(BLOCKS, "as floats")),
        ("attention of many queries", first(ATTEND, "blocks, portable")),
        ("attention of many queries in bf16", first(ATTEND_BF16, exact)),
    ]
}
