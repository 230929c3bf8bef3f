//! Generated demonstrations:
//!
//! ```text
//! ROOT/TASK/demo-000.png          animated PNG, a frame a step, lossless RGB
//! ROOT/TASK/demo-000.safetensors  actions [T, n], rewards [T], proprio [T, p], state [T, q]; f32
//! ROOT/TASK/demos.json            what made them and each one's score; written last
//! ```

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use schema::{Fingerprint, Render, fingerprint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use super::{DemoError, Demonstration, Form, Frames, Origin};
use crate::robot::Suite;

const MANIFEST: &str = "demos.json";
const FORMAT: u32 = 1;
/// Frames of one demonstration, at most: a longer file is refused before it is decoded.
const LONGEST: u32 = 10_000;
/// Delay of an animation's frame, in hundredths of a second.
const DELAY: u16 = 4;

/// What generated demonstrations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeBy {
    /// For example `scripted expert`.
    pub generator: String,
    /// Seed of the first episode.
    pub seed: u64,
    /// Libraries of the simulators, as `name version`.
    pub versions: Vec<String>,
    /// How images were made.
    pub render: Render,
    /// Simulator steps of an action.
    pub repeat: usize,
    /// Mean score, 0 to 100.
    pub mean_score: f64,
}

/// `demos.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    suite: String,
    task: String,
    #[serde(flatten)]
    by: MadeBy,
    demos: Vec<Entry>,
}

/// One demonstration of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    file: String,
    steps: usize,
    score: f64,
    #[serde(rename = "return")]
    reward: f64,
    seed: u64,
    #[serde(default)]
    start: Value,
    /// BLAKE3 of the images' and of the numbers' file.
    hashes: [Fingerprint; 2],
}

/// Demonstrations of one task in a folder.
pub(super) struct Made {
    folder: PathBuf,
    manifest: Manifest,
    /// Of proprioception and of an action.
    widths: (usize, usize),
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DemoError {
    let path = path.to_path_buf();
    move |source| DemoError::Io { path, source }
}

fn content(path: &Path, place: &str, why: impl std::fmt::Display) -> DemoError {
    DemoError::Content { path: path.to_path_buf(), place: place.to_owned(), why: why.to_string() }
}

impl Made {
    /// The task's generated demonstrations, where there are any.
    pub(super) fn open(suite: &Suite, task: &str, root: &Path) -> Result<Option<Self>, DemoError> {
        let folder = root.join(task);
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(io(&path))?,
        };
        let whole = |why: &dyn std::fmt::Display| content(&path, "the whole", why);
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| whole(&error))?;
        if manifest.format != FORMAT {
            return Err(whole(&format!("format {}; expected {FORMAT}", manifest.format)));
        }
        if (manifest.suite.as_str(), manifest.task.as_str()) != (suite.name, task) {
            let found = format!("{}/{}", manifest.suite, manifest.task);
            return Err(whole(&format!("of {found}; expected {}/{task}", suite.name)));
        }
        if manifest.demos.is_empty() {
            return Err(whole(&"no demonstrations"));
        }
        let widths = suite
            .widths(task)
            .ok_or_else(|| whole(&format!("{} has no task {task}", suite.name)))?;
        let made = Self { folder, manifest, widths };
        for at in 0..made.len() {
            let entry = &made.manifest.demos[at];
            // A name must not lead out of the folder.
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if entry.file.is_empty() || !entry.file.chars().all(plain) {
                return Err(whole(&format!("file {:?}; expected a plain name", entry.file)));
            }
            for extension in ["png", "safetensors"] {
                let path = made.path(at, extension);
                fs::metadata(&path).map_err(io(&path))?;
            }
        }
        Ok(Some(made))
    }

    fn path(&self, at: usize, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.manifest.demos[at].file))
    }

    fn bytes(&self, at: usize, extension: &str, which: usize) -> Result<Vec<u8>, DemoError> {
        let path = self.path(at, extension);
        let bytes = fs::read(&path).map_err(io(&path))?;
        if Fingerprint::from(blake3::hash(&bytes)) != self.manifest.demos[at].hashes[which] {
            return Err(content(
                &path,
                "the whole",
                "not the file that demos.json was written for",
            ));
        }
        Ok(bytes)
    }
}

impl Form for Made {
    fn origin(&self) -> Origin {
        Origin::Made(self.manifest.by.clone())
    }

    fn len(&self) -> usize {
        self.manifest.demos.len()
    }

    fn frames(&self, at: usize) -> usize {
        self.manifest.demos[at].steps
    }

