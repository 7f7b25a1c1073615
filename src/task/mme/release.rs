//! MME's folders as they are published, and LLaVA's question file beside them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use super::{COGNITION, PERCEPTION, YES_OR_NO};
use crate::{
    Error,
    files::read_text,
    task::{
        Sample,
        questions::{Question, lines, sample},
    },
    text::SINGLE_WORD,
};

/// The folder that holds the category folders.
pub(super) fn release_folder(data: &Path) -> Result<PathBuf, Error> {
    let has_category =
        |folder: &PathBuf| PERCEPTION.iter().chain(&COGNITION).any(|category| folder.join(category).is_dir());
    ["MME_Benchmark_release_version", "MME_Benchmark_release_version/MME_Benchmark", "MME_Benchmark", "."]
        .map(|name| data.join(name))
        .into_iter()
        .find(has_category)
        .ok_or_else(|| {
            Error::data(
                data,
                "expected MME's category folders here or in MME_Benchmark_release_version; --data names the folder",
            )
        })
}

pub(super) fn samples_of_file(path: &Path, release: &Path) -> Result<Vec<Sample>, Error> {
    let questions: Vec<Question> = lines(path, "question")?;
    let read = |q: Question| Sample { category: q.category, ..sample(q.question_id, release.join(q.image), q.text) };
    Ok(questions.into_iter().map(read).collect())
}

/// The questions as the label files have them, for a release without LLaVA's question file.
pub(super) fn samples_of_release(release: &Path) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    for category in PERCEPTION.iter().chain(&COGNITION) {
        let folder = release.join(category);
        if !folder.is_dir() {
            continue;
        }
        let images = if folder.join("images").is_dir() { format!("{category}/images") } else { (*category).to_owned() };
        for (stem, lines) in label_files(&folder)? {
            let image = ["jpg", "png", "jpeg"]
                .map(|extension| format!("{images}/{stem}.{extension}"))
                .into_iter()
                .find(|name| release.join(name).is_file())
                .ok_or_else(|| Error::data(&folder, format!("no image for {stem}.txt")))?;
            for (question, _) in lines {
                let text = format!("{}{SINGLE_WORD}", question.replace(YES_OR_NO, "").trim());
                let sample = sample(image.clone().into(), release.join(&image), text);
                samples.push(Sample { category: (*category).to_owned(), ..sample });
            }
        }
    }
    Ok(samples)
}

/// The lines `(question, answer)` of every label file of a category, by the file's stem.
fn label_files(folder: &Path) -> Result<BTreeMap<String, Vec<(String, String)>>, Error> {
    let nested = folder.join("questions_answers_YN");
    let folder = if nested.is_dir() { nested } else { folder.to_owned() };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "the labels cannot be listed"))? {
        let path = entry.map_err(Error::io(&folder, "the labels cannot be listed"))?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = read_text(&path, "the labels cannot be read")?;
        let lines = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (question, answer) = line.trim().split_once('\t').ok_or_else(|| {
                    Error::data(
                        &path,
                        format!("expected `question⇥answer`, found `{}`", secateur_weights::printable(line)),
                    )
                })?;
                Ok((question.to_owned(), answer.to_owned()))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(stem, lines);
    }
    Ok(files)
}

/// `(category, file, question)` → whether the answer is yes.
pub(super) struct Labels(HashMap<(String, String, String), bool>);

impl Labels {
    pub(super) fn read(release: &Path) -> Result<Self, Error> {
        let mut labels = HashMap::new();
        for category in PERCEPTION.iter().chain(&COGNITION) {
            let folder = release.join(category);
            if !folder.is_dir() {
                continue;
            }
            for (stem, lines) in label_files(&folder)? {
                for (question, answer) in lines {
                    let yes = match answer.trim().to_lowercase().as_str() {
                        "yes" => true,
                        "no" => false,
                        other => {
                            return Err(Error::data(
                                &folder,
                                format!("{stem}.txt: expected Yes or No, found `{other}`"),
                            ));
                        }
                    };
                    labels.insert(((*category).to_owned(), format!("{stem}.txt"), question), yes);
                }
            }
        }
        Ok(Self(labels))
    }

    /// The number of questions with a label.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The label of a prompt, looked up as LLaVA's converter does: without the suffix, with the request for yes or no
    /// after one space or two.
    pub(super) fn find(&self, category: &str, file: &str, prompt: &str) -> Option<(String, bool)> {
        let question = prompt.replace(SINGLE_WORD.trim(), "").trim().to_owned();
        let candidates = if question.contains(YES_OR_NO) {
            vec![question]
        } else {
            vec![format!("{question} {YES_OR_NO}"), format!("{question}  {YES_OR_NO}")]
        };
        candidates.into_iter().find_map(|question| {
            let key = (category.to_owned(), file.to_owned(), question);
            self.0.get(&key).map(|&yes| (key.2.clone(), yes))
        })
    }
}
