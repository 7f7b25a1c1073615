//! Pairs of GGUF files: what families share of reading them, and a checkpoint as such files, its decoder in blocks.

pub(in crate::model) mod decoder;
pub(in crate::model) mod settings;
pub(in crate::model) mod tensors;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::DType;
use secateur_blocks::RowOrder;
use secateur_weights::{GgufTensor, GgufType, Setting, StoredTensor, write_gguf};

use super::{Checkpoint, Quantise, mixture::Mixture};
use crate::Error;

/// The number by which a file says in which mixture of blocks it is; llama.cpp's `LLAMA_FTYPE`.
const FILE_TYPE: &str = "general.file_type";

/// A GGUF file that a family describes.
pub struct GgufFile {
    /// The settings of the file.
    pub settings: Vec<(String, Setting)>,
    /// The tensors of the file.
    pub tensors: Vec<GgufPart>,
}

/// A tensor of a GGUF file.
pub struct GgufPart {
    /// The name of the tensor in the file.
    pub name: String,
    /// The path of the tensor in the networks.
    pub path: String,
    /// The dimensions, the innermost one last.
    pub shape: Vec<usize>,
    /// The order of the rows in the file.
    pub order: RowOrder,
}

impl Checkpoint {
    /// Writes the checkpoint as GGUF files: the language model to `path`, in blocks, and the image encoder beside it, in f16, as
    /// `mmproj-` and the name. `before` is told each tensor's number, the count of tensors, and the file. Returns the paths of both.
    ///
    /// # Errors
    /// When the checkpoint cannot be said in GGUF files, cannot be read, or a file cannot be written.
    pub fn write_gguf(
        &self,
        path: &Path,
        quantise: Quantise,
        mut before: impl FnMut(usize, usize, &Path),
    ) -> Result<[PathBuf; 2], Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let paths = [path.to_owned(), path.with_file_name(format!("mmproj-{name}"))];
        let [mut decoder, encoder] = self.about().gguf_files(&self.folder)?;
        let vocabulary = self.decoder().vocab_size;
        let model = Path::new(&self.folder).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        decoder.settings.push(("general.name".to_owned(), Setting::Text(model)));
        decoder.settings.push((FILE_TYPE.to_owned(), Setting::Count(quantise.file_type())));
        decoder.settings.extend(self.tokenizer.gguf_settings(vocabulary)?);
        let (tensors, _) = self.tensors()?;
        let mixture = Mixture { quantise, layers: self.decoder().num_hidden_layers };
        for (file, path) in [decoder, encoder].into_iter().zip(&paths) {
            write(file, path, &tensors, &mixture, &mut before)?;
        }
        Ok(paths)
    }
}

fn write(
    file: GgufFile,
    path: &Path,
    tensors: &BTreeMap<String, StoredTensor>,
    mixture: &Mixture,
    before: &mut impl FnMut(usize, usize, &Path),
) -> Result<(), Error> {
    let GgufFile { settings, tensors: parts } = file;
    let mut sources = Vec::new();
    for part in &parts {
        let source = tensors.get(&part.path).filter(|source| source.shape == part.shape).ok_or_else(|| {
            let reason =
                format!("the tensor for `{}` is missing, or has another shape than {:?}", part.path, part.shape);
            Error::config(path, reason)
        })?;
        sources.push(source);
    }
    let infos: Vec<GgufTensor> = parts
        .iter()
        .map(|GgufPart { name, path, shape, .. }| {
            let kind = match shape[..] {
                [_, columns] => mixture.kind(path, columns).map_or(GgufType::F16, GgufType::Blocks),
                // Convolutions are matrices, too.
                [_, _, _, _] => GgufType::F16,
                _ => GgufType::F32,
            };
            GgufTensor { name: name.clone(), shape: shape.clone(), kind }
        })
        .collect();
    let bytes = |i: usize| {
        before(i, parts.len(), path);
        bytes(sources[i], &parts[i], &infos[i], mixture)
    };
    Ok(write_gguf(path, &settings, &infos, bytes)?)
}

/// The bytes of a tensor in the type and in the order of rows that the file has.
fn bytes(source: &StoredTensor, part: &GgufPart, info: &GgufTensor, mixture: &Mixture) -> Vec<u8> {
    let bytes = match info.kind {
        // A matrix that has these blocks already keeps them.
        GgufType::Blocks(_) => {
            let blocks = source.blocks().filter(|blocks| GgufType::Blocks(blocks.kind()) == info.kind);
            match blocks.or_else(|| mixture.quantise(&part.path, source)) {
                Some(blocks) => (0..part.shape[0]).flat_map(|row| blocks.row(row).to_vec()).collect(),
                None => Vec::new(),
            }
        }
        GgufType::F16 => source.data().convert_dtype(DType::F16).as_bytes().to_vec(),
        GgufType::F32 => source.data().convert_dtype(DType::F32).as_bytes().to_vec(),
    };
    if part.order == RowOrder::Plain {
        return bytes;
    }
    let row_bytes = bytes.len() / part.shape[0];
    let mut ordered = vec![0; bytes.len()];
    for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
        ordered[part.order.place(row) * row_bytes..][..row_bytes].copy_from_slice(bytes);
    }
    ordered
}
