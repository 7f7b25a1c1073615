//! Benchmarks from a hub: parquet files with images inside, fetched, unpacked into LLaVA's layout, and scored.

use std::{path::Path, sync::Arc};

use crate::common::{fixture, hub::Hub};
use assert_cmd::Command;
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use secateur::task::TASKS;
use serde_json::Value;

/// A value of a small parquet file.
#[derive(Clone)]
enum Cell {
    Text(&'static str),
    Number(i64),
    /// Bytes of the image with this number, or none.
    Image(Option<usize>),
    Texts(&'static [&'static str]),
    /// A list of images.
    Images(&'static [usize]),
}
use Cell::{Image, Images, Number, Text, Texts};

const IMAGES: [&str; 2] = ["boat_123x90.png", "kitchen_85x120.png"];

/// A parquet file, written as the `datasets` library does: images are groups of `bytes` and `path`.
fn parquet(columns: &[(&str, Vec<Cell>)]) -> Vec<u8> {
    let field = |(name, cells): &(&str, Vec<Cell>)| match cells[0] {
        Text(_) => format!("OPTIONAL BYTE_ARRAY {name} (UTF8);"),
        Number(_) => format!("REQUIRED INT64 {name};"),
        Image(_) => {
            format!("OPTIONAL GROUP {name} {{ OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }}")
        }
        Texts(_) => {
            format!("OPTIONAL GROUP {name} (LIST) {{ REPEATED GROUP list {{ OPTIONAL BYTE_ARRAY element (UTF8); }} }}")
        }
        Images(_) => {
            format!(
                "OPTIONAL GROUP {name} (LIST) {{ REPEATED GROUP list {{ OPTIONAL GROUP element {{ OPTIONAL BYTE_ARRAY bytes; \
                 OPTIONAL BYTE_ARRAY path (UTF8); }} }} }}"
            )
        }
    };
    let fields: Vec<String> = columns.iter().map(field).collect();
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {} }}", fields.join(" "))).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let read = |i: usize| std::fs::read(fixture("tiny-llava-1.5/images").join(IMAGES[i])).unwrap();
    for (_, cells) in columns {
        let mut bytes = |values: &[ByteArray], definitions: &[i16], repetitions: Option<&[i16]>| {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(values, Some(definitions), repetitions).unwrap();
            column.close().unwrap();
        };
        match cells[0] {
            Text(_) => {
                let values: Vec<ByteArray> =
                    cells.iter().map(|cell| if let Text(text) = cell { (*text).into() } else { panic!() }).collect();
                bytes(&values, &vec![1; cells.len()], None);
            }
            Number(_) => {
                let values: Vec<i64> =
                    cells.iter().map(|cell| if let Number(n) = cell { *n } else { panic!() }).collect();
                let mut column = group.next_column().unwrap().unwrap();
                column.typed::<Int64Type>().write_batch(&values, None, None).unwrap();
                column.close().unwrap();
            }
            Image(_) => {
                let numbers: Vec<Option<usize>> =
                    cells.iter().map(|cell| if let Image(i) = cell { *i } else { panic!() }).collect();
                let values: Vec<ByteArray> = numbers.iter().flatten().map(|&i| read(i).into()).collect();
                let definitions: Vec<i16> = numbers.iter().map(|i| if i.is_some() { 2 } else { 0 }).collect();
                bytes(&values, &definitions, None);
                let definitions: Vec<i16> = numbers.iter().map(|i| i16::from(i.is_some())).collect();
                bytes(&[], &definitions, None);
            }
            Texts(_) => {
                let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
                for cell in cells {
                    let Texts(texts) = cell else { panic!() };
                    for (i, text) in texts.iter().enumerate() {
                        values.push(ByteArray::from(*text));
                        definitions.push(3);
                        repetitions.push(i16::from(i > 0));
                    }
                }
                bytes(&values, &definitions, Some(&repetitions));
            }
            Images(_) => {
                let (mut values, mut repetitions) = (Vec::new(), Vec::new());
                for cell in cells {
                    let Images(images) = cell else { panic!() };
                    values.extend(images.iter().map(|&i| ByteArray::from(read(i))));
                    repetitions.extend((0..images.len()).map(|i| i16::from(i > 0)));
                }
                bytes(&values, &vec![4; values.len()], Some(&repetitions));
                bytes(&[], &vec![3; values.len()], Some(&repetitions));
            }
        }
    }
    group.close().unwrap();
    writer.close().unwrap();
    file
}

