//! A process that takes cells: its file, which it rewrites again and again, and the claims it holds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use results::write_whole;
use serde::{Deserialize, Serialize};

use super::claim::Record;
use super::log::{Event, Log, What};
use super::process::{clock, since_boot};
use super::{
    ClaimError, FORMAT, Process, Timing, claims_folder, files, lock, log_folder, wall,
    workers_folder,
};
use crate::interrupt;

/// What a worker is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At work on claimed cells.
    Working,
    /// Looking for cells, or waiting for others to end.
    Idle,
    /// Ended, with nothing left to do or after an error.
    Stopped,
    /// Ended because it was asked to.
    Interrupted,
}

impl State {
    /// Whether nothing comes after it.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Stopped | Self::Interrupted)
    }
}

/// What a worker works on, for an overview.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What it is called, for people.
    pub label: String,
    /// The unit.
    pub unit: String,
    /// Keys of the cells.
    pub cells: Vec<String>,
    /// Steps that are done.
    pub done: u64,
    /// Steps there are; 0 where that is not known.
    pub total: u64,
    /// Time of day when it began (RFC 3339).
    pub since: Option<String>,
    /// Anything else to say.
    pub note: String,
}

/// Content of `workers/ID.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFile {
    /// Version of this format.
    pub format: u32,
    /// The worker's name, unlike any other.
    pub id: String,
    /// The launch that it belongs to.
    pub launch: String,
    /// The device that it works on.
    pub device: String,
    /// Version of the program.
    pub version: String,
    /// The process.
    pub process: Process,
    /// Milliseconds between two beats.
    pub beat_ms: u64,
    /// Milliseconds of silence after which it may be taken for dead.
    pub expiry_ms: u64,
    /// How often this file was written; its change is what tells others that the worker lives.
    pub beats: u64,
    /// Time of day when it started (RFC 3339), for people.
    pub started: String,
    /// Time of day of the last beat (RFC 3339), for people.
    pub beaten: String,
    /// What it is at.
    pub state: State,
    /// What it works on.
    pub status: Status,
}

/// This process's entry among the workers of a sweep. A thread of its own keeps it alive until it is
/// dropped.
pub struct Worker {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Enters this process, which belongs to the launch `launch` and works on `device`, among the
    /// workers of the sweep in `state`.
    ///
    /// # Errors
    /// Where the folders or the first beat cannot be written.
    pub fn register(state: &Path, launch: &str, device: &str) -> Result<Self, ClaimError> {
        Self::register_with(state, launch, device, Timing::default())
    }

    /// As [`register`](Self::register), with other times. They should be the same for all workers of a
    /// sweep; where not, others wait for this one's expiry if it is longer than theirs.
    ///
    /// # Errors
    /// As [`register`](Self::register), and where the times do not fit together.
    pub fn register_with(
        state: &Path,
        launch: &str,
        device: &str,
        timing: Timing,
    ) -> Result<Self, ClaimError> {
        let Timing { beat, expiry } = timing;
        if beat.is_zero() || expiry < 6 * beat {
            return Err(ClaimError::Timing { beat, expiry });
        }
        for folder in [workers_folder(state), log_folder(state)] {
            fs::create_dir_all(&folder).map_err(ClaimError::io("create", &folder))?;
        }
        let process = Process::current();
        let id = process.name();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let path = workers_folder(state).join(format!("{id}.json"));
        let inner = Arc::new(Inner {
            log: Mutex::new(Log::open(&log_folder(state).join(format!("{id}.jsonl")))?),
            state: state.to_path_buf(),
            path: path.clone(),
            id: id.clone(),
            launch: launch.to_owned(),
            process: process.clone(),
            timing,
            file: Mutex::new(WorkerFile {
                format: FORMAT,
                id,
                launch: launch.to_owned(),
                device: device.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                process,
                beat_ms: millis(beat),
                expiry_ms: millis(expiry),
                beats: 0,
                started: wall(),
                beaten: String::new(),
                state: State::Idle,
                status: Status::default(),
            }),
            last: Mutex::default(),
            beaten: Mutex::new(Beaten { at: clock(), fault: None }),
            held: Mutex::default(),
            unreleased: Mutex::default(),
            ended: Mutex::new(false),
            wake: Condvar::new(),
        });
        inner.beat().map_err(ClaimError::io("write", &path))?;
        let own = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("beats".to_owned()).spawn(move || own.run());
        Ok(Self { inner, thread: Some(thread.map_err(ClaimError::Thread)?) })
    }

