//! Validation: sliding windows over whole images, encoded once for every probe (PROTOCOL section 3).

use std::collections::BTreeMap;

use heads::dense::Probe;
use ndarray::Array2;
use schema::{DenseProtocol, DepthRow, Objective, SampleRows, SegmentationRow};
use tasks::dense::{DenseError, Target, load, normalise_into};
use tasks::metrics::{ClassCounts, Window, depth_metrics, mean, windows};

use super::Opened;
use super::features::{Encoder, taps_of};
use crate::backbone::BackboneError;
use crate::interrupt;
use crate::progress::Reporter;
use crate::run::RunError;
use crate::stream::ordered;

/// A probe's validation.
pub(super) struct Validation {
    /// By metric name, in the metric's unit.
    pub(super) metrics: BTreeMap<String, f64>,
    pub(super) rows: SampleRows,
}

/// A whole image, normalised, and its target.
struct Whole {
    pixels: Vec<f32>,
    size: (usize, usize),
    target: Target,
}

/// Sums of window predictions over an image.
struct Canvas {
    sums: Vec<f32>,
    channels: usize,
    size: (usize, usize),
}

/// Validates every probe on the whole validation split, in one pass over its windows.
pub(super) fn validate(
    encoder: &Encoder<'_>,
    data: &Opened,
    probes: &[(&Probe, &DenseProtocol)],
    workers: usize,
    reporter: &Reporter,
) -> Result<Vec<Validation>, RunError> {
    let pairs = data.set.val.pairs();
    let root = data.set.val.root();
    let Some((_, first)) = probes.first() else { return Ok(Vec::new()) };
    let (sample, evaluation) = (&first.sample, &first.evaluation);
    let make = |i: usize| -> Result<Whole, DenseError> {
        let (image, target) = load(root, &pairs[i], sample.border, data.form)?;
        let (height, width, _) = image.dim();
        let mut pixels = vec![0f32; 3 * height * width];
        normalise_into(image.view(), data.form, sample, &mut pixels);
        Ok(Whole { pixels, size: (height, width), target })
    };
    let mut scores: Vec<Score> = probes.iter().map(|(_, protocol)| Score::new(protocol)).collect();
    let bar = reporter.items("validating", pairs.len() as u64, "images");
    let take = |i: usize, whole: Result<Whole, DenseError>| -> Result<(), RunError> {
        let whole = whole?;
        let places = windows(whole.size.0, whole.size.1, evaluation.window, evaluation.stride);
        let mut canvases: Vec<Canvas> = scores.iter().map(|s| s.canvas(whole.size)).collect();
        for places in places.chunks(encoder.micro_batch) {
            let cut: Vec<Vec<f32>> =
                places.iter().map(|place| window(&whole, place, evaluation.window)).collect();
            let taps = encoder.encode(&cut)?;
            for ((probe, protocol), canvas) in probes.iter().zip(&mut canvases) {
                let side = (evaluation.window, evaluation.window);
                let predicted = probe.predict(&taps_of(&taps, &protocol.feature.blocks), side)?;
                let predicted = predicted.flatten_all().and_then(|p| p.to_vec1::<f32>());
                canvas.add(places, &predicted.map_err(BackboneError::Candle)?, side.0);
            }
        }
        let counts = coverage(&places, whole.size);
        for (score, canvas) in scores.iter_mut().zip(canvases) {
            score.add(&pairs[i].image, canvas, &counts, &whole.target)?;
        }
        bar.set(i as u64 + 1);
        if interrupt::requested() { Err(RunError::Interrupted) } else { Ok(()) }
    };
    ordered(0..pairs.len(), workers, 2 * workers, make, take)?;
    scores.into_iter().map(|score| score.finish(&data.record.name)).collect()
}

/// A window of a normalised image `[3, side, side]`; what lies beyond the edge is 0.
fn window(whole: &Whole, place: &Window, side: usize) -> Vec<f32> {
    let (height, width) = whole.size;
    let mut cut = vec![0f32; 3 * side * side];
    for channel in 0..3 {
        for row in 0..place.height {
            let from = (channel * height + place.top + row) * width + place.left;
            let to = (channel * side + row) * side;
            cut[to..to + place.width].copy_from_slice(&whole.pixels[from..from + place.width]);
        }
    }
    cut
}