fn texts(texts: &[&'static str]) -> Vec<Cell> {
    texts.iter().map(|text| Text(text)).collect()
}

/// A benchmark, its data set, the files of that, and a prompt.
type DataSet = (&'static str, &'static str, Vec<(&'static str, Vec<u8>)>, &'static str);

/// Each benchmark that has a data set, with the files of a small one, and a prompt that must come out.
fn data_sets() -> Vec<DataSet> {
    let images = |numbers: &[usize]| numbers.iter().map(|&i| Image(Some(i))).collect::<Vec<_>>();
    let mme = parquet(&[
        ("question_id", texts(&["existence/1.png", "existence/1.png", "artwork/images/2.png", "artwork/images/2.png"])),
        ("image", images(&[0, 0, 1, 1])),
        (
            "question",
            texts(&[
                "Is it a boat? Please answer yes or no.",
                "Is it a cat? Please answer yes or no.",
                "Old? Please answer yes or no.",
                "New? Please answer yes or no.",
            ]),
        ),
        ("answer", texts(&["Yes", "No", "Yes", "No"])),
        ("category", texts(&["existence", "existence", "artwork", "artwork"])),
    ]);
    let pope = parquet(&[
        ("question", texts(&["Is there a boat?", "Is there a cat?", "Is there a car?"])),
        ("answer", texts(&["yes", "no", "no"])),
        ("image_source", texts(&["COCO_1", "COCO_1", "COCO_2"])),
        ("image", images(&[0, 0, 1])),
        ("category", texts(&["adversarial", "random", "popular"])),
    ]);
    let textvqa = parquet(&[
        ("image_id", texts(&["a", "b"])),
        ("image", images(&[0, 1])),
        ("question", texts(&["what does the SIGN say?", "What time?"])),
        ("answers", vec![Texts(&["x"; 10]), Texts(&["y"; 10])]),
        ("ocr_tokens", vec![Texts(&["DAKOTA", "DIGITAL"]), Texts(&["5"])]),
    ]);
    let gqa_images = parquet(&[("id", texts(&["n1", "n2"])), ("image", images(&[0, 1]))]);
    let gqa = parquet(&[
        ("id", texts(&["7", "8"])),
        ("imageId", texts(&["n1", "n2"])),
        ("question", texts(&["Is it red?", "What is it?"])),
        ("answer", texts(&["no", "boat"])),
    ]);
    let vizwiz = parquet(&[
        ("question_id", texts(&["VizWiz_test_00000000"])),
        ("image", images(&[0])),
        ("question", texts(&["what is this? Thank you."])),
    ]);
    let scienceqa = parquet(&[
        ("image", vec![Image(Some(0)), Image(None)]),
        ("question", texts(&["Which?", "What?"])),
        ("choices", vec![Texts(&["this", "that"]), Texts(&["one", "two", "three"])]),
        ("answer", vec![Number(1), Number(2)]),
        ("hint", texts(&["Look.", ""])),
    ]);
    let mmbench = |question: &'static str| {
        parquet(&[
            ("index", vec![Number(1), Number(1_000_001)]),
            ("question", texts(&[question, question])),
            ("hint", texts(&["nan", "nan"])),
            ("A", texts(&["boat", "cat"])),
            ("B", texts(&["cat \"and\" dog", "boat"])),
            ("C", texts(&["nan", "nan"])),
            ("D", texts(&["nan", "nan"])),
            ("answer", texts(&["A", "B"])),
            ("split", texts(&["dev", "dev"])),
            ("image", images(&[0, 0])),
        ])
    };
    let mmvet = parquet(&[
        ("question_id", texts(&["v1_0"])),
        ("image", images(&[0])),
        ("question", texts(&["Why?"])),
        ("answer", texts(&["because<OR>so"])),
        ("capability", texts(&["rec,know"])),
    ]);
    let llava_bench = parquet(&[
        ("question_id", texts(&["0", "1"])),
        ("image_id", texts(&["001", "001"])),
        ("image", images(&[0, 0])),
        ("question", texts(&["What is it?", "Describe it."])),
        ("caption", texts(&["A boat.", "A boat."])),
        ("gpt_answer", texts(&["It is a boat.", "A boat on the sea."])),
        ("category", texts(&["conv", "detail"])),
    ]);
    let vqav2 = parquet(&[
        ("question_id", vec![Number(262_144_005)]),
        ("image_id", vec![Number(262_144)]),
        ("image", images(&[0])),
        ("question", texts(&["Is the ball flying?"])),
    ]);
    let seed = parquet(&[
        ("question_id", texts(&["101669", "v7"])),
        ("question_type_id", vec![Number(5), Number(10)]),
        ("data_type", texts(&["image", "video"])),
        ("question", texts(&["How many towels?", "What happens?"])),
        ("choice_a", texts(&["One", "this"])),
        ("choice_b", texts(&["Two", "that"])),
        ("choice_c", texts(&["Three", "both"])),
        ("choice_d", texts(&["Four", "none"])),
        ("answer", texts(&["A", "D"])),
        ("image", vec![Images(&[0]), Images(&[0, 1, 0])]),
    ]);
    let file = "data/test-00000-of-00001.parquet";
    vec![
        ("mme", "MME", vec![(file, mme)], "Is it a boat?\nAnswer the question using a single word or phrase."),
        ("pope", "POPE", vec![(file, pope)], "Is there a cat?\nAnswer the question using a single word or phrase."),
        (
            "textvqa",
            "textvqa",
            vec![("data/validation-00000-of-00001.parquet", textvqa)],
            "What does the sign say?\nReference OCR token: DAKOTA, DIGITAL\nAnswer the question using a single word or phrase.",
        ),
        (
            "gqa",
            "GQA",
            vec![
                ("testdev_balanced_images/testdev-0.parquet", gqa_images),
                ("testdev_balanced_instructions/testdev-0.parquet", gqa),
            ],
            "Is it red?\nAnswer the question using a single word or phrase.",
        ),
        (
            "vizwiz",
            "VizWiz-VQA",
            vec![(file, vizwiz)],
            "What is this? thank you.\nWhen the provided information is insufficient, respond with 'Unanswerable'.\nAnswer the \
             question using a single word or phrase.",
        ),
        (
            "scienceqa",
            "ScienceQA",
            vec![("ScienceQA-FULL/test-0.parquet", scienceqa)],
            "<image>\nContext: Look.\nWhich?\nA. this\nB. that\nAnswer with the option's letter from the given choices \
             directly.",
        ),
        (
            "mmbench",
            "MMBench",
            vec![("en/dev-0.parquet", mmbench("Which?")), ("cn/dev-0.parquet", mmbench("哪个?"))],
            "Which?\nA. boat\nB. cat \"and\" dog",
        ),
        (
            "mmbench-cn",
            "MMBench",
            vec![("en/dev-0.parquet", mmbench("Which?")), ("cn/dev-0.parquet", mmbench("哪个?"))],
            "哪个?\nA. boat\nB. cat \"and\" dog",
        ),
        ("mm-vet", "MMVet", vec![(file, mmvet)], "Why?"),
        ("llava-bench", "llava-bench-in-the-wild", vec![("data/train-0.parquet", llava_bench)], "Describe it."),
        (
            "vqav2",
            "VQAv2",
            vec![("data/testdev-0.parquet", vqav2)],
            "Is the ball flying?\nAnswer the question using a single word or phrase.",
        ),
        (
            "seed-bench",
            "SEED-Bench",
            vec![(file, seed)],
            "How many towels?\nA. One\nB. Two\nC. Three\nD. Four\nAnswer with the option's letter from the given choices \
             directly.",
        ),
    ]
}

fn secateur(hub: &str, home: &Path, here: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.env_remove("HF_HUB_OFFLINE").env_remove("HF_HUB_CACHE");
    let output = command.env("HF_ENDPOINT", hub).env("HF_HOME", home).current_dir(here).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_data_set_is_fetched_asked_and_scored() {
    let mut here: Vec<&str> = data_sets().iter().map(|(name, ..)| *name).collect();
    let mut all: Vec<&str> = TASKS.iter().filter(|task| task.card().hub.is_some()).map(|task| task.name()).collect();
    here.sort_unstable();
    all.sort_unstable();
    assert_eq!(here, all);
    for (name, id, files, prompt) in data_sets() {
        let (hub, home, here) = (Hub::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (file, bytes) in files {
            hub.add(&format!("datasets/lmms-lab-encoder/{id}"), file, bytes);
        }
        let args = ["eval", name, "--model", "demo", "--tokens", "8", "--json"];
        let (code, stdout, stderr) = secateur(&hub.endpoint, home.path(), here.path(), &args);
        assert_eq!(code, 0, "{name}: {stderr}");
        let score: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        assert_eq!(score["benchmark"], name);
        let run = here.path().join(format!("runs/{name}-demo-fastervlm-8/answers.jsonl"));
        let answers = std::fs::read_to_string(run).unwrap();
        let prompts: Vec<String> = answers
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["prompt"].as_str().unwrap().to_owned())
            .collect();
        assert!(prompts.iter().any(|asked| asked == prompt), "{name}: {prompts:?}");

        // The second time, nothing is asked of the hub; and `pull` says where it is.
        hub.requests();
        let (code, stdout, _) = secateur(&hub.endpoint, home.path(), here.path(), &["pull", name]);
        assert_eq!(code, 0);
        assert!(Path::new(stdout.trim()).starts_with(home.path().join("secateur")), "{stdout}");
        assert_eq!(hub.requests(), Vec::<String>::new(), "{name}");

        let official = Path::new(stdout.trim()).join("test/VizWiz_test_00000000.jpg");
        assert!(name != "vizwiz" || official.is_file(), "the server knows images by this name");

        // What a process left that was stopped while it unpacked is cleared away by the next, which needs no hub for what was downloaded.
        let whole = Path::new(stdout.trim());
        let draft = whole.with_added_extension("part");
        std::fs::rename(whole, &draft).unwrap();
        std::fs::write(draft.join("half"), "").unwrap();
        let mut pull = Command::cargo_bin("secateur").unwrap();
        pull.env("HF_HUB_OFFLINE", "1").env_remove("HF_HUB_CACHE").env("HF_HOME", home.path()).args(["pull", name]);
        let again = pull.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&again.stdout), stdout, "{}", String::from_utf8_lossy(&again.stderr));
        assert!(!draft.exists() && !whole.join("half").exists(), "{name}");
    }
}

