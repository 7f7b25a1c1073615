//! Files of cues: what methods read, as tensors in a safetensors file, from here or from anywhere.

use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use safetensors::{Dtype, serialize, tensor::TensorView};
use secateur_weights::{Checkpoint, StoredTensor};

use crate::{
    Error,
    files::write_file,
    pruner::{Cues, Relevance},
    tensor::host,
};

/// How far above 1 a row of attention may add up, for rows that were rounded to 16 bits.
const ROUNDING: f32 = 0.02;

/// Writes tensors of f32 to a file.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_tensors(path: &Path, tensors: &[(&str, Vec<usize>, &[f32])]) -> Result<(), Error> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., numbers)| numbers.iter().flat_map(|number| number.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (*name, view)));
    let file = views.collect::<Result<Vec<_>, _>>().and_then(|views| serialize(views, None));
    let file = file.map_err(|_| Error::data(path, "the tensors cannot be written: their shapes do not fit"))?;
    write_file(path, &file)
}

/// Writes the cues that are there, in the form that `prune` reads.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_cues<B: Backend>(path: &Path, cues: Cues<B>) -> Result<(), Error> {
    type Named = (&'static str, Vec<usize>, Vec<f32>);
    fn named<B: Backend, const D: usize>(name: &'static str, tensor: Option<Tensor<B, D>>) -> Option<Named> {
        tensor.map(|tensor| (name, tensor.dims().to_vec(), host(tensor)))
    }
    let tensors = [
        named("features", cues.features),
        named("projected", cues.projected),
        named("cls_attention", cues.cls_attention),
        named("prompt_embeds", cues.prompt_embeds.flatten()),
        named("image_embeds", cues.image_embeds),
        named("text_embeds", cues.text_embeds),
        named("keys", cues.keys),
    ];
    let there: Vec<Named> = tensors.into_iter().flatten().collect();
    let views: Vec<_> = there.iter().map(|(name, shape, numbers)| (*name, shape.clone(), &numbers[..])).collect();
    write_tensors(path, &views)
}

/// Reads the cues that are in the file. A method's error names the cues that are missing.
pub(super) fn read_cues<B: Backend>(path: &Path, file: &Checkpoint, device: &B::Device) -> Result<Cues<B>, Error> {
    let fail = |reason: String| Error::Cues { path: path.to_owned(), reason };
    let tensor3 = |name| file.tensors.get(name).map(|stored| read(name, stored, device)).transpose().map_err(fail);
    let cues = Cues::<B> {
        layout: None,
        features: tensor3("features")?,
        projected: tensor3("projected")?,
        image_embeds: tensor3("image_embeds")?,
        keys: tensor3("keys")?,
        text_embeds: file
            .tensors
            .get("text_embeds")
            .map(|t| read("text_embeds", t, device))
            .transpose()
            .map_err(fail)?,
        fingerprint: 0,
        relevance: Relevance::Unlike,
        cls_attention: file
            .tensors
            .get("cls_attention")
            .map(|t| read("cls_attention", t, device))
            .transpose()
            .map_err(fail)?,
        prompt_embeds: file.tensors.get("prompt_embeds").map(|t| read_text(t, device)).transpose().map_err(fail)?,
    };
    check_grids(&cues).map_err(fail)?;
    if let Some(attention) = &cues.cls_attention {
        check_shares("cls_attention", &host(attention.clone()), attention.dims()[3]).map_err(fail)?;
    }
    Ok(cues)
}

/// Checks that rows of attention are probabilities, of which that of `[CLS]` itself may be missing.
///
/// # Errors
/// A sentence that names the first row that is none.
pub(super) fn check_shares(name: &str, numbers: &[f32], width: usize) -> Result<(), String> {
    for (i, row) in numbers.chunks(width.max(1)).enumerate() {
        let sum: f32 = row.iter().sum();
        let low = row.iter().copied().fold(f32::INFINITY, f32::min);
        if low < 0.0 || sum > 1.0 + ROUNDING {
            return Err(format!(
                "`{name}` holds no probabilities: row {i} has {low} as its smallest number and adds up to {sum}; give it after the softmax"
            ));
        }
    }
    Ok(())
}

/// Reads `prompt_embeds`, which may have no rows: then no text follows the image.
fn read_text<B: Backend>(stored: &StoredTensor, device: &B::Device) -> Result<Option<Tensor<B, 2>>, String> {
    if stored.shape.first() == Some(&0) { Ok(None) } else { read("prompt_embeds", stored, device).map(Some) }
}

/// Checks that all cues have the same crops and patches, and the same widths where they are multiplied.
fn check_grids<B: Backend>(cues: &Cues<B>) -> Result<(), String> {
    let of_features = |x: &Tensor<B, 3>| (x.dims()[0], x.dims()[1]);
    let of_attention = |x: &Tensor<B, 4>| (x.dims()[1], x.dims()[3]);
    let grids = [
        ("features", cues.features.as_ref().map(of_features)),
        ("projected", cues.projected.as_ref().map(of_features)),
        ("image_embeds", cues.image_embeds.as_ref().map(of_features)),
        ("keys", cues.keys.as_ref().map(of_features)),
        ("cls_attention", cues.cls_attention.as_ref().map(of_attention)),
    ];
    let mut there = grids.iter().filter_map(|(name, grid)| grid.map(|grid| (name, grid)));
    let Some((first, grid)) = there.next() else { return Ok(()) };
    if let Some((other, (crops, patches))) = there.find(|(_, other)| *other != grid) {
        let (v, n) = grid;
        return Err(format!("`{first}` has {v} crops of {n} patches, `{other}` {crops} of {patches}; they must agree"));
    }
    let width = |x: &Tensor<B, 3>| x.dims()[2];
    let text_width = |x: &Tensor<B, 2>| x.dims()[1];
    let pairs = [
        (
            ("projected", cues.projected.as_ref().map(width)),
            ("prompt_embeds", cues.prompt_embeds.as_ref().and_then(|text| text.as_ref().map(text_width))),
        ),
        (
            ("image_embeds", cues.image_embeds.as_ref().map(width)),
            ("text_embeds", cues.text_embeds.as_ref().map(text_width)),
        ),
    ];
    for ((image, a), (text, b)) in pairs {
        if let (Some(a), Some(b)) = (a, b)
            && a != b
        {
            return Err(format!("`{image}` is {a} wide, `{text}` {b}; they must agree"));
        }
    }
    Ok(())
}

/// Reads a tensor of D dimensions.
///
/// # Errors
/// A sentence when its shape or its type is another, or a number is none.
pub(super) fn read<B: Backend, const D: usize>(
    name: &str,
    tensor: &StoredTensor,
    device: &B::Device,
) -> Result<Tensor<B, D>, String> {
    if tensor.shape.len() != D || tensor.shape.contains(&0) {
        return Err(format!("`{name}` has shape {:?}; expected {D} dimensions, none of them 0", tensor.shape));
    }
    if !tensor.dtype.is_float() {
        return Err(format!("`{name}` has type {:?}; expected f32", tensor.dtype));
    }
    let data = tensor.data().convert_dtype(DType::F32);
    if data.iter::<f32>().any(|value| !value.is_finite()) {
        return Err(format!("`{name}` holds NaN or infinity, which no method can rank"));
    }
    Ok(Tensor::from_data(data, (device, DType::F32)))
}
