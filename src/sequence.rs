//! Kept tokens to the sequence that the language model reads.

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use secateur_backends::VlmBackend;

use crate::{
    image::Tiles,
    pruner::{Blend, Keep},
};

/// How the tokens of several crops become one sequence (`mm_patch_merge_type`).
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Crop after crop.
    Flat,
    /// The whole image, then all tiles row by row as one large grid.
    Spatial,
    /// The grid of `spatial` without rows and columns of padding, and with a newline token after every row.
    #[cfg_attr(feature = "cli", value(alias = "spatial_unpad"))]
    SpatialUnpad,
}

impl Merge {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Spatial => "spatial",
            Self::SpatialUnpad => "spatial-unpad",
        }
    }
}

/// A place in an image's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visual {
    /// A patch of a crop.
    Patch {
        /// The crop, 0 the whole image.
        crop: usize,
        /// The patch, row by row.
        patch: usize,
    },
    /// A token that a method made of several patches.
    Blend {
        /// The crop.
        crop: usize,
        /// The number of the crop's blend.
        index: usize,
    },
    /// The end of a row of the grid.
    Newline,
    /// `[CLS]` of a crop, which Video-LLaVA reads of every frame.
    Class {
        /// The crop.
        crop: usize,
    },
}

/// An image's crops, and how they lie in it.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// The tiles; `None` where the image is one crop.
    pub tiles: Option<Tiles>,
    /// The image's width and height in pixels.
    pub size: (usize, usize),
    /// Patches a side of a crop.
    pub side: usize,
}

/// The order in which an image's kept tokens are read.
///
/// As in VisionZip, blends have no place in the grid and follow it, crop by crop.
pub fn order(keep: &Keep, geometry: Geometry, merge: Merge) -> Vec<Visual> {
    let crop = |crop: usize| {
        let patches = keep.plain()[crop].iter().map(move |&patch| Visual::Patch { crop, patch });
        patches.chain(blends(keep, crop))
    };
    match (geometry.tiles, merge) {
        (None, _) | (_, Merge::Flat) => (0..keep.plain().len()).flat_map(crop).collect(),
        (Some(tiles), _) => {
            let grid = grid(keep, geometry, tiles, merge == Merge::SpatialUnpad);
            let blends = (1..tiles.crops()).flat_map(|crop| blends(keep, crop));
            crop(0).chain(grid).chain(blends).collect()
        }
    }
}

fn blends(keep: &Keep, crop: usize) -> impl Iterator<Item = Visual> {
    (0..keep.blends()[crop].len()).map(move |index| Visual::Blend { crop, index })
}

/// The kept patches of all tiles, row by row of the whole image.
fn grid(keep: &Keep, geometry: Geometry, tiles: Tiles, unpad: bool) -> Vec<Visual> {
    let side = geometry.side;
    let mut kept = vec![vec![false; side * side]; tiles.crops()];
    for (crop, patches) in keep.plain().iter().enumerate() {
        patches.iter().for_each(|&patch| kept[crop][patch] = true);
    }
    let (width, height) = (tiles.columns * side, tiles.rows * side);
    let (columns, rows) = if unpad { filled(geometry.size, width, height) } else { (0..width, 0..height) };
    let mut order = Vec::new();
    for y in rows {
        for x in columns.clone() {
            let crop = 1 + (y / side) * tiles.columns + x / side;
            let patch = (y % side) * side + x % side;
            if kept[crop][patch] {
                order.push(Visual::Patch { crop, patch });
            }
        }
        if unpad {
            order.push(Visual::Newline);
        }
    }
    order
}

/// The columns and rows of a grid that an image of `size` fills: LLaVA's `unpad_image`. A very thin one fills none.
fn filled(size: (usize, usize), width: usize, height: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let (across, down) = (size.0 as f64, size.1 as f64);
    if across / down > width as f64 / height as f64 {
        let rows = (down * (width as f64 / across)) as usize;
        let padding = (height - rows) / 2;
        (0..width, padding..height - padding)
    } else {
        let columns = (across * (height as f64 / down)) as usize;
        let padding = (width - columns) / 2;
        (padding..width - padding, 0..height)
    }
}

