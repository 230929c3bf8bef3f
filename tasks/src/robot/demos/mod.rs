//! Demonstrations, in any of three forms: the published pickles, TriFinger's folders, and generated
//! ones.

mod error;
mod fields;
mod made;
mod published;
#[cfg(test)]
mod tests;
mod trifinger;

use std::path::Path;

use ndarray::{Array2, Array3};
use schema::{Fingerprint, Render};
use serde_json::Value;

pub use error::DemoError;
pub use made::{MadeBy, Recorded, Writer};

use super::Suite;

/// Images of a demonstration, `[H, W, 3]` each.
pub type Frames = Vec<Array3<u8>>;

/// One demonstration without its images. `T` is its number of frames; frame `t` is what was seen before
/// action `t`.
#[derive(Clone, Debug, PartialEq)]
pub struct Demonstration {
    /// `[T, actions]`; TriFinger's are centimetres.
    pub actions: Array2<f32>,
    /// `[T]`.
    pub rewards: Vec<f64>,
    /// `[T, proprio]`.
    pub proprio: Array2<f32>,
    /// The simulator's true state, `[T, state]`, where it was written down.
    pub state: Option<Array2<f32>>,
    /// Where it started, as the simulators' workers take it; null where the seed alone decides.
    pub start: Value,
    /// Seed of its episode, where it is known.
    pub seed: Option<u64>,
}

/// Where demonstrations come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The published ones.
    Published,
    /// Generated.
    Made(MadeBy),
}

/// The demonstrations of one task.
pub struct Demonstrations {
    form: Box<dyn Form>,
    repeat: usize,
}

/// What each form of files answers. Everything that can be checked without decoding images is checked
/// when it is opened.
trait Form: Send + Sync {
    /// Where they come from.
    fn origin(&self) -> Origin;
    /// How many there are.
    fn len(&self) -> usize;
    /// Frames of one.
    fn frames(&self, at: usize) -> usize;
    /// One without its images.
    fn load(&self, at: usize) -> Result<Demonstration, DemoError>;
    /// Its images.
    fn images(&self, at: usize) -> Result<Frames, DemoError>;
    /// Hash over all of it.
    fn fingerprint(&self) -> Fingerprint;
    /// Simulator steps of an action, where the files tell.
    fn repeat(&self) -> Option<usize>;
    /// The first one that is for testing, where the files tell.
    fn tests_from(&self) -> Option<usize> {
        None
    }
}

impl Demonstrations {
    /// Finds the demonstrations of a task in its suite's folder; `None` where there are none. Generated
    /// ones come first, then published ones.
    ///
    /// # Errors
    /// [`DemoError`] where there are files that cannot be used.
    pub fn open(suite: &Suite, task: &str, root: &Path) -> Result<Option<Self>, DemoError> {
        let form: Option<Box<dyn Form>> = match made::Made::open(suite, task, root)? {
            Some(made) => Some(Box::new(made)),
            None if suite.tests_on_demonstrations() => trifinger::open(suite, task, root)?,
            None => published::open(suite, task, root)?,
        };
        Ok(form.map(|form| Self { repeat: form.repeat().unwrap_or(1), form }))
    }

    /// Where they come from.
    pub fn origin(&self) -> Origin {
        self.form.origin()
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)] // there is always one
    pub fn len(&self) -> usize {
        self.form.len()
    }

    /// Simulator steps of an action.
    pub fn repeat(&self) -> usize {
        self.repeat
    }

    /// The first of the demonstrations whose starts policies are tested from: where the published list says,
    /// else the last `count`.
    pub fn tests_from(&self, count: usize) -> usize {
        self.form.tests_from().unwrap_or(self.len().saturating_sub(count))
    }

    /// Frames of a demonstration.
    pub fn frames(&self, at: usize) -> usize {
        self.form.frames(at)
    }

    /// A demonstration without its images.
    ///
    /// # Errors
    /// [`DemoError`] naming the file.
    pub fn load(&self, at: usize) -> Result<Demonstration, DemoError> {
        self.form.load(at)
    }

    /// Its images, as many as it has frames.
    ///
    /// # Errors
    /// [`DemoError`] naming the file.
    pub fn images(&self, at: usize) -> Result<Frames, DemoError> {
        self.form.images(at)
    }

    /// Hash over all of it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.form.fingerprint()
    }

    /// How the images were made: as the demonstrations say, or the published ones' defaults.
    pub fn render(&self, suite: &Suite) -> Render {
        match self.origin() {
            Origin::Made(by) => by.render,
            Origin::Published => suite.render(),
        }
    }
}
