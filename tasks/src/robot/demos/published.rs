//! The published demonstrations of the three MuJoCo suites: a pickle a task, a list of dicts with
//! `images` `[T, side, side, 3]`, `actions` `[T, n]`, `rewards` `[T]` and `env_infos`.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;
use pickle::{Limits, PLAIN_DATA, Pickle, Value, read};
use schema::Fingerprint;

use super::fields::{Fields, numbers};
use super::{DemoError, Demonstration, Form, Frames, Origin};
use crate::robot::Suite;

/// Simulator steps of an episode of the DeepMind Control Suite.
const EPISODE: usize = 1000;
/// A file of at most so many bytes is hashed whole.
const WHOLE: usize = 64 << 20;
/// Of a larger one, so many bytes ...
const SAMPLE: usize = 4 << 10;
/// ... of each stretch of so many.
const STRETCH: usize = 1 << 20;

/// A task's pickle, mapped. Images stay in the file until they are asked for.
struct Published {
    path: PathBuf,
    /// Borrows from `map`, and is dropped before it.
    pickle: Pickle<'static>,
    map: Mmap,
    needs: Needs,
    /// Frames of each demonstration.
    steps: Vec<usize>,
    /// Over all numbers but the images.
    numbers: blake3::Hash,
    fingerprint: OnceLock<Fingerprint>,
}

/// What the demonstrations of a task have to be.
#[derive(Clone, Copy)]
struct Needs {
    side: usize,
    actions: usize,
    proprio: usize,
    /// Where `env_infos` has the proprioception.
    own: Option<&'static str>,
    /// Whether a demonstration is a whole episode of [`EPISODE`] simulator steps.
    episodes: bool,
}

/// The task's pickle, where it is there.
pub(super) fn open(
    suite: &Suite,
    task: &str,
    root: &Path,
) -> Result<Option<Box<dyn Form>>, DemoError> {
    let Some((file, (proprio, actions))) = suite.file(task).zip(suite.widths(task)) else {
        return Ok(None);
    };
    let file = format!("{file}.pickle");
    for path in [root.join(&file), root.join(suite.folder).join(&file)] {
        let opened = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened,
        };
        let own = match suite.name {
            "metaworld" => Some("gripper_proprio"),
            "adroit" => Some("proprio"),
            _ => None,
        };
        let episodes = suite.name == "dmc";
        let needs = Needs { side: suite.side, actions, proprio, own, episodes };
        return Ok(Some(Box::new(Published::open(opened, path, needs)?)));
    }
    Ok(None)
}

impl Published {
    fn open(file: std::io::Result<File>, path: PathBuf, needs: Needs) -> Result<Self, DemoError> {
        // SAFETY: the map is read-only and private to this process; data are not edited in place while
        // a run reads them (a truncation by another process would end this one with SIGBUS).
        let map = file.and_then(|file| unsafe { Mmap::map(&file) });
        let map = map.map_err(|source| DemoError::Io { path: path.clone(), source })?;
        // SAFETY: the bytes stay where they are, and as they are, until the map is dropped. It moves into
        // the same value as the pickle, behind it, and nothing is handed out that outlives either.
        let bytes: &'static [u8] = unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) };
        let (pickle, length) = read(bytes, &[PLAIN_DATA], &Limits::default())
            .map_err(|source| DemoError::Pickle { path: path.clone(), source })?;
        let whole = |why: String| {
            let (path, place) = (path.clone(), "the whole".to_owned());
            DemoError::Content { path, place, why }
        };
        if length != map.len() {
            return Err(whole(format!("{} bytes follow the pickle", map.len() - length)));
        }
        let count = match pickle.list(pickle.root()) {
            Some([]) => return Err(whole("no demonstrations".to_owned())),
            Some(all) => all.len(),
            None => {
                let found = pickle.kind(pickle.root());
                return Err(whole(format!("{found}; expected a list of dicts")));
            }
        };
        let (numbers, fingerprint) = (blake3::hash(&[]), OnceLock::new());
        let steps = Vec::new();
        let mut all = Self { path, pickle, map, needs, steps, numbers, fingerprint };
        all.check(count)?;
        Ok(all)
    }

