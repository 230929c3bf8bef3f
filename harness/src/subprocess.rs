//! A program that is asked through a pipe: its answers come from a thread of their own, so that one that
//! hangs can be ended, and its last words are kept for an error.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::interrupt;

/// Lines of stderr kept for an error.
const KEPT: usize = 15;
/// Longest line of stderr.
const LINE: u64 = 1 << 20;
const POLL: Duration = Duration::from_millis(50);

/// A running program whose answers are `T`s. It is killed when this is dropped.
pub struct Subprocess<T> {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<T>,
    said: Arc<Mutex<VecDeque<String>>>,
}

/// Why there is no answer. The program has ended.
#[derive(Debug)]
pub enum Silence {
    /// It ended by itself, with this status.
    Died(String),
    /// It took too long.
    Hung,
    /// Ctrl-C, and it was not done soon after.
    Interrupted,
}

impl<T: Send + 'static> Subprocess<T> {
    /// Starts a program; `read` reads its next answer, or says that there are no more.
    ///
    /// # Errors
    /// The system's, where it does not start.
    pub fn start(
        command: &mut Command,
        mut read: impl FnMut(&mut BufReader<ChildStdout>) -> Option<T> + Send + 'static,
    ) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || keep_last(stderr, &said));
        }
        let (sender, answers) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut stdout = BufReader::with_capacity(1 << 18, stdout);
                while let Some(answer) = read(&mut stdout) {
                    if sender.send(answer).is_err() {
                        return;
                    }
                }
            });
        }
        let requests = child.stdin.take();
        Ok(Self { child, requests, answers, said })
    }

    /// Writes a request.
    ///
    /// # Errors
    /// [`Silence::Died`].
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), Silence> {
        let sent = self.requests.as_mut().map(|pipe| {
            parts.iter().try_for_each(|part| pipe.write_all(part)).and_then(|()| pipe.flush())
        });
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.died()),
        }
    }

    /// Waits for the next answer: so long, and after Ctrl-C so long as `grace`.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn receive(&mut self, patience: Duration, grace: Duration) -> Result<T, Silence> {
        let began = Instant::now();
        let mut stopping: Option<Instant> = None;
        loop {
            match self.answers.recv_timeout(POLL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(self.died()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupt::requested() {
                let since = stopping.get_or_insert_with(Instant::now);
                if since.elapsed() > grace {
                    self.end();
                    return Err(Silence::Interrupted);
                }
            }
            if began.elapsed() > patience {
                self.end();
                return Err(Silence::Hung);
            }
        }
    }

    fn died(&mut self) -> Silence {
        // Its pipes close a moment before it can be waited for.
        let status = self.wait(Duration::from_secs(2));
        self.end();
        // The pipe closes before everything said is read.
        std::thread::sleep(Duration::from_millis(20));
        Silence::Died(status.unwrap_or_else(|| "its pipe closed".to_owned()))
    }
}

impl<T> Subprocess<T> {
    /// Its last lines on stderr.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Tells it that nothing more is asked.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// Waits for its end, for a while; its status.
    pub fn wait(&mut self, longest: Duration) -> Option<String> {
        let began = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status.to_string()),
                Ok(None) if began.elapsed() < longest => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return None,
            }
        }
    }

    /// Kills it and waits for it.
    pub fn end(&mut self) {
        self.close();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<T> Drop for Subprocess<T> {
    fn drop(&mut self) {
        self.end();
    }
}

fn keep_last(stderr: impl Read, said: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut reader).take(LINE).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back(text);
        line.clear();
    }
}
