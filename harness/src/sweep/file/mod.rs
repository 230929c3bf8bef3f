//! A sweep's file: what varies, and what stays.
//!
//! ```toml
//! name = "blocks"                 # its folder: letters, digits, - and _ (default: the file's name)
//!
//! [fixed]                         # one value for every cell
//! epochs = 60
//!
//! [grid]                          # every combination; the axis that stands first changes slowest
//! backbone = ["mae-l", "checkpoints/step-*.pth"]
//! task = ["imagenet1k", "nyuv2", "ade20k/linear"]
//! head = ["knn", "linear", "dpt"]
//! block = { from = 12, to = 24, step = 3 }
//! seed = { from = 0, to = 2 }
//! "training.warmup" = [0.0, 0.1]
//!
//! [zip]                           # lists of one length, taken together: one axis
//! resolution = [224, 256]
//! limit = [2000, 1000]
//!
//! [[cell]]                        # a further cell, on top of [fixed]; as many as wanted
//! backbone = "pixio-l"
//! task = "kitti"
//! head = "dpt"
//!
//! [[exclude]]                     # cells that match every line of a rule are left out
//! head = "knn"
//! block = [12, 15]
//!
//! [[include]]                     # where there are any, only cells that match one of them stay
//! task = ["imagenet1k", "nyuv2"]
//! ```
//!
//! Every part may be left out. A file with neither `[grid]`, `[zip]` nor `[[cell]]` is one cell.
//!
//! # Axes
//!
//! | Axis | A value | Default |
//! |---|---|---|
//! | `backbone` | what `--backbone` takes | none: one is needed, here or as `--backbone` |
//! | `task` | a data set (`nyuv2`), with its head (`nyuv2/linear`), or `cortexbench/SUITE` | none: one is needed |
//! | `head` | `knn`, `linear`, `dpt`, `policy` | the data set's, where it has but one |
//! | `protocol` | `pixio`, `cortexbench-lite`, `sample` | `pixio`; with `--sample`, `sample` |
//! | `block` | the deepest block that is read, 1 being the first | the protocol's |
//! | `taps` | a list: the blocks that are read, 0 being the first | the protocol's |
//! | `tokens` | `patch`, `class`, `both` | the backbone's recipe |
//! | `class-tokens` | how many class tokens are averaged | all |
//! | `resolution` | side of the image in pixels | the backbone's |
//! | `learning-rate`, `weight-decay` | a number | the protocol's |
//! | `epochs` | a whole number | the protocol's |
//! | `seed` | seed of the head | 0 |
//! | `stream-seed` | seed of order, crops and `limit`'s shuffle | 0 |
//! | `limit` | samples of each split | all |
//! | `k` | a number of neighbours, or a list that one vote is counted with | the protocol's |
//! | `temperature` | a number above 0 | the protocol's |
//! | `"training.warmup"` and so on | any other value of the protocol by its path, as in `--set` | the protocol's |
//! | `"override.mean"` and so on | a backbone's field, as in `--override` | the backbone's |
//!
//! Names are those of the flags of `pixio-eval run`. A path may be quoted (`"training.warmup" = 0`),
//! dotted, or a table of its own (`[grid.training]`). `block` and `taps` exclude one another.
//!
//! The seed of the stream is 0 unless it is given, whatever `seed` is: heads that differ in their seed
//! then read the same images, and share one pass of the encoder.
//!
//! # Values
//!
//! In `[grid]`, `[zip]` and rules a list is a list of values, and a single value is a list of one. A value
//! that is itself a list (`taps`, `k`, a protocol's list) stands in a second pair of brackets: `k = [10,
//! 20]` are two cells, `k = [[10, 20]]` is one. In `[fixed]` and `[[cell]]` there is one value, and `k =
//! [10, 20]` is a list of two. Whole numbers can be a range, `{ from = 0, to = 10, step = 5 }`: both ends
//! count, and `step` is 1 where it is left out. A range has at most 1,000,000 values, a sweep at most
//! 10,000,000 combinations.
//!
//! A `backbone` with `*` (any text within a name) or `?` (any character) stands for the files and folders
//! it finds, in the order of the numbers in their names (`step-2` before `step-10`). Paths are relative to
//! where the command runs, as those of `--backbone`. `--backbone` on the command line replaces the
//! backbones of the whole file.
//!
//! # Heads
//!
//! `head` multiplies those data sets that have such heads. A combination whose data set lacks the head is
//! dropped: `head = ["knn", "linear"]` is k-NN for ImageNet and a linear head for NYUv2. A data set with
//! one head alone (ImageNet, the robot suites) and a task with its head (`nyuv2/linear`) keep theirs
//! whatever `head` says. A task for which no head is left is an error.
//!
//! # Rules
//!
//! A rule speaks of combinations as the file spells them; its `backbone` may be a pattern, of names alone.
//! `task = "nyuv2"` is every head of NYUv2. A rule that matches nothing is told, as a warning.
//!
//! # What is left
//!
//! A cell loses the settings that its head does not have, and cells that are equal then are one: five
//! blocks and three learning rates are five cells of k-NN. Cells stand in the order of `[grid]` and
//! `[zip]` as their lines stand in the file, the first axis slowest (`[zip]` at its first line), then
//! those of `[[cell]]`.

