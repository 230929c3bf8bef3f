//! The published demonstrations of TriFinger: a folder with a `downsample.pth` a demonstration, and where
//! it is there a list that says which are trained on.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use ndarray::Array2;
use rayon::prelude::*;
use schema::{Fingerprint, fingerprint};
use serde::Deserialize;

use super::fields::Fields;
use super::{DemoError, Demonstration, Form, Frames, Origin};
use crate::robot::Suite;

const FILE: &str = "downsample.pth";
/// Folders within folders that are looked into.
const DEEPEST: usize = 4;
/// The camera whose images are used.
const IMAGES: &str = "image_60";
/// Centimetres, which the files have, of a metre, which the simulator has.
const CENTIMETRES: f64 = 100.0;
/// Fingertip coordinates.
const TIPS: usize = 9;

struct TriFinger {
    side: usize,
    /// Demonstrations to train on; those behind them are for testing.
    train: usize,
    demos: Vec<Read>,
}

/// Demonstrations to train on where there is no list.
const TRAIN: usize = 100;

/// One file without its images.
struct Read {
    path: PathBuf,
    hash: blake3::Hash,
    demonstration: Demonstration,
}

/// Which demonstrations are trained on, and from which ones policies are evaluated.
#[derive(Deserialize)]
struct List {
    train_demo_stats: Vec<Stat>,
    test_demo_stats: Vec<Stat>,
}

#[derive(Deserialize)]
struct Stat {
    /// A folder, relative to the demonstrations'.
    path: String,
}

/// The task's folders, where they are there: those on its list, to be trained on and then to be
/// evaluated from, or all in the order of their names.
pub(super) fn open(
    suite: &Suite,
    task: &str,
    root: &Path,
) -> Result<Option<Box<dyn Form>>, DemoError> {
    let Some((_, actions)) = suite.widths(task) else { return Ok(None) };
    let short = task.strip_suffix("_cube").unwrap_or(task);
    for base in [root.to_path_buf(), root.join(suite.folder)] {
        for folder in [base.join(task), base.join(short)] {
            let mut paths = Vec::new();
            find(&folder, DEEPEST, &mut paths)?;
            if paths.is_empty() {
                continue;
            }
            let mut train = TRAIN;
            if let Some(listed) = listed(&base, &folder)? {
                (paths, train) = (listed.files, listed.train);
            }
            let read = |path: PathBuf| Read::new(path, suite.side, actions);
            let demos = paths.into_par_iter().map(read).collect::<Result<_, _>>()?;
            return Ok(Some(Box::new(TriFinger { side: suite.side, train, demos })));
        }
    }
    Ok(None)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DemoError {
    let path = path.to_path_buf();
    move |source| DemoError::Io { path, source }
}

fn content(path: &Path, place: impl Into<String>, why: impl std::fmt::Display) -> DemoError {
    DemoError::Content { path: path.to_path_buf(), place: place.into(), why: why.to_string() }
}

/// The names in a folder in their order, but for hidden ones; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<PathBuf>, DemoError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(io(folder))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(io(folder))?;
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes()[0] == b'.');
    paths.retain(|path| !hidden(path));
    paths.sort();
    Ok(paths)
}

fn find(folder: &Path, deeper: usize, found: &mut Vec<PathBuf>) -> Result<(), DemoError> {
    let file = folder.join(FILE);
    if file.is_file() {
        found.push(file);
    } else if deeper > 0 {
        names(folder)?.iter().try_for_each(|path| find(path, deeper - 1, found))?;
    }
    Ok(())
}

/// Files of a list, training ones first.
struct Listed {
    files: Vec<PathBuf>,
    train: usize,
}

/// The files that the one list of this task names; `None` where there is no list.
fn listed(base: &Path, folder: &Path) -> Result<Option<Listed>, DemoError> {
    let mut found: Option<(PathBuf, Listed)> = None;
    for path in names(base)?.into_iter().chain(names(folder)?) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = fs::read(&path).map_err(io(&path))?;
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| content(&path, "the whole", error))?;
        if json.get("train_demo_stats").is_none() {
            continue;
        }
        let list: List =
            serde_json::from_value(json).map_err(|error| content(&path, "the whole", error))?;
        let stats = list.train_demo_stats.iter().chain(&list.test_demo_stats);
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        for Stat { path: relative } in stats {
            // A path must not lead out of the folder.
            let plain = Path::new(relative).components().all(|c| matches!(c, Component::Normal(_)));
            if relative.is_empty() || !plain {
                return Err(content(&path, format!("path {relative:?}"), "expected a plain one"));
            }
            if !seen.insert(relative) {
                return Err(content(&path, format!("path {relative:?}"), "it is listed twice"));
            }
            files.push(base.join(relative).join(FILE));
        }
        if !files.iter().any(|file| file.starts_with(folder)) {
            continue;
        }
        if let Some((first, _)) = found {
            let why =
                format!("another list of the same demonstrations; {} is one", first.display());
            return Err(content(&path, "the whole", why));
        }
        found = Some((path, Listed { files, train: list.train_demo_stats.len() }));
    }
    Ok(found.map(|(_, listed)| listed))
}

