//! Intervals by resampling images (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

use std::ops::Range;

use rayon::prelude::*;
use schema::random::Stream;

use super::normal::{below, quantile};
use super::{Interval, LEVEL, Samples};

/// Resamples behind an interval: an end then moves by about 0.05 standard errors with another seed.
const RESAMPLES: u32 = 2000;

/// A value over all images, and the interval around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Name of the metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Its 95% interval; none with fewer than two images (of policies: episodes of each task), where a value is not finite, and where
    /// every resample has the same value, which tells nothing about the spread.
    pub interval: Option<Interval>,
}

/// How an interval follows from resamples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Bias-corrected and accelerated (Efron, "Better bootstrap confidence intervals", 1987), for
    /// means and ratios, whose distribution may be skewed.
    Accelerated,
    /// The percentile interval reflected at the value ("basic"), for the mean IoU. A resample misses
    /// about a third of the classes that one image shows, and a missed class scores 0: resamples lie
    /// as far below the value as the value does below the truth, and reflection takes that back.
    Reflected,
}

/// Every metric with its 95% interval over images. Seeded: the same rows have the same intervals,
/// whatever the number of threads.
pub fn estimates(samples: &Samples) -> Vec<Estimate> {
    estimates_of(samples, RESAMPLES)
}

pub(super) fn estimates_of(samples: &Samples, resamples: u32) -> Vec<Estimate> {
    let values = samples.values();
    let problem = Problem {
        strata: samples.strata(),
        width: samples.width(),
        add: |image, sums: &mut [f64]| samples.add(image, sums),
        value: |sums: &[f64], images| samples.values_of(sums, images),
    };
    let intervals = problem.intervals(&samples.methods().collect::<Vec<_>>(), resamples);
    let named = samples.metrics().zip(values).zip(intervals);
    named
        .map(|((metric, value), interval)| Estimate { metric: metric.to_owned(), value, interval })
        .collect()
}

/// The interval of a difference of two models' first metric over the same images.
pub(super) fn of_difference(a: &Samples, b: &Samples, resamples: u32) -> Option<Interval> {
    let width = a.width();
    let problem = Problem {
        strata: a.strata(),
        width: width + b.width(),
        add: |image, sums: &mut [f64]| {
            let (first, second) = sums.split_at_mut(width);
            a.add(image, first);
            b.add(image, second);
        },
        value: |sums: &[f64], images| {
            let (first, second) = sums.split_at(width);
            vec![a.value_of(first, images) - b.value_of(second, images)]
        },
    };
    let method = a.methods().next()?;
    problem.intervals(&[method], resamples).into_iter().next().flatten()
}

/// Values that follow from sums over images.
struct Problem<Add, Value> {
    /// Images that are drawn in place of one another, one after the other.
    strata: Vec<Range<usize>>,
    /// Number of sums.
    width: usize,
    /// Adds an image to the sums.
    add: Add,
    /// The values of sums over a number of images.
    value: Value,
}