    /// The worker's name, unlike any other.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The launch that it belongs to.
    pub fn launch(&self) -> &str {
        &self.inner.launch
    }

    /// What others see of it from the next beat on.
    pub fn set_status(&self, status: Status) {
        lock(&self.inner.file).status = status;
    }

    /// What others see of it from the next beat on; a last state is written when this is dropped.
    pub fn set_state(&self, state: State) {
        match state.is_last() {
            true => *lock(&self.inner.last) = Some(state),
            false => lock(&self.inner.file).state = state,
        }
    }

    /// Why others may take this worker for dead soon, in words: no beat was written for a third of the
    /// expiry. Work on claimed cells must stop; it can go on, with claims taken anew, once beats are
    /// written again.
    pub fn lost(&self) -> Option<String> {
        self.inner.lost()
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Drop for Worker {
    /// Ends the beats and says so in the file. Claims that are still held are free for others at once.
    fn drop(&mut self) {
        *lock(&self.inner.ended) = true;
        self.inner.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.inner.look_after_claims();
        let asked = if interrupt::requested() { State::Interrupted } else { State::Stopped };
        lock(&self.inner.file).state = lock(&self.inner.last).unwrap_or(asked);
        let _ = self.inner.beat();
    }
}

/// What the worker, its thread and its claims share.
pub(super) struct Inner {
    pub(super) state: PathBuf,
    path: PathBuf,
    pub(super) id: String,
    pub(super) launch: String,
    pub(super) process: Process,
    timing: Timing,
    /// What the next beat writes.
    file: Mutex<WorkerFile>,
    /// What the last one writes, where it was said.
    last: Mutex<Option<State>>,
    beaten: Mutex<Beaten>,
    /// Claims that this process holds.
    held: Mutex<Vec<Arc<Held>>>,
    /// Claims that could not be given back yet, and how they shall read.
    unreleased: Mutex<Vec<(PathBuf, Record)>>,
    log: Mutex<Log>,
    ended: Mutex<bool>,
    wake: Condvar,
}

struct Beaten {
    /// When the last beat that was written began.
    at: Duration,
    /// Why none was since.
    fault: Option<String>,
}

/// A claim as this process took it.
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) path: PathBuf,
    /// The file that somebody who takes it over creates.
    pub(super) next: PathBuf,
    /// Why it is lost.
    pub(super) lost: Mutex<Option<String>>,
}

impl Inner {
    fn run(&self) {
        loop {
            let ended = lock(&self.ended);
            let waited = self.wake.wait_timeout_while(ended, self.timing.beat, |ended| !*ended);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            // A beat that fails is told by `lost`.
            let _ = self.beat();
            self.look_after_claims();
        }
    }

    fn beat(&self) -> io::Result<()> {
        let at = clock();
        // Others may have decided in the silence before it: this beat must not hide that.
        if let Some(why) = self.silent(at) {
            let held = lock(&self.held).clone();
            held.iter().for_each(|held| {
                lock(&held.lost).get_or_insert_with(|| why.clone());
            });
        }
        let bytes = {
            let mut file = lock(&self.file);
            file.beats += 1;
            file.beaten = wall();
            files::encode(&*file)
        };
        let written = bytes.and_then(|bytes| write_whole(&self.path, &bytes));
        let mut beaten = lock(&self.beaten);
        match &written {
            Ok(()) => *beaten = Beaten { at, fault: None },
            Err(error) => beaten.fault = Some(error.to_string()),
        }
        written
    }

