//! Products of 16-bit numbers on matrix units, by kernels that are chosen from the shape.
//!
//! Trying kernels out ("autotune") compiles twenty of them for every new shape, which took 15 s each time on an H200.
//! The fastest kernel there follows from the shape: see `benches/RESULTS.md`.

use burn::tensor::DType;
use burn_cubecl::{CubeRuntime, kernel::matmul::utils::init_matmul_output, tensor::CubeTensor};
use cubek::{
    matmul::{
        components::tile::TileMatmulKind,
        definition::{MatmulElems, MatmulGlobalElems},
        launch::{Strategy, launch_ref},
        routines::{BlueprintStrategy, ordered_double_buffering::OrderedSelectionArgs, simple::SimpleArgs},
    },
    std::InputBinding,
};

/// The number of inputs that the kernel with ordered tiles takes at a time: two tiles.
const STAGE: usize = 32;
/// Rows and outputs that one block of threads computes with large tiles.
const LARGE_TILE: [usize; 2] = [128, 64];

/// The product `a · b` over the last two dimensions, of 16-bit numbers, summed in f32 and rounded to `out`; `None` for
/// a shape, or on a GPU, that the kernel is not made for.
pub(crate) fn multiply<R: CubeRuntime>(a: &CubeTensor<R>, b: &CubeTensor<R>, out: DType) -> Option<CubeTensor<R>> {
    let product = init_matmul_output(a, b, out);
    let client = a.client.clone();
    let mut types =
        MatmulElems::from_globals(&MatmulGlobalElems { lhs: a.dtype.into(), rhs: b.dtype.into(), out: out.into() });
    let input = |x: &CubeTensor<R>| InputBinding::new(x.clone().binding(), x.dtype.into());
    launch_ref(&choose(a, b), &client, input(a), input(b), product.clone().binding(), &mut types).ok().map(|()| product)
}

/// Chooses the kernel for a product.
fn choose<R: CubeRuntime>(a: &CubeTensor<R>, b: &CubeTensor<R>) -> Strategy {
    let (of_a, of_b) = (a.meta.shape(), b.meta.shape());
    let rank = of_a.num_dims();
    let [rows, inputs, outputs] = [of_a[rank - 2], of_a[rank - 1], of_b[rank - 1]];
    let ordered = |rows| {
        Strategy::OrderedDoubleMma(BlueprintStrategy::Inferred(OrderedSelectionArgs {
            tile_matmul: TileMatmulKind::Mma,
            partition_k: Some(2),
            row_count: Some(rows),
            rows_per_plane: Some(2),
        }))
    };
    let blocks = rows.div_ceil(LARGE_TILE[0]) * outputs.div_ceil(LARGE_TILE[1]);
    let processors = a.client.properties().hardware.num_streaming_multiprocessors.unwrap_or(1);
    let fills = blocks >= processors as usize;
    // The ordered kernel takes an even number of stages. If all stages are whole, it does not check whether the last
    // one is there.
    let reads_past = inputs % (2 * STAGE) == STAGE;
    match (rows, rank) {
        (1, 2) => Strategy::GemvPlaneParallel(BlueprintStrategy::default()),
        // For deep products with many rows a kernel that loads by TMA was another 17 % faster; its numbers were not checked.
        (_, 2) if !reads_past => ordered(if fills { 8 } else { 4 }),
        // This includes attention's products, one for each head.
        _ => Strategy::SimpleCyclicMma(BlueprintStrategy::Inferred(SimpleArgs {
            tile_matmul: TileMatmulKind::Mma,
            multi_rows: true,
        })),
    }
}
