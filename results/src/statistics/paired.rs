//! Two models on the same images.

use std::collections::HashMap;

use rayon::prelude::*;
use schema::random::Stream;

use super::bootstrap::of_difference;
use super::{Interval, Samples};

/// Resamples behind the interval of a difference.
const RESAMPLES: u32 = 2000;
/// Assignments tried where there are too many to try all; the least p-value is one over this.
const ASSIGNMENTS: u32 = 10_000;

/// How far two models are apart in one metric on the same images.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// Number of images; of policies, of episodes that differ in task or number.
    pub images: usize,
    /// The first model's value.
    pub a: f64,
    /// The second's.
    pub b: f64,
    /// 95% interval of `a - b` over images; none as in [`Estimate`](super::Estimate).
    pub interval: Option<Interval>,
    /// Two-sided p-value of the difference: the share of ways to swap the two models' results image
    /// by image with a difference at least as large.
    pub p: f64,
}

/// Why two runs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// One of the runs has images that the other lacks.
    #[error(
        "{only_a} images are in the first run alone and {only_b} in the second, {both} in both"
    )]
    OtherImages {
        /// In the first run alone.
        only_a: usize,
        /// In the second run alone.
        only_b: usize,
        /// In both.
        both: usize,
    },
    /// The metric is not among the rows' metrics.
    #[error("the per-image rows have no metric {wanted}; there are: {}", known.join(", "))]
    NoMetric {
        /// The metric asked for.
        wanted: String,
        /// What the first run's rows have.
        known: Vec<String>,
    },
}

/// Compares two models by a metric. The p-value tries every assignment where there are at most
/// 10,000, else 10,000 random ones with the observed one among them; it is seeded, and the same for
/// every number of threads.
///
/// # Errors
/// [`PairingError`] when the runs are not of the same images or lack the metric.
pub fn paired(a: &Samples, b: &Samples, metric: &str) -> Result<Paired, PairingError> {
    let places: HashMap<&str, usize> = b.paths().iter().map(String::as_str).zip(0..).collect();
    let partners: Vec<usize> =
        a.paths().iter().filter_map(|path| places.get(path.as_str()).copied()).collect();
    let both = partners.len();
    if both != a.images() || both != b.images() {
        let (only_a, only_b) = (a.images() - both, b.images().saturating_sub(both));
        return Err(PairingError::OtherImages { only_a, only_b, both });
    }
    let all: Vec<usize> = (0..both).collect();
    let missing = |samples: &Samples| PairingError::NoMetric {
        wanted: metric.to_owned(),
        known: samples.metrics().map(str::to_owned).collect(),
    };
    let first = a.pick(metric, &all).ok_or_else(|| missing(a))?;
    let second = b.pick(metric, &partners).ok_or_else(|| missing(b))?;
    let images = first.images();
    let value = |of: &Samples| of.value_of(&of.sums(0..images), images);
    Ok(Paired {
        images,
        a: value(&first),
        b: value(&second),
        interval: of_difference(&first, &second, RESAMPLES),
        p: p_value(&first, &second),
    })
}

fn p_value(a: &Samples, b: &Samples) -> f64 {
    let images = a.images();
    let difference = |swapped: &dyn Fn(usize) -> bool| {
        let (mut first, mut second) = (vec![0.0; a.width()], vec![0.0; b.width()]);
        for image in 0..images {
            match swapped(image) {
                false => {
                    a.add(image, &mut first);
                    b.add(image, &mut second);
                }
                true => {
                    a.add(image, &mut second);
                    b.add(image, &mut first);
                }
            }
        }
        (a.value_of(&first, images) - b.value_of(&second, images)).abs()
    };
    let observed = difference(&|_| false);
    if !observed.is_finite() {
        return f64::NAN;
    }
    // Sums in another order differ in their last bits.
    let least = observed * (1.0 - 1e-12);
    let exact =
        1_u32.checked_shl(images as u32).filter(|count| images < 32 && *count <= ASSIGNMENTS);
    let stream = Stream::tagged(0, "sign flips");
    let tried = exact.unwrap_or(ASSIGNMENTS);
    let as_large: u32 = (0..tried)
        .into_par_iter()
        .map(|assignment| {
            let words = match exact {
                Some(_) => vec![assignment],
                // The observed assignment is one of those tried.
                None if assignment == 0 => vec![0; images.div_ceil(32)],
                None => (0..images.div_ceil(128) as u32)
                    .flat_map(|block| stream.at([block, assignment, 0, 0]))
                    .collect(),
            };
            let swapped = |image: usize| (words[image / 32] >> (image % 32)) & 1 == 1;
            u32::from(difference(&swapped) >= least)
        })
        .sum();
    f64::from(as_large) / f64::from(tried)
}
