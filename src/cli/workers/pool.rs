//! The workers of a run.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, channel},
};

use anyhow::{Context, bail};
use secateur_backends::Target;
use serde_json::Value;

use super::{
    member::{Event, Member},
    plan::WorkerArgs,
    protocol::{Order, Reply},
};
use crate::{cli::terminal::say_once, words::count};

/// Worker processes.
pub(in crate::cli) struct Pool {
    members: Vec<Member>,
    target: Target,
    /// The threads of a worker.
    threads: usize,
    events: Receiver<(usize, Event)>,
    sender: Sender<(usize, Event)>,
    /// Why no worker is left, when none is.
    last_end: String,
}

/// The content of an event that a run acts on.
enum News {
    Result {
        question: usize,
        value: Value,
    },
    /// Questions of a worker that ended.
    Left(Vec<usize>),
    Failed(String),
    Nothing,
}

impl Pool {
    /// Starts the workers that the flags ask for, and waits until one has loaded the model; `None` where they ask for none.
    ///
    /// # Errors
    /// When a device is not there, or no worker can load the model.
    pub(in crate::cli) fn start(args: &WorkerArgs, target: Target) -> anyhow::Result<Option<Self>> {
        let Some(seats) = args.seats(target)? else { return Ok(None) };
        let threads = seats.first().and_then(|seat| seat.threads).unwrap_or_else(rayon::current_num_threads);
        let (sender, events) = channel();
        let start = |(number, seat)| Member::start(seat, number, &sender).context("a worker cannot be started");
        let members = seats.into_iter().enumerate().map(start).collect::<anyhow::Result<_>>()?;
        let mut pool = Self { members, target, threads, events, sender, last_end: String::new() };
        while !pool.members.iter().any(|member| member.is_ready) {
            pool.check_some_left()?;
            pool.next(&mut |text| say_once(text))?;
        }
        Ok(Some(pool))
    }

    /// The backend, and the device that was asked for.
    pub(in crate::cli) fn target(&self) -> Target {
        self.target
    }

    /// The number of workers that were started.
    pub(in crate::cli) fn len(&self) -> usize {
        self.members.len()
    }

    /// The threads of each worker.
    pub(in crate::cli) fn threads(&self) -> usize {
        self.threads
    }

    /// Hands out the groups of questions of a run in turn, and takes the results as they come; `say` prints a line beside the progress.
    ///
    /// # Errors
    /// When a question fails, a result cannot be taken, or all workers ended. Results that came before are taken.
    pub(in crate::cli) fn hand_out(
        &mut self,
        run: usize,
        groups: Vec<Vec<usize>>,
        mut on_result: impl FnMut(usize, Value) -> anyhow::Result<()>,
        mut say: impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let mut groups = VecDeque::from(groups);
        let mut failed = None;
        loop {
            if failed.is_none() {
                for member in self.members.iter_mut().filter(|member| member.is_idle()) {
                    let Some(questions) = groups.pop_front() else { break };
                    member.give(&Order { run, questions });
                }
            }
            let is_busy = self.members.iter().any(|member| member.is_busy);
            match failed {
                Some(message) if !is_busy => bail!("{message}"),
                None if !is_busy && groups.is_empty() => return Ok(()),
                _ => self.check_some_left()?,
            }
            match self.next(&mut say)? {
                News::Result { question, value } => on_result(question, value)?,
                News::Left(questions) if !questions.is_empty() => groups.push_front(questions),
                // The others finish what they have, as questions in flight beside a failed one do.
                News::Failed(message) if failed.is_none() => failed = Some(message),
                _ => {}
            }
        }
    }

    /// Waits for the next event.
    fn next(&mut self, say: &mut dyn FnMut(&str)) -> anyhow::Result<News> {
        let (number, event) = self.events.recv().context("the workers are gone")?;
        let member = &mut self.members[number];
        Ok(match event {
            Event::Said(line) => {
                say(&line);
                News::Nothing
            }
            Event::Reply(Reply::Ready) => {
                member.is_ready = true;
                News::Nothing
            }
            Event::Reply(Reply::Result { question, value }) if member.answered(question) => {
                News::Result { question, value }
            }
            Event::Reply(Reply::Result { .. }) => News::Nothing,
            Event::Reply(Reply::Done) => {
                member.is_busy = false;
                News::Nothing
            }
            Event::Reply(Reply::Failed { message }) => {
                // It ends by itself, and would fail again.
                member.forget();
                match member.is_ready {
                    true => {
                        member.is_gone = true;
                        News::Failed(message)
                    }
                    // Where the model cannot be loaded on one device, the others go on.
                    false => {
                        member.failure = Some(message);
                        News::Nothing
                    }
                }
            }
            Event::Ended => News::Left(self.bury(number, say)?),
        })
    }

    /// Starts a worker that ended again, once; returns the questions that it left.
    fn bury(&mut self, number: usize, say: &mut dyn FnMut(&str)) -> anyhow::Result<Vec<usize>> {
        let member = &mut self.members[number];
        let (left, end) = member.bury()?;
        if member.is_gone {
            return Ok(left);
        }
        let name = member.name(number);
        if !member.is_second && member.failure.is_none() {
            say(&format!("note: {name} {end}; it is started again"));
            member.restart(number, &self.sender).context("a worker cannot be started again")?;
            return Ok(left);
        }
        member.is_gone = true;
        let (short, whole) = match member.failure.take() {
            Some(message) => (format!("{name}: {message}"), message),
            None => {
                let whole = format!(
                    "every worker ended, the last one twice: {name} {end}; answers are kept, and the same command goes on from there"
                );
                (format!("{name} {end}"), whole)
            }
        };
        let others = self.members.iter().filter(|member| !member.is_gone).count();
        if others > 0 {
            say(&format!("note: {short}; its questions go to the other {}", count(others, "worker")));
        }
        self.last_end = whole;
        Ok(left)
    }

    fn check_some_left(&self) -> anyhow::Result<()> {
        if self.members.iter().all(|member| member.is_gone) {
            bail!("{}", self.last_end);
        }
        Ok(())
    }
}