mod axes;
mod error;
mod expand;
mod pattern;
mod read;
mod ready;
#[cfg(test)]
mod tests;

use axes::{Change, Task};

pub use error::{FileError, Problem};
pub use expand::Expanded;
pub use ready::{READY, Source, source, title};

/// What the command line says of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// In place of the file's backbones, where there are any.
    pub backbones: Vec<String>,
    /// The protocol where the file names none.
    pub protocol: String,
}

/// A sweep's file, read and checked, not yet expanded.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Its name, fit for a folder.
    pub name: String,
    /// Where it comes from, for messages.
    origin: String,
    /// `[grid]` with `[zip]`, then each `[[cell]]`.
    blocks: Vec<Block>,
    /// `[[exclude]]`.
    exclude: Vec<Rule>,
    /// `[[include]]`.
    include: Vec<Rule>,
}

/// A product of dimensions.
#[derive(Clone, Debug)]
struct Block {
    /// The slowest first; each has a value.
    dimensions: Vec<Dimension>,
    /// Values of `head`.
    heads: Vec<String>,
    /// Whether task and head are zipped: a task then meets the head beside it alone.
    paired: bool,
}

/// One axis, or several that are zipped; a fixed value is a dimension of one.
#[derive(Clone, Debug)]
struct Dimension {
    /// All of one length.
    columns: Vec<Column>,
}

/// An axis and its values.
#[derive(Clone, Debug)]
struct Column {
    /// The axis: `resolution` stands for `override.resolution`.
    axis: String,
    /// Where it stands, from 1; 0 is not in the file.
    line: usize,
    /// At least one.
    values: Vec<Change>,
}

/// `[[exclude]]` or `[[include]]`.
#[derive(Clone, Debug)]
struct Rule {
    /// Where it stands, from 1.
    line: usize,
    /// For each axis, the values that match.
    lines: Vec<Vec<Change>>,
}

impl Dimension {
    fn len(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len())
    }
}

impl Block {
    /// The head of a combination of this block, unless the data set lacks it.
    fn head<'a>(&'a self, task: &'a Task, head: Option<&'a str>) -> Option<&'a str> {
        match (self.paired, head) {
            (true, Some(head)) => task.choose(Some(head), &[head]),
            _ => task.choose(head, &self.heads),
        }
    }
}

impl Sweep {
    /// Reads the text of a file. Patterns look for their files here.
    ///
    /// # Errors
    /// What is wrong, where, and what was expected.
    pub fn parse(text: &str, origin: &str, given: &Given) -> Result<Self, FileError> {
        read::read(text, origin, given)
    }
}
