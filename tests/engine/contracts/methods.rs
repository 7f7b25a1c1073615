//! What every method promises, for every row of the registry.

use crate::common::{
    Cpu,
    cues::{cues, pruner},
    golden::is_wgpu,
    on_every_backend,
};
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;
use secateur::{
    Error,
    pruner::{ClsAttention, Cues, Needs, Params, Place, Selector, methods, selector, top_k},
};
use secateur_backends::{Job, VlmBackend};

#[derive(Clone)]
struct Contract;

impl Job for Contract {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        for method in methods(Params::default()).into_iter().filter(|method| method.card().place != Place::Llm) {
            let pruner = pruner::<B>(method.name(), Params::default()).unwrap();
            // A budget of all patches is as many steps, which a software GPU takes minutes for where there are many;
            // `Choices` has real sizes.
            let shapes: &[_] = match is_wgpu::<B>(&device) {
                true => &[(3, 64), (1, 1)],
                false => &[(1, 576), (5, 256), (1, 1), (5, 576), (1, 256), (8, 256)],
            };
            for &(crops, patches) in shapes {
                let cues = cues::<B>(method.card().needs, crops, patches, &device);
                for budget in [1, 7, 29, patches - 1, patches] {
                    if budget == 0 || budget > patches {
                        continue;
                    }
                    let label = format!("{} {crops}×{patches} → {budget}", method.name());
                    let keep = pruner.keep(&cues, budget).unwrap();
                    let expected = if method.name() == "none" { patches } else { budget };
                    assert_eq!(keep.indices().len(), crops, "{label}");
                    for crop in keep.indices() {
                        assert_eq!(crop.len(), expected, "{label}");
                        assert!(crop.windows(2).all(|pair| pair[0] < pair[1]), "{label}: not ascending");
                        assert!(crop.iter().all(|&patch| patch < patches), "{label}: out of range");
                    }
                    assert_eq!(keep, pruner.keep(&cues, budget).unwrap(), "{label}: not deterministic");
                    assert_eq!((keep.plain().len(), keep.blends().len()), (crops, crops), "{label}");
                    for (plain, blends) in keep.plain().iter().zip(keep.blends()) {
                        let used = blends.iter().flat_map(|blend| blend.others.iter().chain(&blend.centre));
                        let mut used: Vec<_> = used.chain(plain).copied().collect();
                        used.sort_unstable();
                        assert!(used.windows(2).all(|pair| pair[0] < pair[1]), "{label}: a patch is used twice");
                        assert!(used.last().is_some_and(|&patch| patch < patches), "{label}: out of range");
                    }
                }
                for budget in [0, patches + 1] {
                    let refused = pruner.keep(&cues, budget);
                    assert!(matches!(refused, Err(Error::Budget { .. })), "{} takes {budget}", method.name());
                }
            }
        }
    }
}

#[test]
fn every_method_keeps_its_contract_on_every_backend() {
    on_every_backend(&Contract);
}

#[derive(Clone)]
struct LayerContract;

impl Job for LayerContract {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        for method in methods(Params::default()).into_iter().filter(|method| method.card().place == Place::Llm) {
            let Selector::Inside(pruner) = selector::<B>(method.name(), Params::default()).unwrap() else {
                panic!("{} prunes before the language model", method.name())
            };
            assert!(pruner.layer() >= 1 && method.cut_layer() == Some(pruner.layer()));
            for tokens in [1, 576, 2880] {
                let needs = Needs { cls_attention: ClsAttention::Selected, ..Needs::default() };
                let attention = cues::<B>(needs, 1, tokens, &device).cls_attention.unwrap().reshape([4, tokens]);
                for budget in [1, 7, 29, tokens - 1, tokens].into_iter().filter(|budget| (1..=tokens).contains(budget))
                {
                    let kept = pruner.keep(attention.clone(), budget).unwrap();
                    assert_eq!(kept.len(), budget, "{}", method.name());
                    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept[budget - 1] < tokens);
                }
                for budget in [0, tokens + 1] {
                    assert!(matches!(pruner.keep(attention.clone(), budget), Err(Error::Budget { .. })));
                }
            }
        }
    }
}

#[test]
fn methods_inside_the_language_model_keep_theirs() {
    on_every_backend(&LayerContract);
}

/// From the same cues every backend chooses the same patches.
#[derive(Clone)]
struct Choices;

impl Job for Choices {
    type Output = Vec<(String, Vec<Vec<usize>>)>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let mut choices = Vec::new();
        for method in methods(Params::default()).into_iter().filter(|method| method.card().place != Place::Llm) {
            let pruner = pruner::<B>(method.name(), Params::default()).unwrap();
            for (crops, patches) in [(1, 576), (5, 576), (1, 256)] {
                let cues = cues::<B>(method.card().needs, crops, patches, &device);
                for budget in [1, 29, 64, 128] {
                    let keep = pruner.keep(&cues, budget).unwrap();
                    choices.push((format!("{} {crops}×{patches} → {budget}", method.name()), keep.indices().to_vec()));
                }
            }
        }
        choices
    }
}