    /// See [`Worker::lost`].
    pub(super) fn lost(&self) -> Option<String> {
        self.silent(clock())
    }

    /// Why it was silent for too long at a time of [`clock`].
    fn silent(&self, now: Duration) -> Option<String> {
        let beaten = lock(&self.beaten);
        let silent = now.saturating_sub(beaten.at);
        let why =
            beaten.fault.as_deref().unwrap_or("the process was stopped, or the system is slow");
        (silent > self.timing.expiry / 3).then(|| {
            format!(
                "no beat was written to {} for {:.1} s: {why}",
                self.path.display(),
                silent.as_secs_f64()
            )
        })
    }

    fn look_after_claims(&self) {
        let held = lock(&self.held).clone();
        held.iter().for_each(|held| self.check(held));
        let mut unreleased = lock(&self.unreleased);
        unreleased.retain(|(path, record)| self.write(path, record).is_err());
    }

    /// Marks a claim as lost if it is.
    pub(super) fn check(&self, held: &Held) {
        let mut lost = lock(&held.lost);
        if lost.is_some() {
            return;
        }
        if *lock(&self.ended) {
            *lost = Some("the worker has ended".to_owned());
            return;
        }
        *lost = self.lost().or_else(|| {
            files::refresh(&claims_folder(&self.state));
            // A folder that cannot be looked at says nothing; beats tell whether that lasts.
            let over = fs::exists(&held.next).unwrap_or(false);
            over.then(|| format!("another took it: {}", held.next.display()))
        });
    }

    /// Writes a line to the log.
    pub(super) fn note(&self, record: &Record, what: What) -> io::Result<()> {
        let since_boot = since_boot().and_then(|time| u64::try_from(time.as_nanos()).ok());
        let event = Event {
            what,
            key: record.key.clone(),
            generation: record.generation,
            unit: record.unit.clone(),
            worker: self.id.clone(),
            launch: self.launch.clone(),
            wall: wall(),
            boot: self.process.boot.clone(),
            since_boot,
        };
        lock(&self.log).append(&event)
    }

    fn write(&self, path: &Path, record: &Record) -> io::Result<()> {
        files::encode(record).and_then(|bytes| write_whole(path, &bytes))
    }

    pub(super) fn hold(&self, held: &Arc<Held>) {
        lock(&self.held).push(Arc::clone(held));
    }

    pub(super) fn forget(&self, held: &Arc<Held>) {
        lock(&self.held).retain(|other| !Arc::ptr_eq(other, held));
    }

    /// Gives a claim back; where that cannot be written it is tried again at each beat.
    pub(super) fn release(&self, held: &Arc<Held>, record: Record) -> Result<(), ClaimError> {
        self.forget(held);
        let written = self.write(&held.path, &record);
        if written.is_err() {
            lock(&self.unreleased).push((held.path.clone(), record));
        }
        written.map_err(ClaimError::io("write", &held.path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Claims, Taken};
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_beat_after_a_long_silence_does_not_hide_it_from_claims() {
        let state = tempfile::tempdir().unwrap();
        let (beat, expiry) = (Duration::from_secs(600), Duration::from_secs(3_600));
        let timing = Timing { beat, expiry };
        let worker = Worker::register_with(state.path(), "l", "cpu", timing).unwrap();
        let claims = Claims::open(state.path(), expiry).unwrap();
        let Taken::Mine(claim) = claims.try_claim(&worker, "k", "u", 0).unwrap() else {
            panic!("not free")
        };
        let inner = worker.inner();
        let silence = |at: Duration| *lock(&inner.beaten) = Beaten { at, fault: None };
        inner.beat().unwrap();
        assert!(claim.still_mine());
        // The thread that works does not run before the next beat.
        let Some(long_ago) = clock().checked_sub(Duration::from_secs(1_201)) else {
            println!("this machine has just been started");
            return;
        };
        silence(long_ago);
        assert!(worker.lost().is_some());
        inner.beat().unwrap();
        assert!(worker.lost().is_none() && claim.lost().is_some() && !claim.still_mine());
    }
}
