//! Taking keys, keeping them and giving them back.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::log::What;
use super::observer::{Life, Observer};
use super::worker::{Held, Inner, State, Worker};
use super::{ClaimError, FORMAT, claims_folder, files, is_name, lock, wall};

/// How many holders in a row may die without progress in one launch, before the launch gives up.
pub const GIVE_UP: usize = 2;

/// How often a taking is tried while others are quicker.
const TRIES: usize = 3;
const EXPECTED: &str = "a claim";

/// How a claim was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Released {
    /// The cell is done.
    Done,
    /// The work can be gone on with.
    Interrupted,
    /// The cell cannot be done, for this reason.
    Failed(String),
    /// The work panicked.
    Crashed,
}

/// Something that went wrong with a key and was not followed by progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    /// In which launch.
    pub launch: String,
    /// At which worker.
    pub worker: String,
    /// Why the cell failed; `None` where the worker died.
    pub failed: Option<String>,
}

/// Content of `claims/KEY.gNNNN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub format: u32,
    /// The key.
    pub key: String,
    /// How often it has been taken, with this time.
    pub generation: u64,
    /// Who took it.
    pub worker: String,
    /// On which machine.
    pub host: String,
    /// In which launch.
    pub launch: String,
    /// As a part of which unit.
    pub unit: String,
    /// How far the work was then, in steps of the caller's.
    pub at: u64,
    /// Time of day (RFC 3339), for people.
    pub taken: String,
    /// How it was given back; `None` while it is held, and for ever where the holder died.
    pub released: Option<Released>,
    /// What went wrong before, oldest first.
    pub setbacks: Vec<Setback>,
}

/// What came of trying to take a key.
#[derive(Debug)]
pub enum Taken {
    /// It is this worker's now. The cell may have been done by its last holder: look again.
    Mine(Claim),
    /// A worker that lives holds it.
    HeldBy {
        /// Its name.
        worker: String,
        /// Its machine.
        host: String,
        /// Time of day when it took it (RFC 3339), by its machine's clock.
        since: String,
    },
    /// [`GIVE_UP`] holders in a row died in this launch, and none got further than the one before.
    GaveUp {
        /// How many died.
        crashes: usize,
        /// The last of them.
        worker: String,
    },
    /// The cell failed in this launch.
    Failed {
        /// Why.
        why: String,
        /// The worker that says so.
        worker: String,
    },
    /// Others were quicker each time; nothing is known of them yet.
    Contested,
}

/// The keys of a sweep.
#[derive(Debug)]
pub struct Claims {
    state: PathBuf,
    folder: PathBuf,
    observer: Observer,
    /// Newest generations known. There may be newer ones, never older ones.
    newest: Mutex<HashMap<String, u64>>,
}

impl Claims {
    /// The keys of the sweep in `state`, with what others took so far. `expiry` is how long a holder may
    /// stay silent, where it does not itself ask for more. Keep it: it watches the holders.
    ///
    /// # Errors
    /// Where the folder cannot be listed.
    pub fn open(state: &Path, expiry: Duration) -> Result<Self, ClaimError> {
        let (state, folder) = (state.to_path_buf(), claims_folder(state));
        let newest = Mutex::new(generations(&folder)?);
        Ok(Self { observer: Observer::new(&state, expiry), state, folder, newest })
    }