/// A hash of all that each method chooses: backends that are never in one program are compared by it, too.
const CHOICES: [(&str, u64); 11] = [
    ("none", 0xe792db9292e63eba),
    ("fastervlm", 0xeb805292d60c30d6),
    ("vispruner", 0x9722a0b5d504cdfd),
    ("cdpruner", 0x5928dc1b309c1d13),
    ("datp", 0xe548ea24276871b8),
    ("divprune", 0x7844f2456e6ec5af),
    ("visionzip", 0x66ed3415368a297b),
    ("scope", 0x716f675d731f4610),
    ("trim", 0xad02f777364d6977),
    ("random", 0x68c1fe812c2b8542),
    ("grid", 0x9670e2ca36fc8fd0),
];

#[test]
fn every_backend_chooses_the_same() {
    for choices in on_every_backend(&Choices) {
        assert_eq!(choices.len(), CHOICES.len() * 3 * 4);
        let found = CHOICES.map(|(method, _)| {
            let own = choices.iter().filter(|(label, _)| label.starts_with(&format!("{method} ")));
            let text: String = own.map(|choice| format!("{choice:?}")).collect();
            let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            (method, text.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
        });
        assert_eq!(found, CHOICES);
    }
}

#[test]
fn the_registry_is_sound() {
    let all = methods(Params::default());
    assert_eq!(all[0].name(), "none", "the baseline is the first row");
    for (i, method) in all.iter().enumerate() {
        assert!(!method.card().idea.is_empty(), "{} has no idea", method.name());
        let floor = ["none", "random", "grid"].contains(&method.name());
        assert!(floor || method.card().paper.starts_with("https://"), "{} has no paper", method.name());
        assert_eq!(method.name() == "none", method.card().place == Place::Nowhere);
        assert_eq!(method.cut_layer().is_some(), method.card().place == Place::Llm, "{} cuts elsewhere", method.name());
        assert!(all[..i].iter().all(|other| other.name() != method.name()), "{} is there twice", method.name());
    }
    let unknown = pruner::<Cpu>("fastvlm", Params::default()).err().unwrap().to_string();
    assert!(unknown.contains("fastvlm") && unknown.contains("fastervlm"), "{unknown}");
}

#[test]
fn a_missing_cue_is_named() {
    let error =
        pruner::<Cpu>("fastervlm", Params::default()).unwrap().keep(&Cues::default(), 1).unwrap_err().to_string();
    assert!(error.contains("`cls_attention` [layers, crops, heads, patches]"), "{error}");
}

#[test]
fn fastervlm_takes_one_layer_only() {
    let attention = Tensor::<Cpu, 4>::zeros([5, 1, 2, 9], &Default::default());
    let cues = Cues { cls_attention: Some(attention), ..Cues::default() };
    let error = pruner::<Cpu>("fastervlm", Params::default()).unwrap().keep(&cues, 3).unwrap_err().to_string();
    assert!(error.contains("1 layer") && error.contains("there are 5"), "{error}");
}

#[test]
fn ties_go_to_the_first_patch_and_nan_ranks_last() {
    let device = Default::default();
    let zeros = Tensor::<Cpu, 2>::from_floats([[-0.0, 0.0, -0.0]], &device);
    assert_eq!(top_k(zeros, 1).unwrap().indices(), [vec![0]]);
    let score = Tensor::<Cpu, 2>::from_floats([[0.5, f32::NAN, 0.5, 0.7, 0.5]], &device);
    assert_eq!(top_k(score.clone(), 3).unwrap().indices(), [vec![0, 2, 3]]);
    assert_eq!(top_k(score, 5).unwrap().indices(), [vec![0, 1, 2, 3, 4]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is kept scores at least as high as what is dropped.
    #[test]
    fn top_k_keeps_the_best(scores in prop::collection::vec(-1.0f32..1.0, 1..200), share in 0.0f64..1.0) {
        let budget = ((scores.len() as f64 * share) as usize).max(1);
        let tensor = Tensor::<Cpu, 2>::from_data(TensorData::new(scores.clone(), [1, scores.len()]), &Default::default());
        let keep = top_k(tensor, budget).unwrap();
        let kept = &keep.indices()[0];
        prop_assert_eq!(kept.len(), budget);
        let worst_kept = kept.iter().map(|&i| scores[i]).fold(f32::INFINITY, f32::min);
        let dropped = (0..scores.len()).filter(|i| !kept.contains(i));
        prop_assert!(dropped.map(|i| scores[i]).all(|score| score <= worst_kept));
    }
}