impl Read {
    fn new(path: PathBuf, side: usize, actions: usize) -> Result<Self, DemoError> {
        let bytes = fs::read(&path).map_err(io(&path))?;
        let demonstration =
            with_fields(&path, &bytes, |fields| demonstration(fields, side, actions))?;
        Ok(Self { hash: blake3::hash(&bytes), path, demonstration })
    }
}

fn with_fields<R>(
    path: &Path,
    bytes: &[u8],
    with: impl FnOnce(&Fields<'_, '_>) -> Result<R, DemoError>,
) -> Result<R, DemoError> {
    let pickle = pickle::read_saved(bytes)
        .map_err(|source| DemoError::Checkpoint { path: path.to_path_buf(), source })?;
    let (dict, place) = (pickle.root(), "the demonstration".to_owned());
    with(&Fields { pickle: &pickle, dict, path, place })
}

/// Displacements of the fingertips that move, by frame; the last frame, which none follows, has zeros.
fn demonstration(
    fields: &Fields<'_, '_>,
    side: usize,
    actions: usize,
) -> Result<Demonstration, DemoError> {
    let steps = fields.images(IMAGES, side)?.shape[0];
    if steps < 2 {
        return Err(content(fields.path, IMAGES, "1 frame; expected a start and what follows"));
    }
    let proprio = fields.matrix("ft_pos_cur", steps, TIPS)?;
    let rows = fields.array("delta_ftpos")?.shape.first().copied();
    let moved = if rows == Some(steps) { steps } else { steps - 1 };
    let moves = fields.matrix("delta_ftpos", moved, TIPS)?;
    let mut all = Array2::zeros((steps, actions));
    let acted = ndarray::s![..steps - 1, ..];
    all.slice_mut(acted).assign(&moves.slice(ndarray::s![..steps - 1, ..actions]));

    let place = fields.matrix("o_pos_cur", steps, 3)?;
    let turn = fields.matrix("o_ori_cur", steps, 4)?;
    let joints = fields.matrix("robot_pos", steps, TIPS)?;
    let row = |of: &Array2<f32>, at: usize, scale: f64| -> Vec<f64> {
        of.row(at).iter().map(|&value| f64::from(value) / scale).collect()
    };
    Ok(Demonstration {
        actions: all,
        rewards: vec![0.0; steps],
        proprio,
        state: None,
        start: serde_json::json!({
            "cube": row(&place, 0, CENTIMETRES),
            "cube_orientation": row(&turn, 0, 1.0),
            "goal": row(&place, steps - 1, CENTIMETRES),
            "goal_orientation": row(&turn, steps - 1, 1.0),
            "joints": row(&joints, 0, 1.0),
        }),
        seed: None,
    })
}

impl Form for TriFinger {
    fn origin(&self) -> Origin {
        Origin::Published
    }

    fn len(&self) -> usize {
        self.demos.len()
    }

    fn frames(&self, at: usize) -> usize {
        self.demos[at].demonstration.actions.nrows()
    }

    fn load(&self, at: usize) -> Result<Demonstration, DemoError> {
        Ok(self.demos[at].demonstration.clone())
    }

    fn images(&self, at: usize) -> Result<Frames, DemoError> {
        let Read { path, hash, .. } = &self.demos[at];
        let bytes = fs::read(path).map_err(io(path))?;
        if blake3::hash(&bytes) != *hash {
            return Err(content(path, "the whole", "it was changed since it was opened"));
        }
        with_fields(path, &bytes, |fields| fields.frames(IMAGES, self.side))
    }

    fn fingerprint(&self) -> Fingerprint {
        let hashes: Vec<Fingerprint> = self.demos.iter().map(|demo| demo.hash.into()).collect();
        fingerprint(&hashes)
    }

    fn repeat(&self) -> Option<usize> {
        None
    }

    fn tests_from(&self) -> Option<usize> {
        Some(self.train)
    }
}
