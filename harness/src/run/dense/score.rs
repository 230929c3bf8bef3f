//! From window predictions to a probe's metrics: merging, per-image rows, means.

use std::collections::BTreeMap;

use heads::dense::outputs;
use ndarray::Array2;
use rayon::prelude::*;
use schema::{DenseProtocol, DepthRow, Objective, SampleRows, SegmentationRow};
use tasks::dense::Target;
use tasks::metrics::{ClassCounts, Window, depth_metrics, mean};

use crate::backbone::BackboneError;
use crate::run::RunError;

/// A probe's validation.
pub(super) struct Validation {
    /// By metric name, in the metric's unit.
    pub(super) metrics: BTreeMap<String, f64>,
    pub(super) rows: SampleRows,
    /// What was predicted for the images that are to be pictured, by their place in the split.
    pub(super) maps: BTreeMap<usize, Target>,
}

/// Sums of window predictions over an image.
#[derive(Debug, PartialEq)]
pub(super) struct Canvas {
    /// `[channels, height, width]`.
    sums: Vec<f32>,
    /// Windows over each pixel.
    counts: Vec<f32>,
    size: (usize, usize),
}

impl Canvas {
    pub(super) fn new(channels: usize, size: (usize, usize)) -> Self {
        let pixels = size.0 * size.1;
        Self { sums: vec![0.0; channels * pixels], counts: vec![0.0; pixels], size }
    }

    /// Adds one window's prediction `[channels, side, side]`.
    pub(super) fn add(&mut self, place: &Window, predicted: &[f32], side: usize) {
        let (height, width) = self.size;
        let (from, pixels) = (place.top * width + place.left, height * width);
        let channels = self.sums.par_chunks_mut(pixels).zip(predicted.par_chunks(side * side));
        channels.for_each(|(sums, predicted)| {
            for row in 0..place.height {
                let sums = &mut sums[from + row * width..][..place.width];
                let more = &predicted[row * side..][..place.width];
                sums.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
            }
        });
        self.count(place);
    }

    /// A canvas of merged windows: their sums `[channels, height, width]`, and where they are.
    pub(super) fn of(sums: Vec<f32>, places: &[Window], size: (usize, usize)) -> Self {
        let mut canvas = Self { sums, counts: vec![0.0; size.0 * size.1], size };
        places.iter().for_each(|place| canvas.count(place));
        canvas
    }

    fn count(&mut self, place: &Window) {
        let width = self.size.1;
        for row in place.top..place.top + place.height {
            let counts = &mut self.counts[row * width + place.left..][..place.width];
            counts.iter_mut().for_each(|count| *count += 1.0);
        }
    }

    /// Whether every window's prediction was finite. A softmax is not if any of its classes is not.
    fn is_finite(&self) -> bool {
        self.sums[..self.counts.len()].iter().all(|sum| sum.is_finite())
    }

    /// Metres: the mean over the windows.
    fn depth(self) -> Result<Array2<f32>, RunError> {
        let mut map = self.sums;
        map.iter_mut().zip(&self.counts).for_each(|(sum, count)| *sum /= count);
        shaped(self.size, map)
    }

    /// The class with the largest sum at each pixel, the first of equal ones.
    fn labels(self) -> Result<Array2<u8>, RunError> {
        let pixels = self.counts.len();
        let mut labels = vec![0u8; pixels];
        let run = self.size.1.max(1);
        labels.par_chunks_mut(run).enumerate().for_each(|(row, labels)| {
            let mut best = vec![f32::NEG_INFINITY; labels.len()];
            for (class, sums) in self.sums.chunks(pixels).enumerate() {
                let sums = &sums[row * run..][..labels.len()];
                for ((best, label), &sum) in best.iter_mut().zip(&mut *labels).zip(sums) {
                    if sum > *best {
                        *best = sum;
                        *label = class as u8;
                    }
                }
            }
        });
        shaped(self.size, labels)
    }
}

/// What was predicted for an image.
pub(super) enum Predicted {
    /// Sums of its windows.
    Sums(Canvas),
    /// The class of every pixel, and whether every window's prediction was finite.
    Labels(Array2<u8>, bool),
}

impl Predicted {
    fn is_finite(&self) -> bool {
        match self {
            Self::Sums(canvas) => canvas.is_finite(),
            Self::Labels(_, finite) => *finite,
        }
    }

    fn depth(self) -> Result<Array2<f32>, RunError> {
        match self {
            Self::Sums(canvas) => canvas.depth(),
            Self::Labels(..) => Err(kinds("depth")),
        }
    }

    pub(super) fn labels(self) -> Result<Array2<u8>, RunError> {
        match self {
            Self::Sums(canvas) => canvas.labels(),
            Self::Labels(map, _) => Ok(map),
        }
    }
}

/// What one image came to.
pub(super) struct Scored {
    row: Row,
    /// What was predicted.
    map: Target,
}

enum Row {
    Depth(DepthRow),
    Segmentation(SegmentationRow),
}

fn kinds(found: &'static str) -> RunError {
    let expected = if found == "depth" { "labels" } else { "depth" };
    heads::dense::HeadError::TargetKind { expected, found }.into()
}

