//! How each training sample is cropped.

use schema::SampleStage;

use super::augment::rescaled;
use crate::random::Stream;

/// How a sample becomes a training crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// First row of the crop, in the rescaled and padded image.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Whether the crop is mirrored, left to right.
    pub flip: bool,
    /// The longer side that the image is rescaled to; not rescaled without one.
    pub long_side: Option<usize>,
}

/// The draws of a run's training samples on one data set.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    stream: Stream,
}

/// What is drawn: the third word of the counter.
const LONG_SIDE: u32 = 0;
const TOP: u32 = 1;
const LEFT: u32 = 2;
const FLIP: u32 = 3;

impl Draws {
    /// The draws under the stream's seed and the data set's name.
    pub fn new(seed: u64, dataset: &str) -> Self {
        Self { stream: Stream::tagged(seed, &format!("dense/draw/{dataset}")) }
    }

    /// The draw of sample `index` in `epoch`, both counted from 0 and below 2^32, for an image of
    /// `(height, width)` without border. Every call with the same arguments gives the same.
    ///
    /// Where `stage` scales, the longer side L becomes a whole number drawn evenly from
    /// `int(L * low)..=int(L * high)`, at least 1. The crop lies evenly in what is left when both
    /// sides are padded to its length; the flip has the stage's probability.
    pub fn at(
        &self,
        epoch: usize,
        index: usize,
        (height, width): (usize, usize),
        stage: &SampleStage,
    ) -> Draw {
        let counter = |what| [index as u32, epoch as u32, what, 0];
        let below = |what, n: usize| self.stream.below(counter(what), n as u64) as usize;
        let long_side = stage.scale.map(|[low, high]| {
            let side = height.max(width) as f64;
            let (low, high) = (((side * low) as usize).max(1), (side * high) as usize);
            low + below(LONG_SIDE, high.saturating_sub(low) + 1)
        });
        let (height, width) =
            long_side.map_or((height, width), |long_side| rescaled(height, width, long_side));
        Draw {
            top: below(TOP, height.saturating_sub(stage.crop) + 1),
            left: below(LEFT, width.saturating_sub(stage.crop) + 1),
            flip: self.stream.uniform(counter(FLIP)) < stage.flip,
            long_side,
        }
    }
}
