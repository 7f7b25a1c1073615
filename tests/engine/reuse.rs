//! Work that is not done twice gives the answers of work that is: prompts that begin alike, and questions side by side.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::common::fixture;
use assert_cmd::Command;
use secateur::{
    Error,
    engine::{Decoding, Engine, Event, Generated, Limits, Media, Request, RequestId, SharedMedia},
    image::decode,
    model::{Beside, LoadOptions, Model, open},
    pruner::{Budget, Params, selector},
    text::Prompt,
};
use secateur_backends::Flex;

const QUESTIONS: [&str; 3] = ["Is there a boat in the image?", "Is there a boat in the picture?", "What is it?"];

/// Answers requests, so many side by side, and returns them in the order in which they were asked.
fn ask<'m>(
    model: &'m Model<Flex>,
    limits: Limits,
    requests: impl IntoIterator<Item = Request<'m, Flex>>,
) -> Vec<Generated> {
    let mut engine = Engine::new(model, limits);
    let ids: Vec<RequestId> = requests.into_iter().map(|request| engine.submit(request)).collect();
    let mut found = BTreeMap::new();
    engine.run(&mut |event| {
        if let Event::Ended { id, outcome } = event {
            found.insert(id, outcome.unwrap().generated);
        }
        ControlFlow::Continue(())
    });
    ids.iter().map(|id| found.remove(id).unwrap()).collect()
}

