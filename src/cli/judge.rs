//! Scoring, with a judge if the benchmark has one and the user named it.

use std::path::Path;

use anyhow::bail;

use super::{args::JudgeArgs, progress::progress};
use crate::{
    files::read_text,
    judge::{Judge, JudgeConfig, Request, check_address},
    task::{Answer, Judged, Protocol, Report, Task, unread},
    words::excerpt,
};

/// The file of the judge's replies, beside the answers.
const CACHE: &str = "judge.jsonl";

/// Scores the answers in `folder`.
pub(super) fn score(
    task: &dyn Task,
    data: &Path,
    answers: &[Answer],
    protocol: Protocol,
    args: &JudgeArgs,
    folder: &Path,
) -> anyhow::Result<Report> {
    let unread = unread(task, answers, protocol);
    let Some(url) = &args.judge_url else {
        let mut report = task.score(data, answers, protocol)?;
        report.notes.extend(unread);
        return Ok(report);
    };
    let (judged, requests) = requests(task, data, answers, protocol, args)?;
    let config = JudgeConfig {
        url: url.clone(),
        model: args.judge_model.clone().unwrap_or_else(|| judged.judge(protocol).to_owned()),
        key: std::env::var("OPENAI_API_KEY").ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()),
        price: args.judge_price,
    };
    let judge = Judge::open(config, &folder.join(CACHE))?;
    say!("{}: {}", judge.name(), judge.estimate(&requests));
    let bar = progress(requests.len(), 0);
    let verdicts = judge.ask(&requests, |reply| judged.verdict(reply), || bar.inc(1))?;
    bar.finish_and_clear();
    let mut report = judged.report(data, answers, &verdicts.read, protocol)?;
    report.notes.extend(unread);
    if let Some(reply) = &verdicts.unread {
        report.notes.push(format!("the judge's replies without a verdict are like `{}`", excerpt(reply)));
    }
    let words = args.judge_prompt.as_ref().map_or_else(
        || "Secateur's instruction, which is not the official text".to_owned(),
        |path| format!("the instruction in {}", path.display()),
    );
    report.notes.push(format!("judged by {}, with {words}", judge.name()));
    Ok(report)
}

/// Refuses before a long run the settings that would be refused after it.
pub(super) fn check(
    task: &dyn Task,
    data: &Path,
    answers: &[Answer],
    protocol: Protocol,
    args: &JudgeArgs,
) -> anyhow::Result<()> {
    match &args.judge_url {
        Some(url) => {
            requests(task, data, answers, protocol, args)?;
            check_address(url)?;
        }
        None => {
            task.score(data, answers, protocol)?;
        }
    }
    Ok(())
}

/// The requests to the judge, once it is clear that its replies can be scored.
fn requests<'a>(
    task: &'a dyn Task,
    data: &Path,
    answers: &[Answer],
    protocol: Protocol,
    args: &JudgeArgs,
) -> anyhow::Result<(&'a dyn Judged, Vec<Request>)> {
    let Some(judged) = task.judged() else { bail!("{} needs no judge; leave out --judge-url", task.name()) };
    // Rules that this benchmark does not have would be refused only after the judge has replied.
    task.score(data, answers, protocol)?;
    let instruction = args.judge_prompt.as_deref().map(instruction).transpose()?;
    Ok((judged, judged.requests(data, answers, instruction.as_ref())?))
}

/// Reads an instruction: a JSON object as it is (LLaVA's `rule.json` has an instruction for each category), anything
/// else as text.
fn instruction(path: &Path) -> anyhow::Result<serde_json::Value> {
    let text = read_text(path, "the instruction cannot be read")?;
    Ok(serde_json::from_str(&text).ok().filter(serde_json::Value::is_object).unwrap_or_else(|| text.into()))
}
