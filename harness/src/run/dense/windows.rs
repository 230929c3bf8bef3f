//! Where the windows of a validation split lie, and which of them are encoded together.

use std::ops::Range;

use rayon::prelude::*;
use schema::{EvaluationStage, SampleStage};
use tasks::dense::{DenseError, size};
use tasks::metrics::{Window, windows};

use super::Opened;

/// The windows of a validation split. They never change, and neither does the company in which each
/// is encoded: that depends on the images' sizes and the micro-batch alone.
pub(super) struct Windows {
    side: usize,
    stride: usize,
    /// Height and width of every image, without its border.
    sizes: Vec<(usize, usize)>,
    /// Runs of images that are encoded one after the other: one image, or several small ones.
    pub(super) passes: Vec<Range<usize>>,
}

impl Windows {
    /// Reads the size of every validation image, from headers alone.
    pub(super) fn of(
        data: &Opened,
        sample: &SampleStage,
        evaluation: &EvaluationStage,
        micro_batch: usize,
    ) -> Result<Self, DenseError> {
        let val = &data.set.val;
        let sizes = val.pairs().par_iter().map(|pair| size(val.files(), pair, sample.border));
        // The first error in order, however many there are.
        let sizes = sizes.collect::<Vec<_>>().into_iter().collect::<Result<_, _>>()?;
        Ok(Self::new(sizes, evaluation, micro_batch))
    }

    /// No windows.
    pub(super) fn none() -> Self {
        Self { side: 0, stride: 0, sizes: Vec::new(), passes: Vec::new() }
    }

    fn new(sizes: Vec<(usize, usize)>, evaluation: &EvaluationStage, micro_batch: usize) -> Self {
        let (side, stride) = (evaluation.window, evaluation.stride);
        let mut windows = Self { side, stride, sizes, passes: Vec::new() };
        let (mut start, mut count) = (0, 0);
        for image in 0..windows.sizes.len() {
            count += windows.at(image).len();
            if count >= micro_batch || image + 1 == windows.sizes.len() {
                windows.passes.push(start..image + 1);
                (start, count) = (image + 1, 0);
            }
        }
        windows
    }

    /// Height and width of an image.
    pub(super) fn size(&self, image: usize) -> (usize, usize) {
        self.sizes[image]
    }

    /// Side of a window.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// Windows of an image, row by row.
    pub(super) fn at(&self, image: usize) -> Vec<Window> {
        let (height, width) = self.sizes[image];
        windows(height, width, self.side, self.stride)
    }

    /// Number of windows of all images, as if each were of the first one's size.
    pub(super) fn about(
        data: &Opened,
        sample: &SampleStage,
        evaluation: &EvaluationStage,
    ) -> Result<usize, DenseError> {
        let val = &data.set.val;
        let Some(first) = val.pairs().first() else { return Ok(0) };
        let (height, width) = size(val.files(), first, sample.border)?;
        Ok(val.pairs().len() * windows(height, width, evaluation.window, evaluation.stride).len())
    }

    /// Number of windows of a run of images.
    pub(super) fn count(&self, images: &Range<usize>) -> usize {
        images.clone().map(|image| self.at(image).len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_share_a_pass_and_large_ones_have_their_own() {
        let evaluation =
            EvaluationStage { revision: 1, window: 256, stride: 170, every: 1, min_valid: 10 };
        let sizes = vec![(200, 100), (150, 170), (426, 560), (64, 64)];
        let windows = Windows::new(sizes, &evaluation, 4);
        // 2 and 1 windows, then 12, then 1.
        assert_eq!(windows.passes, [0..3, 3..4]);
        assert_eq!((windows.count(&(0..2)), windows.count(&(0..4))), (3, 16));
        assert_eq!(Windows::new(Vec::new(), &evaluation, 4).passes, Vec::<Range<usize>>::new());
    }
}
