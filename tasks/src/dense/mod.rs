//! Dense data sets: images with a depth or a class for every pixel, and the crops that a head is
//! trained on (PROTOCOL sections 3 and 4).
//!
//! [`PairedSet`] finds the files, [`PairedSet::target_form`] settles once how their targets are
//! stored, [`load`] reads a pair, [`EpochOrder`] and [`Draws`] say which samples make up a batch
//! and how each is cropped, and [`train_sample`] does that. Every random decision is a function of
//! the seed, the data set's name, the epoch and the index alone, so any number of threads may ask
//! for any sample in any order.

mod augment;
mod draw;
mod error;
pub(crate) mod find;
mod load;
mod normalise;
mod order;
mod pairs;

pub use augment::{rescaled, resize_nearest, train_sample};
pub use draw::{Draw, Draws};
pub use error::DenseError;
pub use find::{ListSource, PinnedLists, list_kind};
pub use load::{IGNORE, LabelForm, Target, TargetForm, load, load_target, size};
pub use normalise::normalise_into;
pub use order::{EpochOrder, steps_per_epoch};
pub use pairs::{Pair, PairSplit, PairedSet};