    /// Tries to take `key`, without waiting. `unit` says in the log what it is a part of; `at` is how
    /// far the work on it is, such as the step of its newest checkpoint, by which progress is told.
    ///
    /// # Errors
    /// If the key is no name, files cannot be read or written, or the worker is
    /// [lost](Worker::lost).
    pub fn try_claim(
        &self,
        worker: &Worker,
        key: &str,
        unit: &str,
        at: u64,
    ) -> Result<Taken, ClaimError> {
        let me = worker.inner();
        if me.state != self.state {
            let (claims, worker) = (self.state.clone(), me.state.clone());
            return Err(ClaimError::OtherFolder { claims, worker });
        }
        if let Some(why) = worker.lost() {
            return Err(ClaimError::NotBeating(why));
        }
        for _ in 0..TRIES {
            let newest = self.newest(key)?;
            let standing = newest.as_ref().map_or(Standing::Free, |last| self.standing(last, me));
            if let (Some(Record { worker, host, taken, .. }), Standing::Held) = (&newest, standing)
            {
                let (worker, host, since) = (worker.clone(), host.clone(), taken.clone());
                return Ok(Taken::HeldBy { worker, host, since });
            }
            let setbacks =
                newest.as_ref().map_or_else(Vec::new, |last| setbacks(last, standing, at));
            if let Some(hopeless) = hopeless(&setbacks, &me.launch) {
                return Ok(hopeless);
            }
            let record = Record {
                format: FORMAT,
                key: key.to_owned(),
                generation: newest.as_ref().map_or(0, |last| last.generation) + 1,
                worker: me.id.clone(),
                host: me.process.host.clone(),
                launch: me.launch.clone(),
                unit: unit.to_owned(),
                at,
                taken: wall(),
                released: None,
                setbacks,
            };
            let path = self.path(key, record.generation);
            let next = self.path(key, record.generation + 1);
            let held = Arc::new(Held { record, path, next, lost: Mutex::default() });
            if self.create(me, &held)? {
                let from = newest.filter(|last| last.released.is_none()).map(|last| last.worker);
                return won(me, held, from).map(Taken::Mine);
            }
        }
        Ok(Taken::Contested)
    }

    /// Who took a key last, and how it was given back.
    ///
    /// # Errors
    /// If the key is no name, or a file cannot be read.
    pub fn newest(&self, key: &str) -> Result<Option<Record>, ClaimError> {
        if !is_name(key) {
            return Err(ClaimError::Key(key.to_owned()));
        }
        files::refresh(&self.folder);
        let mut generation = lock(&self.newest).get(key).copied().unwrap_or(0);
        loop {
            let next = self.path(key, generation + 1);
            if !fs::exists(&next).map_err(ClaimError::io("look at", &next))? {
                break;
            }
            generation += 1;
        }
        let path = self.path(key, generation);
        let record = if generation == 0 { None } else { files::read::<Record>(&path, EXPECTED)? };
        // Where somebody emptied the folder it begins anew.
        let known = record.as_ref().map_or(0, |record| record.generation);
        if record.as_ref().is_some_and(|record| record.key != key || known != generation) {
            let why = "it was written for another key or generation".to_owned();
            return Err(ClaimError::Unreadable { path, expected: EXPECTED, why });
        }
        lock(&self.newest).insert(key.to_owned(), known);
        Ok(record)
    }

    /// Who took each key last, by key.
    ///
    /// # Errors
    /// Where the folder or a file cannot be read.
    pub fn all(&self) -> Result<Vec<Record>, ClaimError> {
        let mut keys: Vec<String> = generations(&self.folder)?.into_keys().collect();
        keys.sort();
        keys.iter().filter_map(|key| self.newest(key).transpose()).collect()
    }

    fn path(&self, key: &str, generation: u64) -> PathBuf {
        self.folder.join(format!("{key}.g{generation:04}"))
    }

    fn standing(&self, last: &Record, me: &Inner) -> Standing {
        match &last.released {
            Some(Released::Crashed) => Standing::Died,
            Some(_) => Standing::Free,
            None if last.worker == me.id => Standing::Held,
            None => match self.observer.life(&last.worker) {
                Life::Alive => Standing::Held,
                // It had no time to give it back.
                Life::Ended(State::Interrupted) => Standing::Free,
                Life::Ended(_) | Life::Dead => Standing::Died,
            },
        }
    }

    /// Whether this process is the one that creates a claim's file.
    fn create(&self, me: &Inner, held: &Arc<Held>) -> Result<bool, ClaimError> {
        let path = &held.path;
        let bytes = files::encode(&held.record).map_err(ClaimError::io("encode", path))?;
        // Known to the beats before it is there: a silence from now on makes it lost.
        me.hold(held);
        let created = files::create(path, &bytes);
        if !matches!(created, Ok(true)) {
            me.forget(held);
        }
        created.map_err(ClaimError::io("create", path))
    }
}

fn won(me: &Arc<Inner>, held: Arc<Held>, from: Option<String>) -> Result<Claim, ClaimError> {
    let what = from.map_or(What::Taken, |from| What::TakenOver { from });
    let noted = me.note(&held.record, what);
    let claim = Claim { inner: Arc::clone(me), held, told: AtomicBool::new(false), over: false };
    // A taking that is in no log must not be: the claim goes back as it is dropped.
    noted.map_err(ClaimError::io("write to the log of", &claim.held.path))?;
    Ok(claim)
}

