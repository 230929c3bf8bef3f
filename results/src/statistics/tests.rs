use proptest::prelude::*;
use schema::{DepthMetrics, DepthRow, SampleRows, SegmentationRow, Selection};
use serde::Deserialize;

use super::bootstrap::{estimates_of, of_difference};
use super::*;

/// Written by results/scripts/statistics_vectors.py from numpy and scipy.
#[derive(Deserialize)]
struct Vectors {
    few: Means,
    many: Means,
    segmentation: Segmentation,
    normal: Vec<[f64; 2]>,
}

#[derive(Deserialize)]
struct Means {
    a: Vec<f64>,
    b: Vec<f64>,
    mean: f64,
    interval: [f64; 2],
    difference: [f64; 2],
    p: f64,
}

#[derive(Deserialize)]
struct Segmentation {
    intersection: Vec<Vec<u64>>,
    predicted: Vec<Vec<u64>>,
    target: Vec<Vec<u64>>,
    miou: f64,
    miou_interval: [f64; 2],
    pixel_acc: f64,
    pixel_acc_interval: [f64; 2],
}

/// So many that an end moves by less than the tolerance of [`near`].
const MANY: u32 = 100_000;

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

/// Depth rows whose rmse are these.
fn depth(rmse: &[f64]) -> Samples {
    let row = |(i, rmse): (usize, &f64)| DepthRow {
        path: format!("{i}.jpg"),
        metrics: Some(DepthMetrics { rmse: *rmse, ..DepthMetrics::default() }),
    };
    Samples::new(&SampleRows::Depth(rmse.iter().enumerate().map(row).collect()))
}

fn segmentation(of: &Segmentation) -> SampleRows {
    let row = |i: usize| SegmentationRow {
        path: format!("{i}.jpg"),
        intersection: of.intersection[i].clone(),
        predicted: of.predicted[i].clone(),
        target: of.target[i].clone(),
    };
    SampleRows::Segmentation((0..of.target.len()).map(row).collect())
}

fn estimate(estimates: &[Estimate], metric: &str) -> Estimate {
    estimates.iter().find(|estimate| estimate.metric == metric).unwrap().clone()
}

fn near(found: Option<Interval>, expected: [f64; 2]) {
    let found = found.unwrap();
    let width = expected[1] - expected[0];
    let off = (found.low - expected[0]).abs().max((found.high - expected[1]).abs());
    assert!(off < 0.01 * width, "{found:?} is not {expected:?}");
}

#[test]
fn intervals_of_means_are_those_of_scipy() {
    for vector in [vectors().few, vectors().many] {
        let samples = depth(&vector.a);
        let rmse = estimate(&estimates_of(&samples, MANY), "rmse");
        assert!((rmse.value - vector.mean).abs() < 1e-12);
        near(rmse.interval, vector.interval);
        let images: Vec<usize> = (0..vector.a.len()).collect();
        let [a, b] = [samples, depth(&vector.b)].map(|s| s.pick("rmse", &images).unwrap());
        near(of_difference(&a, &b, MANY), vector.difference);
    }
}

#[test]
fn intervals_of_segmentation_are_those_of_scipy() {
    let vector = vectors().segmentation;
    let found = estimates_of(&Samples::new(&segmentation(&vector)), MANY);
    let (miou, pixels) = (estimate(&found, "miou"), estimate(&found, "pixel_acc"));
    assert!((miou.value - vector.miou).abs() < 1e-9);
    assert!((pixels.value - vector.pixel_acc).abs() < 1e-9);
    near(miou.interval, vector.miou_interval);
    near(pixels.interval, vector.pixel_acc_interval);
}

#[test]
fn p_values_are_those_of_scipy() {
    let Vectors { few, many, normal, .. } = vectors();
    let p = |of: &Means| paired(&depth(&of.a), &depth(&of.b), "rmse").unwrap().p;
    // Ten images: every assignment, so the two agree to the last digits.
    assert!((p(&few) - few.p).abs() < 1e-12, "{} {}", p(&few), few.p);
    // Four standard deviations of 10,000 and 200,000 random assignments.
    let tolerance = 4.0 * (many.p * (1.0 - many.p) * (1e-4 + 5e-6)).sqrt();
    assert!((p(&many) - many.p).abs() < tolerance, "{} {}", p(&many), many.p);
    for [z, share] in normal {
        assert!((normal::below(z) - share).abs() < 1e-14);
    }
}

