//! Which layout of blocks each matrix of a decoder has: llama.cpp's mixtures, Q8_0 and Q4_K_M.

use burn::tensor::DType;
use bytes::Bytes;
use half::{bf16, f16};
use rayon::prelude::*;
use secateur_backends::{BlockType, Blocks, RowOrder};
use secateur_blocks::quantise;
use secateur_weights::StoredTensor;

/// A mixture of layouts that a decoder's matrices are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantise {
    /// 8 bits in all matrices.
    Q8_0,
    /// Q4_K_M: 4 bits in most matrices; 6 bits before the logits, and in half of the values' and of the MLPs' last matrices.
    Q4K,
}

impl Quantise {
    /// Every mixture.
    pub const ALL: [Self; 2] = [Self::Q8_0, Self::Q4K];

    /// The name that `--quantize` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
        }
    }

    /// llama.cpp's number of the mixture.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::Q4K => 15,
        }
    }
}

/// A mixture for a decoder of some layers.
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    pub(super) quantise: Quantise,
    /// The number of the decoder's layers.
    pub(super) layers: usize,
}

/// The path of the decoder in a model.
const DECODER: &str = "language_model.";

impl Mixture {
    /// The layout for rows of `columns` values of the matrix at `path`; `None` for a matrix that stays as it is: one outside the
    /// decoder, or with rows that fill no blocks.
    pub(super) fn kind(&self, path: &str, columns: usize) -> Option<BlockType> {
        let path = path.strip_prefix(DECODER)?;
        let wanted = match self.quantise {
            Quantise::Q8_0 => BlockType::Q8_0,
            Quantise::Q4K if path == "lm_head.weight" => BlockType::Q6K,
            Quantise::Q4K if self.is_finer(path) => BlockType::Q6K,
            Quantise::Q4K => BlockType::Q4K,
        };
        // llama.cpp takes the same ones where rows do not fill blocks of 256.
        let instead = match wanted {
            BlockType::Q4K => BlockType::Q5_0,
            _ => BlockType::Q8_0,
        };
        [wanted, instead].into_iter().find(|kind| columns.is_multiple_of(kind.values()))
    }

    /// Whether a matrix has 6 bits in Q4_K_M: in the first and the last eighth of the layers, and in every third between.
    fn is_finer(&self, path: &str) -> bool {
        let is_kind = ["self_attn.v_proj.weight", "mlp.down_proj.weight"].iter().any(|end| path.ends_with(end));
        let number = path.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let (Some(layer), true) = (number, is_kind) else { return false };
        let eighth = self.layers / 8;
        layer < eighth || layer >= 7 * self.layers / 8 || (layer - eighth) % 3 == 2
    }

    /// The blocks of the tensor at `path`; `None` if it stays as it is.
    pub(super) fn quantise(&self, path: &str, tensor: &StoredTensor) -> Option<Blocks> {
        let [rows, columns] = tensor.shape[..] else { return None };
        let kind = self.kind(path, columns)?;
        let data = tensor.data();
        let bytes = match tensor.dtype {
            DType::F16 => rows_in_blocks(kind, columns, data.as_slice::<f16>().ok()?),
            DType::BF16 => rows_in_blocks(kind, columns, data.as_slice::<bf16>().ok()?),
            _ => rows_in_blocks(kind, columns, data.convert_dtype(DType::F32).as_slice::<f32>().ok()?),
        };
        tensor.give_back();
        Blocks::new(kind, [rows, columns], RowOrder::Plain, Bytes::from(bytes?))
    }

    /// Random blocks for the matrix at `path`, whose values are about as large as those of random floats; `None` if it stays as it is.
    pub(super) fn random(&self, path: &str, [rows, columns]: [usize; 2]) -> Option<Blocks> {
        let kind = self.kind(path, columns)?;
        // A few random rows, each of which stands for many: making blocks of values takes long.
        const DIFFERENT: usize = 64;
        let reach = (3.0 / columns as f32).sqrt();
        let rows_of = |row: usize| {
            let mut random = fastrand::Rng::with_seed(row as u64);
            let values: Vec<f32> = (0..columns).map(|_| reach * (2.0 * random.f32() - 1.0)).collect();
            let mut bytes = Vec::new();
            quantise(kind, &values, &mut bytes).map(|()| bytes)
        };
        let different: Vec<Vec<u8>> = (0..DIFFERENT.min(rows)).into_par_iter().map(rows_of).collect::<Option<_>>()?;
        let mut bytes = Vec::with_capacity(rows * kind.row_bytes(columns)?);
        (0..rows).for_each(|row| bytes.extend_from_slice(&different[row % DIFFERENT]));
        Blocks::new(kind, [rows, columns], RowOrder::Plain, Bytes::from(bytes))
    }
}

/// The blocks of all rows, one after another; no more than a row a thread is in f32 at a time.
fn rows_in_blocks<T: Copy + Sync + Into<f32>>(kind: BlockType, columns: usize, values: &[T]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; values.len() / columns * kind.row_bytes(columns)?];
    let rows = bytes.par_chunks_mut(kind.row_bytes(columns)?).zip(values.par_chunks(columns));
    let is_whole = rows.map_init(Default::default, |(wide, blocks): &mut (Vec<f32>, Vec<u8>), (to, row)| {
        wide.clear();
        blocks.clear();
        wide.extend(row.iter().map(|value| (*value).into()));
        quantise(kind, wide, blocks)?;
        to.copy_from_slice(blocks);
        Some(())
    });
    is_whole.collect::<Option<()>>().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_is_that_of_llama_cpp() {
        let mixture = |quantise| Mixture { quantise, layers: 32 };
        let kind = |path: &str| mixture(Quantise::Q4K).kind(&format!("{DECODER}{path}"), 4096);
        assert_eq!(kind("lm_head.weight"), Some(BlockType::Q6K));
        assert_eq!(kind("embed_tokens.weight"), Some(BlockType::Q4K));
        assert_eq!(kind("layers.9.self_attn.q_proj.weight"), Some(BlockType::Q4K));
        let finer = |layer: &usize| kind(&format!("layers.{layer}.mlp.down_proj.weight")) == Some(BlockType::Q6K);
        let expected = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
        assert_eq!((0..32).filter(finer).collect::<Vec<_>>(), expected);
        assert_eq!(mixture(Quantise::Q4K).kind("language_model.lm_head.weight", 160), Some(BlockType::Q8_0));
        assert_eq!(mixture(Quantise::Q4K).kind("language_model.embed_tokens.weight", 160), Some(BlockType::Q5_0));
        assert_eq!(mixture(Quantise::Q8_0).kind("language_model.embed_tokens.weight", 100), None);
        assert_eq!(mixture(Quantise::Q8_0).kind("projector.linear_1.weight", 4096), None);
    }
}
