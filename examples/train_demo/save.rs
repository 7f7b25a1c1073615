//! The student as a checkpoint in the original LLaVA layout, 16-bit.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Tensor, backend::Backend},
};
use safetensors::{Dtype, tensor::TensorView};
use secateur_backends::VlmBackend;

use crate::student::Student;

/// Name, shape, and bytes in f16.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// The folder of the tower inside the checkpoint's.
const TOWER: &str = "clip-vit-demo-patch14-336";

/// Writes `model.safetensors` of the language model and of CLIP.
pub(crate) fn checkpoint<B: VlmBackend>(student: &Student<B>, folder: &Path) -> Result<()> {
    let mut names = Names::default();
    student.visit(&mut names);
    let (mut own, mut clip) = (Tensors::new(), Tensors::new());
    for (path, tensor) in names.tensors {
        if let Some(name) = llava_name(&path) {
            own.insert(name, tensor);
        } else if let Some(name) = clip_name(&path) {
            clip.insert(name, tensor);
        }
    }
    write(&own, &folder.join("model.safetensors"))?;
    write(&clip, &folder.join(TOWER).join("model.safetensors"))
}

fn llava_name(path: &str) -> Option<String> {
    let projector = path.strip_prefix("projector.");
    let projector = projector.map(|rest| rest.replace("linear_1", "0").replace("linear_2", "2"));
    let llama = path.strip_prefix("llama.");
    projector.map(|rest| format!("model.mm_projector.{rest}")).or_else(|| {
        llama.map(|rest| if rest.starts_with("lm_head") { rest.to_owned() } else { format!("model.{rest}") })
    })
}

fn clip_name(path: &str) -> Option<String> {
    let vision = path.strip_prefix("vision.").map(|rest| format!("vision_model.{rest}"));
    let joint = path.strip_prefix("joint.").map(|rest| match rest.strip_prefix("post_layernorm.") {
        Some(rest) => format!("vision_model.post_layernorm.{rest}"),
        None => rest.to_owned(),
    });
    vision.or(joint).or_else(|| (path == "logit_scale").then(|| path.to_owned()))
}

fn write(tensors: &Tensors, path: &Path) -> Result<()> {
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, (shape, bytes))| TensorView::new(Dtype::F16, shape.clone(), bytes).map(|view| (name, view)))
        .collect();
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(std::fs::write(path, safetensors::serialize(views?, Some(metadata))?)?)
}

#[derive(Default)]
struct Names {
    path: Vec<String>,
    tensors: Tensors,
}

impl<B: Backend> ModuleVisitor<B> for Names {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let bytes = tensor.into_data().convert_dtype(DType::F16).as_bytes().to_vec();
        self.tensors.insert(self.path.join("."), (shape, bytes));
    }
}