/// The kept tokens of `tokens` `[crops, patches, width]`, as `[crops, kept, width]`: patches first, then blends.
pub fn gather<B: VlmBackend>(tokens: Tensor<B, 3>, keep: &Keep) -> Tensor<B, 3> {
    let [crops, patches, width] = tokens.dims();
    let plain = keep.plain().first().map_or(0, Vec::len);
    if plain == patches {
        return tokens;
    }
    let rows = keep.plain().iter().enumerate().flat_map(|(crop, kept)| kept.iter().map(move |&p| crop * patches + p));
    let kept = select(tokens.clone().reshape([crops * patches, width]), rows.collect());
    let kept = kept.reshape([crops, plain, width]);
    if keep.blends().iter().all(Vec::is_empty) {
        return kept;
    }
    Tensor::cat(vec![kept, blend(tokens, keep)], 1)
}

/// The blends of every crop, `[crops, blends, width]`, as a product with their weights.
fn blend<B: VlmBackend>(tokens: Tensor<B, 3>, keep: &Keep) -> Tensor<B, 3> {
    let [crops, patches, _] = tokens.dims();
    let count = keep.blends().first().map_or(0, Vec::len);
    let mut weights = vec![0f32; crops * count * patches];
    let rows = weights.chunks_mut(patches);
    for (row, Blend { centre, others }) in rows.zip(keep.blends().iter().flatten()) {
        others.iter().for_each(|&patch| row[patch] = 1.0 / others.len() as f32);
        if let Some(centre) = *centre {
            row[centre] += 1.0;
        }
    }
    let dtype = tokens.dtype();
    let weights = TensorData::new(weights, [crops, count, patches]);
    let weights = Tensor::<B, 3>::from_data(weights, (&tokens.device(), DType::F32));
    B::matmul_f32(weights, tokens.cast(DType::F32)).cast(dtype)
}

/// An order with `[CLS]` before the patches of every crop.
pub fn with_class(order: Vec<Visual>) -> Vec<Visual> {
    let mut all = Vec::new();
    let mut last = None;
    for visual in order {
        if let Visual::Patch { crop, .. } = visual
            && last != Some(crop)
        {
            all.push(Visual::Class { crop });
            last = Some(crop);
        }
        all.push(visual);
    }
    all
}

/// Puts gathered tokens `[crops, kept, width]`, which may begin with each crop's `[CLS]`, in `order`, with `newline` `[width]` where it says so: `[n, width]`.
///
/// # Panics
/// When `order` names a patch that `keep` does not: orders are made from what is kept, whatever a user asks for.
pub fn join<B: Backend>(
    tokens: Tensor<B, 3>,
    keep: &Keep,
    order: &[Visual],
    newline: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let [crops, kept, width] = tokens.dims();
    let plain = keep.plain().first().map_or(0, Vec::len);
    let class = kept - plain - keep.blends().first().map_or(0, Vec::len);
    let rows = order.iter().map(|visual| match *visual {
        Visual::Class { crop } => crop * kept,
        Visual::Patch { crop, patch } => {
            let slot = keep.plain()[crop].binary_search(&patch).expect("an order has kept patches only");
            crop * kept + class + slot
        }
        Visual::Blend { crop, index } => crop * kept + class + plain + index,
        Visual::Newline => crops * kept,
    });
    let rows: Vec<usize> = rows.collect();
    let mut table = tokens.reshape([crops * kept, width]);
    if rows.iter().copied().eq(0..crops * kept) {
        return table;
    }
    if let Some(newline) = newline {
        table = Tensor::cat(vec![table, newline.unsqueeze()], 0);
    }
    select(table, rows)
}

/// Rows of a table.
pub fn select<B: Backend>(table: Tensor<B, 2>, rows: Vec<usize>) -> Tensor<B, 2> {
    let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
    let rows = TensorData::new(rows.clone(), [rows.len()]);
    let rows = Tensor::<B, 1, Int>::from_data(rows, &table.device());
    table.select(0, rows)
}
