//! Whether other workers live, told from changes of their files that this process saw itself.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::files;
use super::worker::{State, WorkerFile};
use super::{ClaimError, Process, is_name, lock, workers_folder};

/// Whether a worker lives, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It beats, or has not been watched for long enough.
    Alive,
    /// Its file says that it has ended, so.
    Ended(State),
    /// Its process is gone, or its file did not change for too long.
    Dead,
}

/// A worker's file and what watching it told.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The file's content.
    pub file: WorkerFile,
    /// Whether the worker lives.
    pub life: Life,
    /// How long its file has been seen to stay the same.
    pub quiet: Duration,
}

/// Watches workers: keep it and look again and again. A first look tells only of those whose end is
/// certain.
#[derive(Debug)]
pub struct Observer {
    folder: PathBuf,
    expiry: Duration,
    me: Process,
    seen: Mutex<HashMap<String, Seen>>,
}

/// A worker's file as it was at the last look.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Hash of its content; `None` where there was none.
    content: Option<u64>,
    looked: Instant,
    quiet: Duration,
}

impl Seen {
    /// Notes a look; how long the file has stayed the same. A gap between two looks counts for at most
    /// half the expiry: where this process slept, or the server was away, others could not beat either.
    fn look(&mut self, content: Option<u64>, now: Instant, expiry: Duration) -> Duration {
        let gap = now.saturating_duration_since(self.looked).min(expiry / 2);
        let same = content == self.content;
        *self = Self {
            content,
            looked: now,
            quiet: if same { self.quiet + gap } else { Duration::ZERO },
        };
        self.quiet
    }
}

impl Observer {
    /// Watches the workers of the sweep in `state`; `expiry` is how long one may stay silent, where it
    /// does not itself ask for more.
    pub fn new(state: &Path, expiry: Duration) -> Self {
        let (me, seen) = (Process::current(), Mutex::default());
        Self { folder: workers_folder(state), expiry, me, seen }
    }

    /// All workers whose files can be read, by ID.
    ///
    /// # Errors
    /// Where their folder cannot be listed.
    pub fn workers(&self) -> Result<Vec<Watched>, ClaimError> {
        files::refresh(&self.folder);
        let files = files::list(&self.folder)?;
        let ids = files.iter().filter_map(|(name, _)| name.strip_suffix(".json"));
        let watched = ids.filter_map(|id| {
            let (life, quiet, file) = self.look(id);
            Some(Watched { file: file?, life, quiet })
        });
        Ok(watched.collect())
    }

    /// Whether a worker lives.
    pub(super) fn life(&self, id: &str) -> Life {
        files::refresh(&self.folder);
        self.look(id).0
    }

    /// One look at a worker's file. A file that is damaged still tells whether it changes.
    fn look(&self, id: &str) -> (Life, Duration, Option<WorkerFile>) {
        let bytes = match is_name(id) {
            true => fs::read(self.folder.join(format!("{id}.json"))),
            false => Err(ErrorKind::NotFound.into()),
        };
        let content = match &bytes {
            Ok(bytes) => {
                let mut hasher = DefaultHasher::new();
                bytes.hash(&mut hasher);
                Some(hasher.finish())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            // Says nothing of the worker.
            Err(_) => return (Life::Alive, Duration::ZERO, None),
        };
        let file: Option<WorkerFile> = bytes.ok().and_then(|bytes| files::parse(&bytes).ok());
        let asked =
            file.as_ref().map_or(Duration::ZERO, |file| Duration::from_millis(file.expiry_ms));
        let expiry = self.expiry.max(asked);
        let now = Instant::now();
        let first = Seen { content, looked: now, quiet: Duration::ZERO };
        let quiet =
            lock(&self.seen).entry(id.to_owned()).or_insert(first).look(content, now, expiry);
        let life = match &file {
            Some(file) if file.state.is_last() => Life::Ended(file.state),
            Some(file) if self.me.sees_end_of(&file.process) => Life::Dead,
            _ if quiet >= expiry => Life::Dead,
            _ => Life::Alive,
        };
        (life, quiet, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_looks_that_saw_no_change_count_and_a_long_gap_counts_half() {
        let expiry = Duration::from_secs(60);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seen = Seen { content: Some(1), looked: start, quiet: Duration::ZERO };
        let mut look = |content, seconds| seen.look(content, at(seconds), expiry).as_secs();
        assert_eq!(look(Some(1), 20), 20);
        assert_eq!(look(Some(1), 40), 40);
        assert_eq!(look(Some(2), 59), 0);
        // An hour without a look.
        assert_eq!(look(Some(2), 3_659), 30);
        assert_eq!(look(Some(2), 7_259), 60);
        // The file goes, and comes back.
        assert_eq!(look(None, 7_260), 0);
        assert_eq!(look(None, 7_270), 10);
        assert_eq!(look(Some(2), 7_271), 0);
    }
}
