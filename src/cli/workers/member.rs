//! A worker process, as the process that started it sees it.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::Sender,
    thread,
};

use super::{
    VARIABLE,
    plan::Seat,
    protocol::{Order, Reply},
};

/// Something that a worker did.
pub(super) enum Event {
    Reply(Reply),
    /// A line on stderr.
    Said(String),
    /// The process wrote its last line.
    Ended,
}

/// A worker.
pub(super) struct Member {
    seat: Seat,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Whether the model is loaded.
    pub(super) is_ready: bool,
    /// Whether it has an order that is not done.
    pub(super) is_busy: bool,
    /// The questions of its order that have no result.
    left: VecDeque<usize>,
    /// Why it cannot load the model, if it said so.
    pub(super) failure: Option<String>,
    /// Whether it was started a second time.
    pub(super) is_second: bool,
    /// Whether it ended, and is not started again.
    pub(super) is_gone: bool,
}

impl Member {
    /// Starts a worker, whose events go to `events` under the number `number`.
    pub(super) fn start(seat: Seat, number: usize, events: &Sender<(usize, Event)>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1));
        command.env(VARIABLE, seat.device.map_or_else(|| "-".to_owned(), |device| device.to_string()));
        if let Some(threads) = seat.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let said = events.clone();
        thread::spawn(move || {
            for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(Result::ok) {
                let _ = said.send((number, Event::Said(line)));
            }
        });
        let events = events.clone();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok) {
                // A line that was cut off when the process was killed is no reply.
                let Ok(reply) = serde_json::from_str(&line) else { continue };
                let _ = events.send((number, Event::Reply(reply)));
            }
            let _ = events.send((number, Event::Ended));
        });
        Ok(Self {
            seat,
            child,
            stdin,
            is_ready: false,
            is_busy: false,
            left: VecDeque::new(),
            failure: None,
            is_second: false,
            is_gone: false,
        })
    }

    /// Whether it waits for an order.
    pub(super) fn is_idle(&self) -> bool {
        self.is_ready && !self.is_busy && !self.is_gone
    }

    /// Gives it an order. If it has just ended, the order comes back with [`Event::Ended`].
    pub(super) fn give(&mut self, order: &Order) {
        self.is_busy = true;
        self.left = order.questions.iter().copied().collect();
        let (Some(stdin), Ok(line)) = (&mut self.stdin, serde_json::to_string(order)) else { return };
        let _ = stdin.write_all((line + "\n").as_bytes());
    }

    /// Takes a question off its order; whether it was there.
    pub(super) fn answered(&mut self, question: usize) -> bool {
        let place = self.left.iter().position(|&other| other == question);
        place.is_some_and(|place| self.left.remove(place).is_some())
    }

    /// Forgets its order.
    pub(super) fn forget(&mut self) {
        self.is_busy = false;
        self.left.clear();
    }

    /// The questions that it leaves behind, and how it ended.
    pub(super) fn bury(&mut self) -> io::Result<(Vec<usize>, String)> {
        (self.is_ready, self.is_busy, self.stdin) = (false, false, None);
        let status = self.child.wait()?;
        Ok((std::mem::take(&mut self.left).into(), end_in_words(status)))
    }

    /// Starts it again, in its place.
    pub(super) fn restart(&mut self, number: usize, events: &Sender<(usize, Event)>) -> io::Result<()> {
        *self = Self::start(self.seat.clone(), number, events)?;
        self.is_second = true;
        Ok(())
    }

    /// The name of the worker for people.
    pub(super) fn name(&self, number: usize) -> String {
        let device = self.seat.device.map_or_else(String::new, |device| format!(" (device {device})"));
        format!("worker {}{device}", number + 1)
    }
}

impl Drop for Member {
    /// Nothing in the process is worth waiting for: its results were taken as they came.
    fn drop(&mut self) {
        self.stdin = None;
        if !self.is_gone {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a process ended, in words.
fn end_in_words(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was killed by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("ended with code {code}"),
        None => "ended".to_owned(),
    }
}
