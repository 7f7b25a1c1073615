//! DivPrune, VisionZip and TRIM against a plain float64 transcription of the rule in each one's repository, on cues that
//! look like an image's. The repositories' code itself was read, not run.

use crate::common::{
    Cpu,
    cues::{pruner, tensor},
    on_every_backend, tensors,
};
use burn::tensor::{Tensor, TensorData};
use secateur::pruner::{Cues, Params};
use secateur_backends::{Job, VlmBackend};

const BUDGETS: [usize; 5] = [1, 7, 29, 64, 192];

/// Rows of f64.
type Rows = Vec<Vec<f64>>;

/// The recorded features of one image, cut into rows.
fn natural() -> (Rows, Vec<f64>) {
    let inputs = tensors("pruners/attention/natural_b1.safetensors");
    let (features, attention) = (&inputs["image_features"], &inputs["cls_attentions"]);
    let rows = features.values.chunks(features.shape[2]).map(|row| row.iter().map(|&v| f64::from(v)).collect());
    let (heads, patches) = (attention.shape[1], attention.shape[2]);
    let mean = |p: usize| (0..heads).map(|h| f64::from(attention.values[h * patches + p])).sum::<f64>() / heads as f64;
    (rows.collect(), (0..patches).map(mean).collect())
}

fn three<B: VlmBackend>(rows: &Rows, device: &B::Device) -> Tensor<B, 3> {
    let values: Vec<f32> = rows.iter().flatten().map(|&v| v as f32).collect();
    Tensor::from_data(TensorData::new(values, [1, rows.len(), rows[0].len()]), device)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

fn argmax(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().fold((0, f64::NEG_INFINITY), |best, (i, v)| if v > best.1 { (i, v) } else { best }).0
}

/// `DivPrune`: the second smallest distance of every column decides the first, then the largest smallest one.
fn divprune(rows: &Rows, budget: usize) -> Vec<usize> {
    let n = rows.len();
    let distance: Vec<Vec<f64>> = rows.iter().map(|a| rows.iter().map(|b| 1.0 - cosine(a, b)).collect()).collect();
    let mut chosen = Vec::new();
    for step in 0..budget {
        let score = |column: usize| {
            if step == 0 {
                let mut all: Vec<f64> = (0..n).map(|row| distance[row][column]).collect();
                all.sort_by(f64::total_cmp);
                return all[1];
            }
            chosen.iter().map(|&row: &usize| distance[row][column]).fold(f64::INFINITY, f64::min)
        };
        let next = argmax((0..n).map(score));
        chosen.push(next);
    }
    chosen.sort_unstable();
    chosen
}

#[derive(Clone)]
struct DivPruneRule;

impl Job for DivPruneRule {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let (rows, _) = natural();
        let cues = Cues { projected: Some(three::<B>(&rows, &device)), ..Cues::default() };
        for budget in BUDGETS {
            let keep = pruner::<B>("divprune", Params::default()).unwrap().keep(&cues, budget).unwrap();
            assert_eq!(keep.indices(), [divprune(&rows, budget)], "{budget}");
        }
    }
}

#[test]
fn divprune_follows_the_official_rule() {
    on_every_backend(&DivPruneRule);
}

/// DivPrune may choose a patch twice when only duplicates are left; here it never does.
#[test]
fn divprune_spends_its_budget_on_duplicates_too() {
    let rows: Rows = (0..12).map(|i| vec![f64::from(i % 3), 1.0]).collect();
    let cues = Cues { projected: Some(three::<Cpu>(&rows, &Default::default())), ..Cues::default() };
    let keep = pruner("divprune", Params::default()).unwrap().keep(&cues, 9).unwrap();
    let kept = &keep.indices()[0];
    // Of three directions, each once before any is taken a second time, and then in turn.
    assert_eq!([0, 1, 2].map(|row| kept.iter().filter(|&&patch| patch % 3 == row).count()).iter().sum::<usize>(), 9);
    assert!([0, 1, 2].iter().all(|row| kept.iter().any(|patch| patch % 3 == *row)), "{kept:?}");
}

/// VisionZip: dominant patches, and the contextual tokens as `(centre, members)`.
fn visionzip(
    attention: &[f64],
    keys: &Rows,
    dominant: usize,
    contextual: usize,
) -> (Vec<usize>, Vec<(usize, Vec<usize>)>) {
    let mut order: Vec<usize> = (0..attention.len()).collect();
    order.sort_by(|&a, &b| attention[b].total_cmp(&attention[a]));
    let mut kept = order[..dominant].to_vec();
    kept.sort_unstable();
    let filtered: Vec<usize> = (0..attention.len()).filter(|patch| !kept.contains(patch)).collect();
    if contextual == 0 {
        return (kept, Vec::new());
    }
    let step = (filtered.len() / contextual).max(1);
    let targets: Vec<usize> = (0..filtered.len()).step_by(step).take(contextual).collect();
    let mut tokens: Vec<(usize, Vec<usize>)> = targets.iter().map(|&t| (filtered[t], Vec::new())).collect();
    for (_, &patch) in filtered.iter().enumerate().filter(|(i, _)| !targets.contains(i)) {
        let nearest = argmax(targets.iter().map(|&t| cosine(&keys[patch], &keys[filtered[t]])));
        tokens[nearest].1.push(patch);
    }
    (kept, tokens)
}