/// A probe's rows so far.
pub(super) struct Score<'a> {
    protocol: &'a DenseProtocol,
    rows: SampleRows,
    maps: BTreeMap<usize, Target>,
}

impl<'a> Score<'a> {
    pub(super) fn new(protocol: &'a DenseProtocol) -> Self {
        let rows = match protocol.objective {
            Objective::Depth { .. } => SampleRows::Depth(Vec::new()),
            Objective::Segmentation { .. } => SampleRows::Segmentation(Vec::new()),
        };
        Self { protocol, rows, maps: BTreeMap::new() }
    }

    /// Sums of windows are of so many channels.
    pub(super) fn channels(&self) -> usize {
        outputs(&self.protocol.objective)
    }

    /// Scores an image: its path, what was predicted, what was to be.
    pub(super) fn score(
        &self,
        path: &str,
        predicted: Predicted,
        target: &Target,
    ) -> Result<Scored, RunError> {
        if !predicted.is_finite() {
            return Err(RunError::NotFinite { image: path.to_owned() });
        }
        let path = path.to_owned();
        match (target, &self.protocol.objective) {
            (Target::Depth(target), Objective::Depth { min, max }) => {
                let map = predicted.depth()?;
                let least = self.protocol.evaluation.min_valid;
                let metrics = depth_metrics(map.view(), target.view(), (*min, *max), least);
                Ok(Scored { row: Row::Depth(DepthRow { path, metrics }), map: Target::Depth(map) })
            }
            (Target::Labels(target), Objective::Segmentation { classes, ignore }) => {
                let map = predicted.labels()?;
                let counts = ClassCounts::of(map.view(), target.view(), *classes, *ignore)?;
                let ClassCounts { intersection, predicted, target } = counts;
                let row = SegmentationRow { path, intersection, predicted, target };
                Ok(Scored { row: Row::Segmentation(row), map: Target::Labels(map) })
            }
            // A data set's targets are all of one kind, which its objective was made from.
            (Target::Depth(_), _) => Err(kinds("depth")),
            (Target::Labels(_), _) => Err(kinds("labels")),
        }
    }

    /// Takes the next image; `keep` is its place in the split if its prediction is wanted.
    pub(super) fn add(&mut self, scored: Scored, keep: Option<usize>) {
        match (&mut self.rows, scored.row) {
            (SampleRows::Depth(rows), Row::Depth(row)) => rows.push(row),
            (SampleRows::Segmentation(rows), Row::Segmentation(row)) => rows.push(row),
            _ => {}
        }
        self.maps.extend(keep.map(|at| (at, scored.map)));
    }

    pub(super) fn finish(self, dataset: &str) -> Result<Validation, RunError> {
        let mut metrics = BTreeMap::new();
        match &self.rows {
            SampleRows::Depth(rows) => {
                let counted: Vec<_> = rows.iter().filter_map(|row| row.metrics).collect();
                let Some(mean) = mean(&counted) else {
                    return Err(RunError::NothingValid { dataset: dataset.to_owned() });
                };
                for (name, value) in mean.named() {
                    metrics.insert(name.to_owned(), value);
                }
            }
            SampleRows::Segmentation(rows) => {
                let classes = outputs(&self.protocol.objective);
                let mut whole = ClassCounts::new(classes);
                for row in rows {
                    whole.add(&ClassCounts {
                        intersection: row.intersection.clone(),
                        predicted: row.predicted.clone(),
                        target: row.target.clone(),
                    });
                }
                metrics.insert("miou".to_owned(), whole.miou());
                metrics.insert("pixel_acc".to_owned(), whole.pixel_accuracy());
                let by_class = whole.iou().into_iter().enumerate();
                metrics.extend(by_class.map(|(class, iou)| (format!("iou/{class}"), iou)));
            }
            SampleRows::Knn(_) | SampleRows::Policy(_) => {}
        }
        Ok(Validation { metrics, rows: self.rows, maps: self.maps })
    }
}

pub(super) fn shaped<T>(size: (usize, usize), values: Vec<T>) -> Result<Array2<T>, RunError> {
    Array2::from_shape_vec(size, values).map_err(|e| {
        BackboneError::Candle(candle_core::Error::Msg(format!("a map of another size: {e}"))).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_averaged_and_the_first_of_equal_classes_wins() {
        let place = |left, width| Window { top: 0, left, height: 2, width };
        let mut canvas = Canvas::new(1, (2, 3));
        canvas.add(&place(0, 2), &[1.0, 2.0, 3.0, 4.0], 2);
        canvas.add(&place(1, 2), &[10.0, 20.0, 30.0, 40.0], 2);
        let depth = canvas.depth().unwrap();
        assert_eq!(depth.into_raw_vec_and_offset().0, [1.0, 6.0, 20.0, 3.0, 17.0, 40.0]);

        let mut canvas = Canvas::new(3, (1, 2));
        let place = Window { top: 0, left: 0, height: 1, width: 2 };
        let nothing = [0.0; 2];
        let scores = [[0.2, 0.5], nothing, [0.4, 0.4], nothing, [0.4, f32::NAN], nothing];
        canvas.add(&place, &scores.concat(), 2);
        assert_eq!(canvas.labels().unwrap().into_raw_vec_and_offset().0, [1, 0]);
    }
}