#[test]
fn data_that_is_not_as_expected_gets_a_sentence_and_leaves_nothing() {
    let (hub, home, here) = (Hub::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let refuse = |bytes: Vec<u8>, expected: &str| {
        hub.add("datasets/lmms-lab-encoder/MME", "data/test-00000-of-00001.parquet", bytes);
        let (code, _, stderr) = secateur(&hub.endpoint, home.path(), here.path(), &["pull", "mme"]);
        assert!(code == 1 && stderr.contains(expected), "{stderr}");
        let unpacked = std::fs::read_dir(home.path().join("secateur")).into_iter().flatten();
        assert_eq!(unpacked.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0, "{stderr}");
        std::fs::remove_dir_all(home.path().join("hub")).unwrap();
    };
    refuse(b"no parquet at all".to_vec(), "not a parquet file");
    let columns = |id| {
        parquet(&[
            ("question_id", texts(&[id])),
            ("image", vec![Image(Some(0))]),
            ("question", texts(&["Is it?"])),
            ("answer", texts(&["Yes"])),
        ])
    };
    refuse(columns("existence/1.png"), "no column `category`");
    let outside = parquet(&[
        ("question_id", texts(&["../../outside.png"])),
        ("image", vec![Image(Some(0))]),
        ("question", texts(&["Is it?"])),
        ("answer", texts(&["Yes"])),
        ("category", texts(&["existence"])),
    ]);
    refuse(outside, "no plain name");
}
