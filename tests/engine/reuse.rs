//! Work that is not done twice gives the answers of work that is: prompts that begin alike, and questions side by side.

use std::ops::ControlFlow;

use crate::common::fixture;
use assert_cmd::Command;
use secateur::{
    generate::{Begun, Decoding, Reuse, ask_about, begin, decode, generate, looks},
    image::decode as read_picture,
    model::{LoadOptions, open},
    pruner::{Params, selector},
    text::Prompt,
};
use secateur_backends::Flex;

const QUESTIONS: [&str; 3] = ["Is there a boat in the image?", "Is there a boat in the picture?", "What is it?"];

/// Two pictures, three questions each, whose greedy answers are long: every method at two budgets, and without pruning.
#[test]
fn prompts_that_begin_alike_are_answered_as_if_they_were_alone() {
    let clip = fixture("tiny-llava-1.5/clip-vit-tiny-patch14-336").display().to_string();
    let opened = open(&fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string(), Some(&clip)).unwrap();
    let device = Default::default();
    let model = opened.load::<Flex>(LoadOptions { joint: true, ..LoadOptions::default() }, &device).unwrap();
    let decoding = Decoding::greedy(12);
    let go_on = |_: usize, _: &[u32]| ControlFlow::Continue(());
    for (method, budget) in
        [("none", None), ("fastervlm", Some(64)), ("cdpruner", Some(64)), ("trim", Some(29)), ("fastv", Some(64))]
    {
        let selector = selector::<Flex>(method, Params::default()).unwrap();
        let (mut alone, mut asked, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        let mut one_by_one = Vec::<(Begun<Flex>, _)>::new();
        for picture in ["boat_123x90.png", "kitchen_85x120.png"] {
            let picture = read_picture(&fixture("tiny-llava-1.5/images").join(picture)).unwrap();
            let looks = looks(&model, &[picture.into()], &selector).unwrap();
            for question in QUESTIONS {
                let prompt =
                    Prompt::new(&model.chat().render(question, &[1]).unwrap(), question, model.tokenizer()).unwrap();
                let ask = || ask_about(&model, &looks, &prompt, &selector, budget).unwrap().1;
                alone.push(generate(&model, ask(), decoding, |_| ControlFlow::Continue(())).unwrap());
                asked.push(ask());
                // The prompt before has been continued meanwhile.
                let before = one_by_one.last().map(|(begun, _)| begun);
                let mut own = begin(&model, vec![ask()], decoding, Reuse::On(before)).unwrap();
                let answer = decode(&model, &mut own, decoding, go_on).unwrap().swap_remove(0);
                shared.push(answer.shared);
                one_by_one.push((own.swap_remove(0), answer));
            }
        }
        // Read together too: without pruning, more than fit into a pass.
        let mut begun = begin(&model, asked, decoding, Reuse::On(None)).unwrap();
        let together = decode(&model, &mut begun, decoding, go_on).unwrap();
        assert_eq!((alone.len(), one_by_one.len(), together.len()), (6, 6, 6));
        assert_eq!(shared[0], 0, "{method}");
        for ((alone, (_, in_turn)), together) in alone.iter().zip(&one_by_one).zip(&together) {
            assert_eq!(alone.ids, in_turn.ids, "{method}, in turn");
            assert_eq!(alone.ids, together.ids, "{method}, side by side");
            assert_eq!((alone.steps, &alone.kept), (together.steps, &together.kept), "{method}");
            assert_eq!(in_turn.shared, together.shared, "{method}");
        }
        let system = 35;
        let expected = match (method, budget) {
            // The caches of prompts that lose tokens on the way are not those of their beginnings.
            ("fastv", _) => [0; 6],
            // These read the question, which may choose other patches.
            ("cdpruner" | "trim", _) => shared.clone().try_into().unwrap(),
            (_, budget) => {
                let visual = system + budget.unwrap_or(576);
                let alike =
                    |question: usize| visual + common_words(&model, QUESTIONS[question - 1], QUESTIONS[question]);
                [0, alike(1), alike(2), system, alike(1), alike(2)]
            }
        };
        assert_eq!(shared, expected, "{method}");
        assert!(method == "fastv" || shared[1..].iter().all(|&shared| shared >= system), "{method}: {shared:?}");
    }
}

/// Tokens that two prompts have in common after the picture.
fn common_words(model: &secateur::model::Model<Flex>, a: &str, b: &str) -> usize {
    let after = |question: &str| {
        let ids = Prompt::new(&model.chat().render(question, &[1]).unwrap(), question, model.tokenizer()).unwrap().ids;
        let mark = ids.iter().position(|&id| id < 0).unwrap();
        ids[mark + 1..].to_vec()
    };
    after(a).iter().zip(&after(b)).take_while(|(a, b)| a == b).count()
}

/// A run in batches, and one that computes everything anew, have the answers of a plain one.
#[test]
fn a_run_in_batches_has_the_same_answers() {
    let here = tempfile::tempdir().unwrap();
    let run = |out: &str, more: &[&str]| {
        let args = ["eval", "demo", "--model", "demo", "--tokens", "29", "--limit", "10", "--json", "--out", out];
        let output =
            Command::cargo_bin("secateur").unwrap().args(args).args(more).current_dir(here.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(here.path().join(out).join("demo-demo-fastervlm-29/answers.jsonl")).unwrap()
    };
    let plain = run("plain", &[]);
    assert_eq!(plain.lines().count(), 10);
    assert_eq!(plain, run("batches", &["--batch-size", "4"]));
    assert_eq!(plain, run("anew", &["--no-reuse"]));
    let none = Command::cargo_bin("secateur").unwrap().args(["eval", "demo", "--batch-size", "0"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
}