    fn load(&self, at: usize) -> Result<Demonstration, DemoError> {
        let path = self.path(at, "safetensors");
        let bytes = self.bytes(at, "safetensors", 1)?;
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| content(&path, "the whole", error))?;
        let steps = self.frames(at);
        let tensor = |name: &str, dimensions: usize| -> Result<(Vec<f32>, usize), DemoError> {
            let tensor = tensors.tensor(name).map_err(|error| content(&path, name, error))?;
            let shape = tensor.shape();
            if tensor.dtype() != Dtype::F32 || shape.len() != dimensions || shape[0] != steps {
                let found = format!("{:?} {shape:?}", tensor.dtype());
                let expected = format!("F32 of {dimensions} dimensions, the first {steps}");
                return Err(content(&path, name, format!("{found}; expected {expected}")));
            }
            let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            let values: Vec<f32> = tensor.data().chunks_exact(4).map(number).collect();
            if values.iter().any(|x| !x.is_finite()) {
                return Err(content(&path, name, "a number that is not finite"));
            }
            Ok((values, shape.get(1).copied().unwrap_or(1)))
        };
        let matrix = |name: &str, expected: Option<usize>| {
            let (values, width) = tensor(name, 2)?;
            let shape = (steps, width);
            if let Some(expected) = expected.filter(|expected| *expected != width) {
                return Err(DemoError::Shape {
                    path: path.clone(),
                    place: name.to_owned(),
                    expected: format!("[{steps}, {expected}]"),
                    found: format!("[{steps}, {width}]"),
                });
            }
            Array2::from_shape_vec(shape, values).map_err(|error| content(&path, name, error))
        };
        Ok(Demonstration {
            actions: matrix("actions", Some(self.widths.1))?,
            rewards: tensor("rewards", 1)?.0.into_iter().map(f64::from).collect(),
            proprio: matrix("proprio", Some(self.widths.0))?,
            state: Some(matrix("state", None)?),
            start: self.manifest.demos[at].start.clone(),
            seed: Some(self.manifest.demos[at].seed),
        })
    }

    fn images(&self, at: usize) -> Result<Frames, DemoError> {
        let path = self.path(at, "png");
        let bytes = self.bytes(at, "png", 0)?;
        let side = self.manifest.by.render.side;
        decode(&bytes, self.frames(at), side).map_err(|why| DemoError::Images { path, why })
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.manifest)
    }

    fn repeat(&self) -> Option<usize> {
        Some(self.manifest.by.repeat)
    }
}