#[derive(Clone)]
struct VisionZipRule;

impl Job for VisionZipRule {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let (keys, attention) = natural();
        let inputs = tensors("pruners/attention/natural_b1.safetensors");
        let golden = &inputs["cls_attentions"];
        let cues = Cues {
            cls_attention: Some(tensor::<B, 4>(golden, [1, 1, golden.shape[1], golden.shape[2]], &device)),
            keys: Some(three::<B>(&keys, &device)),
            ..Cues::default()
        };
        // 54 + 10, 108 + 20 and 162 + 30 are the official settings.
        for (budget, contextual) in [(1, 0), (7, 1), (29, 4), (64, 10), (128, 20), (192, 30)] {
            let keep = pruner::<B>("visionzip", Params::default()).unwrap().keep(&cues, budget).unwrap();
            let (dominant, tokens) = visionzip(&attention, &keys, budget - contextual, contextual);
            assert_eq!(keep.plain(), [dominant], "{budget}");
            let found: Vec<(usize, Vec<usize>)> =
                keep.blends()[0].iter().map(|blend| (blend.centre.unwrap(), blend.others.clone())).collect();
            assert_eq!(found, tokens, "{budget}");
        }
    }
}

#[test]
fn visionzip_follows_the_official_rule() {
    on_every_backend(&VisionZipRule);
}

#[derive(Clone)]
struct TrimRule;

impl Job for TrimRule {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let (rows, _) = natural();
        let text: Vec<f64> = (0..rows[0].len()).map(|i| ((i * 37 % 11) as f64 - 5.0) / 7.0).collect();
        let values: Vec<f32> = text.iter().map(|&v| v as f32).collect();
        let cues = Cues {
            image_embeds: Some(three::<B>(&rows, &device)),
            text_embeds: Some(Tensor::from_data(TensorData::new(values, [1, text.len()]), &device)),
            ..Cues::default()
        };
        let product = |row: &Vec<f64>| row.iter().zip(&text).map(|(a, b)| a * b).sum::<f64>();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| product(&rows[a]).total_cmp(&product(&rows[b])));
        for budget in BUDGETS {
            let keep = pruner::<B>("trim", Params::default()).unwrap().keep(&cues, budget).unwrap();
            let mut wanted = order[..budget].to_vec();
            wanted.sort_unstable();
            assert_eq!(keep.plain(), [wanted.clone()], "{budget}");
            let rest: Vec<usize> = (0..rows.len()).filter(|patch| !wanted.contains(patch)).collect();
            assert_eq!((keep.blends()[0][0].centre, &keep.blends()[0][0].others), (None, &rest), "{budget}");
        }
    }
}

#[test]
fn trim_follows_the_official_rule() {
    on_every_backend(&TrimRule);
}

/// SCOPE's rule, written out plainly: each step tries every patch, and counts its cover anew.
fn scope_rule(attention: &[f64], features: &[Vec<f64>], budget: usize) -> Vec<usize> {
    let patches = features.len();
    let mut chosen: Vec<usize> = Vec::new();
    let cover =
        |chosen: &[usize], i: usize| chosen.iter().map(|&j| cosine(&features[i], &features[j])).fold(0.0, f64::max);
    for _ in 0..budget {
        let gain = |j: usize| {
            if chosen.contains(&j) {
                return f64::NEG_INFINITY;
            }
            let with: Vec<usize> = chosen.iter().copied().chain([j]).collect();
            let added: f64 = (0..patches).map(|i| cover(&with, i) - cover(&chosen, i)).sum();
            added * attention[j]
        };
        chosen.push(argmax((0..patches).map(gain)));
    }
    chosen.sort_unstable();
    chosen
}

#[test]
fn scope_follows_its_rule() {
    type B = crate::common::Cpu;
    let cues = crate::common::cues::cues::<B>(
        pruner::<B>("scope", Params::default()).unwrap().card().needs,
        1,
        60,
        &Default::default(),
    );
    let features = crate::common::golden::values(cues.features.clone().unwrap());
    let width = features.len() / 60;
    let rows: Vec<Vec<f64>> = features.chunks(width).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect();
    let attention = crate::common::golden::values(cues.cls_attention.clone().unwrap().mean_dim(2));
    let attention: Vec<f64> = attention.iter().map(|x| f64::from(*x)).collect();
    for budget in [1, 2, 9, 30, 60] {
        let keep = pruner::<B>("scope", Params::default()).unwrap().keep(&cues, budget).unwrap();
        assert_eq!(keep.indices()[0], scope_rule(&attention, &rows, budget), "{budget}");
    }
}