/// How a key's newest taking stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Free,
    Held,
    Died,
}

/// What went wrong with a key that nobody holds, with its last holder, and was not followed by progress.
fn setbacks(last: &Record, standing: Standing, at: u64) -> Vec<Setback> {
    if last.released == Some(Released::Done) {
        return Vec::new();
    }
    let progress = at > last.at;
    let mut all = last.setbacks.clone();
    all.retain(|setback| setback.failed.is_some() || !progress);
    let failed = match &last.released {
        Some(Released::Failed(why)) => Some(why.clone()),
        _ => None,
    };
    if failed.is_some() || (standing == Standing::Died && !progress) {
        let (launch, worker) = (last.launch.clone(), last.worker.clone());
        all.push(Setback { launch, worker, failed });
    }
    all
}

/// Why a launch does not try again.
fn hopeless(setbacks: &[Setback], launch: &str) -> Option<Taken> {
    let own = || setbacks.iter().rev().filter(|setback| setback.launch == launch);
    let failed = |setback: &Setback| {
        let (why, worker) = (setback.failed.clone()?, setback.worker.clone());
        Some(Taken::Failed { why, worker })
    };
    own().find_map(failed).or_else(|| {
        let crashes = own().count();
        let worker = own().next()?.worker.clone();
        (crashes >= GIVE_UP).then_some(Taken::GaveUp { crashes, worker })
    })
}

/// The newest generation of each key in a folder.
fn generations(folder: &Path) -> Result<HashMap<String, u64>, ClaimError> {
    files::refresh(folder);
    let mut newest = HashMap::new();
    for (name, _) in files::list(folder)? {
        let parts = name.rsplit_once(".g").filter(|(key, _)| is_name(key));
        if let Some((key, generation)) = parts
            && let Ok(generation) = generation.parse::<u64>()
        {
            let known = newest.entry(key.to_owned()).or_insert(generation);
            *known = generation.max(*known);
        }
    }
    Ok(newest)
}

/// A key that this worker holds. Dropping it gives it back as interrupted, or as crashed in a panic.
pub struct Claim {
    inner: Arc<Inner>,
    held: Arc<Held>,
    /// Whether the log says that it is lost.
    told: AtomicBool,
    /// Whether it was given back.
    over: bool,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Claim").field(&self.held.record).finish()
    }
}

impl Claim {
    /// The key.
    pub fn key(&self) -> &str {
        &self.held.record.key
    }

    /// What the claim's file says.
    pub fn record(&self) -> &Record {
        &self.held.record
    }

    /// Whether work on the key may go on. Once it may not, it never may again under this claim; the key
    /// can be tried anew. Looks at the folder: between steps of a second or more it costs nothing.
    pub fn still_mine(&self) -> bool {
        self.inner.check(&self.held);
        self.lost().inspect(|why| self.tell(why)).is_none()
    }

    /// Why work on it may not go on, as far as it was noticed: without a look at the folder.
    pub fn lost(&self) -> Option<String> {
        lock(&self.held.lost).clone()
    }

    /// Gives the key back. What the file says of it is then free for all to see; where that cannot be
    /// written, the worker tries again at each beat.
    ///
    /// # Errors
    /// Where the log or the file cannot be written.
    pub fn give_back(mut self, how: Released) -> Result<(), ClaimError> {
        self.end(how)
    }

    /// Logged once the work knows, which then ends.
    fn tell(&self, why: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let _ = self.inner.note(&self.held.record, What::Lost(why.to_owned()));
        }
    }

    fn end(&mut self, how: Released) -> Result<(), ClaimError> {
        self.over = true;
        if let Some(why) = self.lost() {
            self.tell(&why);
        }
        let noted = self.inner.note(&self.held.record, What::GivenBack(how.clone()));
        let record = Record { released: Some(how), ..self.held.record.clone() };
        self.inner.release(&self.held, record)?;
        noted.map_err(ClaimError::io("write to the log of", &self.held.path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.over {
            let panics = std::thread::panicking();
            let _ = self.end(if panics { Released::Crashed } else { Released::Interrupted });
        }
    }
}