/// Every frame of an animated PNG of whole RGB frames.
fn decode(bytes: &[u8], steps: usize, side: usize) -> Result<Frames, String> {
    let text = |error: png::DecodingError| error.to_string();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(text)?;
    let info = reader.info();
    let found = (info.height as usize, info.width as usize, info.color_type, info.bit_depth);
    let frames = info.animation_control.map_or(1, |control| control.num_frames);
    if found != (side, side, png::ColorType::Rgb, png::BitDepth::Eight) {
        return Err(format!("{found:?}; expected {side} x {side}, RGB of 8 bits"));
    }
    if frames > LONGEST || frames as usize != steps {
        return Err(format!("{frames} frames; expected {steps}"));
    }
    let mut all = Vec::with_capacity(steps);
    for _ in 0..steps {
        let mut pixels = vec![0; 3 * side * side];
        reader.next_frame(&mut pixels).map_err(text)?;
        let shape = (side, side, 3);
        all.push(Array3::from_shape_vec(shape, pixels).map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// A demonstration as it is recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// RGB of `side * side` pixels, one a step.
    pub images: Vec<Vec<u8>>,
    /// One a step.
    pub actions: Vec<Vec<f32>>,
    /// One a step.
    pub rewards: Vec<f32>,
    /// One a step, as seen before the action.
    pub proprio: Vec<Vec<f32>>,
    /// One a step, as seen before the action.
    pub state: Vec<Vec<f32>>,
    /// 0 to 100.
    pub score: f64,
    /// Of the episode.
    pub seed: u64,
    /// As it was given to the worker.
    pub start: Value,
}

/// Writes generated demonstrations to a folder that has their name only in the end: what was there before
/// is there until then.
pub struct Writer {
    /// Removed when dropped.
    folder: TempDir,
    place: PathBuf,
    manifest: Manifest,
}

impl Writer {
    /// Begins what will be `ROOT/TASK`.
    ///
    /// # Errors
    /// When the root cannot be written.
    pub fn begin(suite: &Suite, task: &str, root: &Path, by: MadeBy) -> Result<Self, DemoError> {
        fs::create_dir_all(root).map_err(io(root))?;
        let folder = unnamed(root)?;
        let manifest = Manifest {
            format: FORMAT,
            suite: suite.name.to_owned(),
            task: task.to_owned(),
            by,
            demos: Vec::new(),
        };
        Ok(Self { folder, place: root.join(task), manifest })
    }

    /// Adds a demonstration.
    ///
    /// # Errors
    /// When a file cannot be written, or the parts do not fit together.
    pub fn add(&mut self, recorded: &Recorded) -> Result<(), DemoError> {
        let file = format!("demo-{:03}", self.manifest.demos.len());
        let images = self.folder.path().join(format!("{file}.png"));
        let numbers = self.folder.path().join(format!("{file}.safetensors"));
        let steps = recorded.images.len();
        let lengths = [
            recorded.actions.len(),
            recorded.rewards.len(),
            recorded.proprio.len(),
            recorded.state.len(),
        ];
        if steps == 0 || lengths != [steps; 4] {
            return Err(content(&numbers, "steps", format!("{lengths:?} for {steps} images")));
        }
        let encoded = encode(&recorded.images, self.manifest.by.render.side)
            .map_err(|why| DemoError::Images { path: images.clone(), why })?;
        let tensors = serialise(recorded).map_err(|why| content(&numbers, "the whole", why))?;
        write(&images, &encoded)?;
        write(&numbers, &tensors)?;
        self.manifest.demos.push(Entry {
            file,
            steps,
            score: recorded.score,
            reward: recorded.rewards.iter().map(|&x| f64::from(x)).sum(),
            seed: recorded.seed,
            start: recorded.start.clone(),
            hashes: [blake3::hash(&encoded).into(), blake3::hash(&tensors).into()],
        });
        Ok(())
    }

    /// Mean score of what was added.
    pub fn mean_score(&self) -> f64 {
        let demos = &self.manifest.demos;
        demos.iter().map(|demo| demo.score).sum::<f64>() / demos.len().max(1) as f64
    }

    /// Writes `demos.json` and gives the folder its name, in place of what had it. The folder.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn finish(mut self) -> Result<PathBuf, DemoError> {
        self.manifest.by.mean_score = self.mean_score();
        let path = self.folder.path().join(MANIFEST);
        let mut text = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|error| content(&path, "the whole", error))?;
        text.push(b'\n');
        write(&path, &text)?;
        let place = self.place;
        // Out of the way first, and removed when this ends: a folder does not replace one that has files.
        let before = unnamed(place.parent().unwrap_or(Path::new(".")))?;
        if place.is_dir() {
            fs::rename(&place, before.path().join("before")).map_err(io(&place))?;
        }
        fs::rename(self.folder.path(), &place).map_err(io(&place))?;
        Ok(place)
    }
}

/// A folder for what has no name yet, removed when dropped.
fn unnamed(root: &Path) -> Result<TempDir, DemoError> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.prefix(".writing-").tempdir_in(root).map_err(io(root))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DemoError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any file: what the user's mask leaves.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".writing-").tempfile_in(folder).map_err(io(path))?;
    file.write_all(bytes).map_err(io(path))?;
    file.persist(path).map_err(|error| io(path)(error.error))?;
    Ok(())
}

fn encode(images: &[Vec<u8>], side: usize) -> Result<Vec<u8>, String> {
    if let Some(image) = images.iter().find(|image| image.len() != 3 * side * side) {
        return Err(format!("an image of {} bytes; expected {side} x {side} x 3", image.len()));
    }
    let text = |error: png::EncodingError| error.to_string();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_animated(images.len() as u32, 0).map_err(text)?;
    encoder.set_frame_delay(DELAY, 100).map_err(text)?;
    let mut writer = encoder.write_header().map_err(text)?;
    for image in images {
        writer.write_image_data(image).map_err(text)?;
    }
    writer.finish().map_err(text)?;
    Ok(bytes)
}

fn serialise(recorded: &Recorded) -> Result<Vec<u8>, String> {
    let steps = recorded.images.len();
    let flat = |rows: &[Vec<f32>]| -> (Vec<u8>, Vec<usize>) {
        let width = rows.first().map_or(0, Vec::len);
        (rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(), vec![steps, width])
    };
    let rewards = recorded.rewards.iter().flat_map(|x| x.to_le_bytes()).collect();
    let parts = [
        ("actions", flat(&recorded.actions)),
        ("proprio", flat(&recorded.proprio)),
        ("rewards", (rewards, vec![steps])),
        ("state", flat(&recorded.state)),
    ];
    let views = parts.iter().map(|(name, (bytes, shape))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (*name, view)).map_err(|error| format!("{name}: {error}"))
    });
    let views = views.collect::<Result<Vec<_>, String>>()?;
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
