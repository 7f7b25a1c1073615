//! Cues for methods, made or recorded.

use burn::tensor::{Tensor, TensorData};
use secateur::{
    Error,
    pruner::{Blend, Card, ClsAttention, Cues, Keep, Method, Needs, Params, Pruner, Relevance, Selector, selector},
};
use secateur_backends::VlmBackend;

use serde_json::Value;

use super::{Golden, ids, indices};

/// The method called `name`, which must prune before the language model.
pub fn pruner<B: VlmBackend>(name: &str, params: Params) -> Result<Box<dyn Pruner<B>>, Error> {
    selector(name, params).map(|selector| match selector {
        Selector::Before(pruner) => pruner,
        Selector::Inside(_) => panic!("{name} prunes inside the language model"),
    })
}

/// Attention and features that look random, without ties.
pub fn cues<B: VlmBackend>(needs: Needs, crops: usize, patches: usize, device: &B::Device) -> Cues<B> {
    let noise = |shape: [usize; 4], salt: usize| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i + salt) * 7919 % 104_729) as f32 / 104_729.0).collect();
        Tensor::<B, 4>::from_data(TensorData::new(values, shape), device)
    };
    let three = |width, salt| noise([1, crops, patches, width], salt).reshape([crops, patches, width]);
    Cues {
        layout: None,
        // Exactly what is declared, but for the grid's shape: a method that reads more fails here.
        features: Some(if needs.features { three(8, 1) } else { Tensor::zeros([crops, patches, 1], device) }),
        cls_attention: match needs.cls_attention {
            ClsAttention::None => None,
            ClsAttention::Selected => Some(noise([1, crops, 4, patches], 2)),
            ClsAttention::All => Some(noise([6, crops, 4, patches], 2)),
        },
        projected: needs.projected.then(|| three(12, 3)),
        prompt_embeds: needs.prompt_embeds.then(|| Some(noise([1, 1, 7, 12], 4).reshape([7, 12]))),
        image_embeds: needs.reads_question().then(|| three(10, 5)),
        text_embeds: needs.reads_question().then(|| noise([1, 1, 2, 10], 6).reshape([2, 10])),
        keys: needs.keys.then(|| three(6, 7)),
        fingerprint: 0,
        relevance: Relevance::Unlike,
    }
}

/// A golden tensor with one dimension more in front, or some other shape of the same size.
pub fn tensor<B: VlmBackend, const D: usize>(golden: &Golden, shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(golden.values.clone(), shape), device)
}

/// Keeps what it is told to.
pub struct Given(pub Keep);

impl Method for Given {
    fn card(&self) -> Card {
        Card { name: "given", idea: "keeps what it is told to", ..Card::default() }
    }
}

impl<B: VlmBackend> Pruner<B> for Given {
    fn keep(&self, _: &Cues<B>, _: usize) -> Result<Keep, Error> {
        Ok(self.0.clone())
    }
}

/// The kept patches of an official run, with VisionZip's blends.
pub fn given(run: &Value) -> Given {
    let kept = indices(&run["kept"]);
    let budget = kept[0].len();
    let Some(zip) = run.get("visionzip") else { return Given(Keep::new(kept, budget)) };
    let blends = ids::<usize>(&zip["centres"]).into_iter().zip(indices(&zip["members"]));
    let blends = blends.map(|(centre, others)| Blend { centre: Some(centre), others }).collect();
    Given(Keep::with_blends(vec![ids(&zip["dominant"])], vec![blends], budget))
}