/// Two images, three questions each, whose greedy answers are long: every method at two budgets, and without pruning.
#[test]
fn prompts_that_begin_alike_are_answered_as_if_they_were_alone() {
    let clip = fixture("tiny-llava-1.5/clip-vit-tiny-patch14-336").display().to_string();
    let checkpoint = open(
        &fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string(),
        Beside { clip: Some(&clip), ..Beside::default() },
    )
    .unwrap();
    let device = Default::default();
    let model = checkpoint.load::<Flex>(LoadOptions { joint: true, ..LoadOptions::default() }, &device).unwrap();
    let decoding = Decoding::greedy(12);
    let images = ["boat_123x90.png", "kitchen_85x120.png"]
        .map(|name| SharedMedia::new(decode(&fixture("tiny-llava-1.5/images").join(name)).unwrap().into()));
    for (method, budget) in [
        ("none", None::<usize>),
        ("fastervlm", Some(64)),
        ("cdpruner", Some(64)),
        ("trim", Some(29)),
        ("fastv", Some(64)),
    ] {
        let selector = selector::<Flex>(method, Params::default()).unwrap();
        let requests = || {
            images.iter().flat_map(|image| {
                QUESTIONS.map(|question| {
                    let text = model.chat().render(question, &[1]).unwrap();
                    let prompt = Prompt::new(&text, question, model.tokenizer()).unwrap();
                    Request::new(
                        vec![Media::Shared(image.clone())],
                        prompt,
                        &selector,
                        budget.map(Into::into),
                        decoding,
                    )
                })
            })
        };
        let limits = Limits::default();
        let alone = ask(&model, limits.without_reuse(), requests());
        // The prompt before has been continued meanwhile.
        let one_by_one = ask(&model, limits, requests());
        // Without pruning, more than fit into a pass.
        let together = ask(&model, Limits { batch: 6, ..limits }, requests());
        // Requests join while others are being answered.
        let joining = ask(&model, Limits { batch: 4, ..limits }, requests());
        // Prompts are read in parts, between which others are answered.
        let in_parts = ask(&model, Limits { batch: 4, step_rows: 40, ..limits }, requests());
        assert_eq!(in_parts.len(), 6);
        assert_eq!((alone.len(), one_by_one.len(), together.len(), joining.len()), (6, 6, 6, 6));
        let shared: Vec<usize> = one_by_one.iter().map(|answer| answer.shared).collect();
        assert_eq!(shared[0], 0, "{method}");
        for (i, alone) in alone.iter().enumerate() {
            let ways = [
                ("in turn", &one_by_one[i]),
                ("together", &together[i]),
                ("joining", &joining[i]),
                ("in parts", &in_parts[i]),
            ];
            for (how, found) in ways {
                assert_eq!(alone.ids, found.ids, "{method}, {how}");
                assert_eq!((alone.steps, &alone.kept), (found.steps, &found.kept), "{method}, {how}");
            }
            assert_eq!(alone.shared, 0);
            // One that came longer before may have more in common.
            let more = ["cdpruner", "trim"].contains(&method) && one_by_one[i].shared >= together[i].shared;
            assert!(more || one_by_one[i].shared == together[i].shared, "{method}");
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

/// An error of a request, or a client that goes away, touches no other request; a budget of bytes makes requests wait.
#[test]
fn requests_do_not_touch_each_other() {
    let checkpoint = open(&fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string(), Beside::default()).unwrap();
    let model = checkpoint.load::<Flex>(LoadOptions::default(), &Default::default()).unwrap();
    let selector = selector::<Flex>("fastervlm", Params::default()).unwrap();
    let image = SharedMedia::new(decode(&fixture("tiny-llava-1.5/images/boat_123x90.png")).unwrap().into());
    let request = |question: &str, budget| {
        let prompt = Prompt::new(&model.chat().render(question, &[1]).unwrap(), question, model.tokenizer()).unwrap();
        Request::new(
            vec![Media::Shared(image.clone())],
            prompt,
            &selector,
            Some(Budget::Tokens(budget)),
            Decoding::greedy(12),
        )
    };
    let alone = ask(&model, Limits::default().without_reuse(), [request(QUESTIONS[0], 64), request(QUESTIONS[2], 29)]);

    let mut engine = Engine::new(&model, Limits { batch: 4, ..Limits::default() });
    let first = engine.submit(request(QUESTIONS[0], 64));
    let too_large = engine.submit(request(QUESTIONS[1], 577));
    let (leaves, waits) = (request(QUESTIONS[1], 64), request(QUESTIONS[1], 64));
    let (leave, gone) = (leaves.cancel.clone(), waits.cancel.clone());
    let leaving = engine.submit(leaves);
    let never = engine.submit(waits);
    gone.cancel();
    let last = engine.submit(request(QUESTIONS[2], 29));
    let mut found = BTreeMap::new();
    let mut steps = 0;
    while engine.unfinished() > 0 {
        engine.step(&mut |event| {
            if let Event::Ended { id, outcome } = event {
                found.insert(id, outcome.map(|answered| answered.generated.ids));
            }
            ControlFlow::Continue(())
        });
        steps += 1;
        if steps == 3 {
            leave.cancel();
        }
    }
    assert_eq!(found[&first].as_ref().unwrap(), &alone[0].ids);
    assert_eq!(found[&last].as_ref().unwrap(), &alone[1].ids);
    assert!(matches!(found[&too_large], Err(Error::Budget { budget: 577, patches: 576 })));
    assert!(matches!(found[&never], Err(Error::Cancelled)));
    // What it had when its client went.
    let part = found[&leaving].as_ref().unwrap();
    assert!((1..12).contains(&part.len()), "{part:?}");

    // One after another, because a second one's keys and values do not fit beside the first one's.
    let one = model.kv_bytes(64 + 12 + 60);
    for (kv_bytes, side_by_side) in [(1, false), (3 * one / 2, false), (8 * one, true)] {
        let mut engine = Engine::new(&model, Limits { batch: 4, kv_bytes, ..Limits::default() });
        let first = engine.submit(request(QUESTIONS[0], 64));
        let second = engine.submit(request(QUESTIONS[2], 29));
        let (mut is_running, mut overlaps, mut found) = (true, false, BTreeMap::new());
        engine.run(&mut |event| {
            match event {
                Event::Token { id, .. } => overlaps |= is_running && id == second,
                Event::Ended { id, outcome } => {
                    is_running &= id != first;
                    found.insert(id, outcome.unwrap().generated.ids);
                }
            }
            ControlFlow::Continue(())
        });
        assert_eq!(overlaps, side_by_side, "{kv_bytes} bytes");
        assert_eq!((&found[&first], &found[&second]), (&alone[0].ids, &alone[1].ids), "{kv_bytes} bytes");
    }
}

/// While a long prompt is read in parts, another answer goes on: a token in every step.
#[test]
fn a_long_prompt_holds_nobody_up() {
    let checkpoint = open(&fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string(), Beside::default()).unwrap();
    let model = checkpoint.load::<Flex>(LoadOptions::default(), &Default::default()).unwrap();
    let selector = selector::<Flex>("none", Params::default()).unwrap();
    let request = |name: &str, tokens| {
        let image = SharedMedia::new(decode(&fixture("tiny-llava-1.5/images").join(name)).unwrap().into());
        let text = model.chat().render(QUESTIONS[0], &[1]).unwrap();
        let prompt = Prompt::new(&text, QUESTIONS[0], model.tokenizer()).unwrap();
        Request::new(vec![Media::Shared(image)], prompt, &selector, None, Decoding::greedy(tokens))
    };
    let mut engine = Engine::new(&model, Limits { batch: 4, step_rows: 100, ..Limits::default() });
    let first = engine.submit(request("boat_123x90.png", 40));
    let mut tokens = Vec::new();
    let mut step = |engine: &mut Engine<'_, Flex>| {
        let before = tokens.len();
        engine.step(&mut |event| {
            if let Event::Token { id, .. } = event {
                tokens.push(id);
            }
            ControlFlow::Continue(())
        });
        tokens[before..].to_vec()
    };
    while step(&mut engine).is_empty() {}
    // 35 tokens of the system's text are there already, and 576 of another image are not.
    let second = engine.submit(request("kitchen_85x120.png", 3));
    let mut parts = 0;
    loop {
        let new = step(&mut engine);
        assert!(new.contains(&first), "{new:?}");
        parts += 1;
        if new.contains(&second) {
            break;
        }
    }
    assert_eq!(parts, 6);
    // A client that goes away in the middle of its prompt ends there.
    let gone = request("boat_123x90.png", 3);
    let cancel = gone.cancel.clone();
    let mut engine = Engine::new(&model, Limits { batch: 4, step_rows: 100, ..Limits::default() });
    let id = engine.submit(gone);
    engine.step(&mut |_| ControlFlow::Continue(()));
    cancel.cancel();
    let mut ended = None;
    engine.step(&mut |event| {
        if let Event::Ended { id: found, outcome } = event {
            ended = Some((found, outcome.map(|_| ())));
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Some((found, Err(Error::Cancelled))) if found == id), "{ended:?}");
    assert_eq!(engine.unfinished(), 0);
}

/// Tokens that two prompts have in common after the image.
fn common_words(model: &Model<Flex>, a: &str, b: &str) -> usize {
    let after = |question: &str| {
        let ids = Prompt::new(&model.chat().render(question, &[1]).unwrap(), question, model.tokenizer()).unwrap().ids;
        let placeholder = ids.iter().position(|&id| id < 0).unwrap();
        ids[placeholder + 1..].to_vec()
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
    assert_eq!(none.status.code(), Some(2));
}
