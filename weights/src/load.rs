//! Fills a module from stored tensors, all or nothing.

use std::{collections::BTreeMap, fmt::Write, path::Path, rc::Rc};

use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::{Bool, DType, Int, Tensor, backend::Backend},
};
use burn_store::{ModuleSnapshot, TensorSnapshot};

use crate::{StoredTensor, WeightsError};

/// The largest number of names of a kind that an error lists.
const LISTED: usize = 8;

/// The types that parameters take in memory.
#[derive(Clone, Copy, Debug)]
pub struct Dtypes {
    /// The type of matrices, which hold nearly all the bytes; `None` keeps the file's type where the backend has it.
    pub weights: Option<DType>,
    /// The type of vectors (norms, biases), which are applied to activations element by element.
    pub vectors: DType,
    /// The type of matrices whose blocks are taken apart, where `weights` does not say.
    pub unpacked: DType,
}

/// A layer's place for a weight in blocks, by the id of the parameter that it takes the place of. It returns whether the layer
/// takes the weight; else the parameter is filled with the blocks' values.
pub type TakeBlocks<'a> = dyn FnMut(&str, ParamId, &StoredTensor) -> bool + 'a;

/// Fills `module` with `tensors`, named by their paths in it; `from` is for error messages. Weights are offered to
/// `take_blocks` first.
///
/// Tensors are mapped or converted one at a time, so that the model is never in memory twice. `narrow` gives the type
/// in which a matrix of a given file type is kept.
///
/// # Errors
/// When a tensor is missing, unused or of another shape; nothing is read before names and shapes are checked.
pub fn load<B: Backend, M: Module<B>>(
    module: M,
    tensors: BTreeMap<String, StoredTensor>,
    dtypes: Dtypes,
    narrow: impl Fn(DType) -> DType,
    take_blocks: &mut TakeBlocks,
    from: &Path,
) -> Result<M, WeightsError> {
    let ids = check::<B, M>(&module, &tensors, from)?;
    let (taken, tensors): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tensors.into_iter().partition(|(path, tensor)| ids.get(path).is_some_and(|id| take_blocks(path, *id, tensor)));
    let snapshots = tensors
        .into_iter()
        .map(|(path, tensor)| {
            let matrix = tensor.shape.len() > 1;
            let stored = if tensor.blocks.is_some() { dtypes.unpacked } else { tensor.dtype };
            let dtype = if matrix { narrow(dtypes.weights.unwrap_or(stored)) } else { dtypes.vectors };
            snapshot(&path, tensor, dtype)
        })
        .collect();
    let mut module = module;
    let result = module.apply(snapshots, None, None, false);
    let is_taken = |(path, _): &(String, String)| taken.contains_key(path);
    if result.errors.is_empty() && result.missing.iter().all(is_taken) && result.unused.is_empty() {
        return Ok(module);
    }
    Err(WeightsError::Mismatch { path: from.to_owned(), report: result.to_string() })
}

fn snapshot(path: &str, tensor: StoredTensor, dtype: DType) -> TensorSnapshot {
    let shape = tensor.shape.clone().into();
    let read = move || {
        let data = tensor.data();
        if tensor.dtype == dtype && tensor.blocks.is_none() {
            return Ok(data);
        }
        let converted = if tensor.dtype == dtype { data } else { data.convert_dtype(dtype) };
        // The values are a copy now.
        tensor.give_back();
        Ok(converted)
    };
    let stack = path.split('.').map(str::to_owned).collect();
    TensorSnapshot::from_closure(Rc::new(read), dtype, shape, stack, Vec::new(), ParamId::new())
}

/// Compares names and shapes without reading a value, so that a mistake is reported before gigabytes are read. Returns the ids
/// of the parameters by their paths.
fn check<B: Backend, M: Module<B>>(
    module: &M,
    tensors: &BTreeMap<String, StoredTensor>,
    from: &Path,
) -> Result<BTreeMap<String, ParamId>, WeightsError> {
    let mut expected = Shapes::default();
    module.visit(&mut expected);
    let Shapes { shapes: expected, ids, .. } = expected;
    let mut missing = Vec::new();
    let mut misshaped = Vec::new();
    let mut not_floats = Vec::new();
    for (path, shape) in &expected {
        match tensors.get(path) {
            None => missing.push(format!("{path} {shape:?}")),
            Some(tensor) if &tensor.shape != shape => {
                misshaped.push(format!("{path}: expected {shape:?}, found {:?}", tensor.shape));
            }
            Some(tensor) if !tensor.dtype.is_float() => not_floats.push(format!("{path}: found {:?}", tensor.dtype)),
            Some(_) => {}
        }
    }
    let unused: Vec<_> = tensors
        .iter()
        .filter(|(path, _)| !expected.contains_key(*path))
        .map(|(path, tensor)| format!("{path} {:?}", tensor.shape))
        .collect();
    if let Some((name, form)) = tensors.values().find_map(|tensor| Some((&tensor.name, quantised(&tensor.name)?))) {
        let reason = format!(
            "the weights are quantised ({form}: `{name}`), which are not read; give the checkpoint that they were made from, in f16, bf16 \
             or f32"
        );
        return Err(WeightsError::Unsupported { path: from.to_owned(), reason });
    }
    let mut report = String::new();
    let kinds = [
        ("missing", missing),
        ("unused", unused),
        ("of the wrong shape", misshaped),
        ("not of a floating-point type", not_floats),
    ];
    for (kind, names) in kinds {
        if !names.is_empty() {
            let listed = names[..names.len().min(LISTED)].join("\n    ");
            let more =
                if names.len() > LISTED { format!("\n    and {} more", names.len() - LISTED) } else { String::new() };
            // Writing to a string cannot fail.
            let _ = writeln!(report, "  {} {kind}:\n    {listed}{more}", names.len());
        }
    }
    if report.is_empty() {
        return Ok(ids);
    }
    report.push_str("  check that config.json belongs to these weights");
    Err(WeightsError::Mismatch { path: from.to_owned(), report })
}

/// The form of quantisation that a tensor of this name belongs to; `None` if it belongs to none.
fn quantised(name: &str) -> Option<&'static str> {
    const FORMS: [(&str, &str); 8] = [
        (".qweight", "GPTQ or AWQ"),
        (".qzeros", "GPTQ or AWQ"),
        (".absmax", "bitsandbytes"),
        (".SCB", "bitsandbytes, 8 bits"),
        (".weight_packed", "compressed-tensors"),
        (".weight_scale", "compressed-tensors or FP8"),
        (".weight_scale_inv", "FP8"),
        (".W_q", "HQQ"),
    ];
    FORMS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, form)| *form)
}

/// Collects path and shape of every parameter; parameters that are not initialised yet stay uninitialised.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    shapes: BTreeMap<String, Vec<usize>>,
    ids: BTreeMap<String, ParamId>,
}

impl Shapes {
    fn add(&mut self, id: ParamId, shape: burn::tensor::Shape) {
        self.shapes.insert(self.path.join("."), shape.to_vec());
        self.ids.insert(self.path.join("."), id);
    }
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.add(param.id, param.lazy_shape());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.add(param.id, param.lazy_shape());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.add(param.id, param.lazy_shape());
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