#[test]
fn what_resampling_cannot_tell_has_no_interval() {
    let none = |rmse: &[f64]| {
        let found = estimate(&estimates(&depth(rmse)), "rmse");
        assert_eq!(found.interval, None, "{rmse:?}");
    };
    none(&[]);
    none(&[0.5]);
    none(&[0.5, 0.5, 0.5]);
    none(&[0.5, f64::NAN, 0.25]);
    none(&[0.5, f64::INFINITY, 0.25]);
    assert!(estimate(&estimates(&depth(&[0.5, 0.25])), "rmse").interval.is_some());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let vector = vectors();
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let samples = Samples::new(&segmentation(&vector.segmentation));
            let (a, b) = (depth(&vector.many.a), depth(&vector.many.b));
            (estimates(&samples), paired(&a, &b, "rmse").unwrap())
        })
    };
    assert_eq!(of(1), of(3));
}

#[test]
fn pairs_go_by_path_and_only_over_the_same_images() {
    let Means { a, b, .. } = vectors().few;
    let rows = |rmse: &[f64], order: &[usize]| {
        let row = |&i: &usize| DepthRow {
            path: format!("{i}.jpg"),
            metrics: Some(DepthMetrics { rmse: rmse[i], ..DepthMetrics::default() }),
        };
        Samples::new(&SampleRows::Depth(order.iter().map(row).collect()))
    };
    let turned: Vec<usize> = (0..10).rev().collect();
    let straight = paired(&depth(&a), &depth(&b), "rmse").unwrap();
    assert_eq!(paired(&depth(&a), &rows(&b, &turned), "rmse").unwrap(), straight);
    let fewer = paired(&depth(&a), &rows(&b, &turned[..7]), "rmse").unwrap_err();
    insta::assert_snapshot!(fewer, @"3 images are in the first run alone and 0 in the second, 7 in both");
    let other = paired(&depth(&a), &depth(&b), "miou").unwrap_err();
    insta::assert_snapshot!(other, @"the per-image rows have no metric miou; there are: delta1, delta2, delta3, abs_rel, sq_rel, rmse, rmse_log, log10, silog");
}

#[test]
fn swapping_segmentation_counts_finds_a_better_model() {
    let vector = vectors().segmentation;
    let mut worse = vector.intersection.clone();
    worse.iter_mut().flatten().for_each(|count| *count = *count * 9 / 10);
    let worse = Segmentation { intersection: worse, ..vectors().segmentation };
    let [a, b] = [&vector, &worse].map(|of| Samples::new(&segmentation(of)));
    let found = paired(&a, &b, "miou").unwrap();
    assert!(found.p <= 1e-4 && found.interval.unwrap().low > 0.0, "{found:?}");
    let alike = paired(&a, &a, "miou").unwrap();
    assert_eq!((alike.p, alike.a - alike.b, alike.interval), (1.0, 0.0, None));
}

#[test]
fn an_interval_is_given_to_the_epoch_the_rows_are_of() {
    let rows = [0.5, 0.25, 0.75].map(|rmse| DepthMetrics { rmse, ..DepthMetrics::default() });
    let rows = rows
        .into_iter()
        .enumerate()
        .map(|(i, metrics)| DepthRow { path: i.to_string(), metrics: Some(metrics) });
    let metric = |value, selection| MetricValue {
        name: "rmse".to_owned(),
        value,
        ci_low: None,
        ci_high: None,
        selection,
    };
    let mut metrics = [metric(0.5, Selection::Last), metric(0.4, Selection::Best)];
    attach(&mut metrics, &SampleRows::Depth(rows.collect()));
    assert!(metrics[0].ci_low.unwrap() < 0.5 && metrics[0].ci_high.unwrap() > 0.5);
    assert_eq!(metrics[1].ci_low, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn swapped_models_have_the_same_p_and_the_turned_difference(
        pairs in proptest::collection::vec((0.0..10.0_f64, 0.0..10.0_f64), 2..20),
    ) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let forth = paired(&depth(&a), &depth(&b), "rmse").unwrap();
        let back = paired(&depth(&b), &depth(&a), "rmse").unwrap();
        prop_assert_eq!((forth.a, forth.b, forth.p), (back.b, back.a, back.p));
        prop_assert!(forth.p > 0.0 && forth.p <= 1.0);
        if let Some(interval) = forth.interval {
            prop_assert!(interval.low <= interval.high);
        }
    }
}