    /// Reads every number, and what is said of the images.
    fn check(&mut self, count: usize) -> Result<(), DemoError> {
        let mut hasher = blake3::Hasher::new();
        for at in 0..count {
            let steps = self.of(at)?.images("images", self.needs.side)?.shape[0];
            self.steps.push(steps);
            let (first, divides) = (self.steps[0], EPISODE.is_multiple_of(steps));
            if self.needs.episodes && !(steps == first && divides) {
                let why = format!(
                    "{steps} frames of demonstration {at}; expected a divisor of {EPISODE}, the same for all \
                     ({first} of the first)"
                );
                let place = "the whole".to_owned();
                return Err(DemoError::Content { path: self.path.clone(), place, why });
            }
            let Demonstration { actions, rewards, proprio, .. } = self.load(at)?;
            hasher.update(&(steps as u64).to_le_bytes());
            for number in actions.iter().chain(&proprio) {
                hasher.update(&number.to_le_bytes());
            }
            for reward in rewards {
                hasher.update(&reward.to_le_bytes());
            }
        }
        self.numbers = hasher.finalize();
        Ok(())
    }

    fn of(&self, at: usize) -> Result<Fields<'_, '_>, DemoError> {
        let all = self.pickle.list(self.pickle.root()).unwrap_or_default();
        let (path, place) = (&*self.path, format!("demonstration {at}"));
        let dict = *all.get(at).ok_or_else(|| DemoError::Content {
            path: self.path.clone(),
            place: place.clone(),
            why: format!("there are {}", all.len()),
        })?;
        Ok(Fields { pickle: &self.pickle, dict, path, place })
    }

    /// The simulator's state at the first frame: a control suite's, or the arrays by which Adroit's
    /// environments are reset.
    fn start(&self, fields: &Fields<'_, '_>) -> serde_json::Value {
        let get = |dict, key: &str| fields.pickle.get(dict, key);
        let infos = get(fields.dict, "env_infos").unwrap_or(Value::None);
        if self.needs.episodes {
            let state = get(infos, "internal_state").and_then(|all| {
                let (mut state, rows) = flat(fields.pickle, all)?;
                state.truncate(state.len() / rows.max(1));
                Some(serde_json::json!({ "state": state }))
            });
            return state.unwrap_or_default();
        }
        let set = get(fields.dict, "init_state_dict").or_else(|| get(infos, "init_state_dict"));
        let pairs = set.and_then(|set| fields.pickle.pairs(set)).unwrap_or_default();
        let mut named = serde_json::Map::new();
        for (key, value) in pairs {
            if let (Value::Str(key), Some((numbers, _))) = (key, flat(fields.pickle, *value)) {
                named.insert((*key).to_owned(), numbers.into());
            }
        }
        if named.is_empty() { serde_json::Value::Null } else { named.into() }
    }
}

/// An array's numbers, and how many rows they are.
fn flat<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<(Vec<f64>, usize)> {
    let array = pickle::Array::read(pickle, value).ok()?;
    Some((numbers(&array)?, array.shape.first().copied().unwrap_or(1)))
}

impl Form for Published {
    fn origin(&self) -> Origin {
        Origin::Published
    }

    fn len(&self) -> usize {
        self.steps.len()
    }

    fn frames(&self, at: usize) -> usize {
        self.steps[at]
    }

    fn load(&self, at: usize) -> Result<Demonstration, DemoError> {
        let (fields, steps) = (self.of(at)?, self.steps[at]);
        let proprio = match self.needs.own {
            Some(key) => fields.within("env_infos")?.matrix(key, steps, self.needs.proprio)?,
            None => ndarray::Array2::zeros((steps, 0)),
        };
        Ok(Demonstration {
            actions: fields.matrix("actions", steps, self.needs.actions)?,
            rewards: fields.column("rewards", steps)?,
            proprio,
            state: None,
            start: self.start(&fields),
            seed: None,
        })
    }

    fn images(&self, at: usize) -> Result<Frames, DemoError> {
        self.of(at)?.frames("images", self.needs.side)
    }

    /// Over the size, every number, and the images as far as [`sampled`] looks at them.
    fn fingerprint(&self) -> Fingerprint {
        let make = || {
            let mut hasher = sampled(&self.map);
            hasher.update(self.numbers.as_bytes());
            hasher.finalize().into()
        };
        self.fingerprint.get_or_init(make).clone()
    }

    fn repeat(&self) -> Option<usize> {
        self.needs.episodes.then(|| EPISODE / self.steps[0])
    }
}

/// Over all bytes of a small file; over the length and an even sample of a large one: 4 KiB of every
/// MiB, so some of every few frames, and the end.
fn sampled(bytes: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    if bytes.len() <= WHOLE {
        hasher.update_rayon(bytes);
        return hasher;
    }
    for stretch in bytes.chunks(STRETCH) {
        hasher.update(&stretch[..SAMPLE.min(stretch.len())]);
    }
    hasher.update(&bytes[bytes.len() - SAMPLE..]);
    hasher
}