/// How many windows cover each pixel.
fn coverage(places: &[Window], (height, width): (usize, usize)) -> Vec<f32> {
    let mut counts = vec![0f32; height * width];
    for place in places {
        for row in place.top..place.top + place.height {
            let from = row * width + place.left;
            counts[from..from + place.width].iter_mut().for_each(|count| *count += 1.0);
        }
    }
    counts
}

impl Canvas {
    /// Adds predictions `[windows, channels, side, side]`.
    fn add(&mut self, places: &[Window], predicted: &[f32], side: usize) {
        let (height, width) = self.size;
        for (place, predicted) in places.iter().zip(predicted.chunks(self.channels * side * side)) {
            for channel in 0..self.channels {
                for row in 0..place.height {
                    let from = (channel * side + row) * side;
                    let to = (channel * height + place.top + row) * width + place.left;
                    let sums = &mut self.sums[to..to + place.width];
                    let more = &predicted[from..from + place.width];
                    sums.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }
}

/// A probe's rows so far.
struct Score<'a> {
    protocol: &'a DenseProtocol,
    rows: SampleRows,
}

impl<'a> Score<'a> {
    fn new(protocol: &'a DenseProtocol) -> Self {
        let rows = match protocol.objective {
            Objective::Depth { .. } => SampleRows::Depth(Vec::new()),
            Objective::Segmentation { .. } => SampleRows::Segmentation(Vec::new()),
        };
        Self { protocol, rows }
    }

    fn canvas(&self, size: (usize, usize)) -> Canvas {
        let channels = heads::dense::outputs(&self.protocol.objective);
        Canvas { sums: vec![0.0; channels * size.0 * size.1], channels, size }
    }

    fn add(
        &mut self,
        path: &str,
        canvas: Canvas,
        counts: &[f32],
        target: &Target,
    ) -> Result<(), RunError> {
        let path = path.to_owned();
        match (&mut self.rows, target, &self.protocol.objective) {
            (SampleRows::Depth(rows), Target::Depth(target), Objective::Depth { min, max }) => {
                let mut map = canvas.sums;
                map.iter_mut().zip(counts).for_each(|(sum, count)| *sum /= count);
                let prediction = shaped(canvas.size, map)?;
                let least = self.protocol.evaluation.min_valid;
                let metrics = depth_metrics(prediction.view(), target.view(), (*min, *max), least);
                rows.push(DepthRow { path, metrics });
            }
            (
                SampleRows::Segmentation(rows),
                Target::Labels(target),
                Objective::Segmentation { classes, ignore },
            ) => {
                let prediction = shaped(canvas.size, argmax(&canvas.sums, *classes))?;
                let counts = ClassCounts::of(prediction.view(), target.view(), *classes, *ignore)?;
                let ClassCounts { intersection, predicted, target } = counts;
                rows.push(SegmentationRow { path, intersection, predicted, target });
            }
            // A data set's targets are all of one kind, which its objective was made from.
            _ => {}
        }
        Ok(())
    }

    fn finish(self, dataset: &str) -> Result<Validation, RunError> {
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
                let classes = heads::dense::outputs(&self.protocol.objective);
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
            SampleRows::Knn(_) => {}
        }
        Ok(Validation { metrics, rows: self.rows })
    }
}

fn shaped<T>(size: (usize, usize), values: Vec<T>) -> Result<Array2<T>, RunError> {
    Array2::from_shape_vec(size, values).map_err(|e| {
        BackboneError::Candle(candle_core::Error::Msg(format!("a map of another size: {e}"))).into()
    })
}

/// The class with the largest sum at each pixel, the first of equal ones.
fn argmax(sums: &[f32], classes: usize) -> Vec<u8> {
    let pixels = sums.len() / classes.max(1);
    let mut best = sums[..pixels].to_vec();
    let mut labels = vec![0u8; pixels];
    for class in 1..classes {
        let sums = &sums[class * pixels..(class + 1) * pixels];
        for ((best, label), &sum) in best.iter_mut().zip(&mut labels).zip(sums) {
            if sum > *best {
                *best = sum;
                *label = class as u8;
            }
        }
    }
    labels
}