impl<Add, Value> Problem<Add, Value>
where
    Add: Fn(usize, &mut [f64]) + Sync,
    Value: Fn(&[f64], usize) -> Vec<f64> + Sync,
{
    /// One interval a value.
    fn intervals(&self, methods: &[Method], resamples: u32) -> Vec<Option<Interval>> {
        let images = self.strata.last().map_or(0, |last| last.end);
        if images == 0 || self.strata.iter().any(|stratum| stratum.len() < 2) {
            return vec![None; methods.len()];
        }
        let stream = Stream::tagged(0, "bootstrap");
        let replicates: Vec<Vec<f64>> = (0..resamples)
            .into_par_iter()
            .map(|replicate| {
                let mut sums = vec![0.0; self.width];
                for (stratum, number) in self.strata.iter().zip(0..) {
                    draw(&stream, [replicate, number], stratum.len(), |image| {
                        (self.add)(stratum.start + image, &mut sums);
                    });
                }
                (self.value)(&sums, images)
            })
            .collect();
        let mut whole = vec![0.0; self.width];
        (0..images).for_each(|image| (self.add)(image, &mut whole));
        let left_out: Vec<Vec<f64>> = match methods.contains(&Method::Accelerated) {
            true => (0..images).into_par_iter().map(|i| self.without(i, images, &whole)).collect(),
            false => Vec::new(),
        };
        let column = |rows: &[Vec<f64>], at: usize| -> Vec<f64> {
            rows.iter().filter_map(|row| row.get(at).copied()).collect()
        };
        let values = (self.value)(&whole, images);
        let interval = |(at, (method, value)): (usize, (&Method, f64))| {
            let mut replicates = column(&replicates, at);
            if !value.is_finite() || replicates.iter().any(|value| !value.is_finite()) {
                return None;
            }
            replicates.sort_unstable_by(f64::total_cmp);
            if replicates.first() == replicates.last() {
                return None;
            }
            match method {
                Method::Reflected => reflected(value, &replicates),
                Method::Accelerated => {
                    let acceleration = acceleration(&column(&left_out, at), &self.strata);
                    accelerated(value, &replicates, acceleration)
                }
            }
        };
        methods.iter().zip(values).enumerate().map(interval).collect()
    }

    /// The values with one image left out.
    fn without(&self, image: usize, images: usize, whole: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        (self.add)(image, &mut sums);
        sums.iter_mut().zip(whole).for_each(|(one, all)| *one = all - *one);
        (self.value)(&sums, images - 1)
    }
}

/// Calls `take` with `n` places in `0..n`, drawn with replacement for a replicate and stratum.
fn draw(stream: &Stream, [replicate, stratum]: [u32; 2], n: usize, mut take: impl FnMut(usize)) {
    for block in 0..n.div_ceil(4) {
        let words = stream.at([block as u32, replicate, stratum, 0]);
        for word in words.into_iter().take(n - 4 * block) {
            // One place is likelier than another by at most n / 2^32: nothing a resample could show.
            take(((u64::from(word) * n as u64) >> 32) as usize);
        }
    }
}

const TAIL: f64 = (1.0 - LEVEL) / 2.0;

fn reflected(value: f64, sorted: &[f64]) -> Option<Interval> {
    let end = |share| Some(2.0 * value - at_share(sorted, share)?);
    Some(Interval { low: end(1.0 - TAIL)?, high: end(TAIL)? })
}

fn accelerated(value: f64, sorted: &[f64], acceleration: f64) -> Option<Interval> {
    let under = sorted.partition_point(|replicate| *replicate < value);
    let up_to = sorted.partition_point(|replicate| *replicate <= value);
    let count = sorted.len() as f64;
    // Half of the ties count as below. A value at the edge of all replicates has no finite bias.
    let share = (under + up_to) as f64 / 2.0 / count;
    let bias = quantile(share.clamp(0.5 / count, 1.0 - 0.5 / count));
    let end = |share: f64| {
        let z = bias + quantile(share);
        at_share(sorted, below(bias + z / (1.0 - acceleration * z)))
    };
    Some(Interval { low: end(TAIL)?, high: end(1.0 - TAIL)? })
}

/// The acceleration of leaving out one image at a time; with several strata, of influences around each
/// one's mean (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 5.3.2).
fn acceleration(left_out: &[f64], strata: &[Range<usize>]) -> f64 {
    let (mut squares, mut cubes) = (0.0, 0.0);
    for values in strata.iter().filter_map(|stratum| left_out.get(stratum.clone())) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let sum = |power| values.iter().map(|value| (mean - value).powi(power)).sum::<f64>();
        // One image less is more of a small stratum.
        let share = (count - 1.0) / count;
        squares += share.powi(2) * sum(2);
        cubes += share.powi(3) * sum(3);
    }
    if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 }
}

/// The value that a share of sorted values is below, between two of them by interpolation.
fn at_share(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * (sorted.len().checked_sub(1)?) as f64;
    let low = *sorted.get(place.floor() as usize)?;
    let high = *sorted.get(place.ceil() as usize)?;
    Some(low + (high - low) * place.fract())
}
