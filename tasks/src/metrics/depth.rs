use ndarray::ArrayView2;
use schema::DepthMetrics;

/// The nine depth metrics of one image, from a prediction and a target in metres, over the pixels
/// whose target lies in `min..=max` (PROTOCOL section 3, validation). Predictions are not clamped.
///
/// `None` with fewer than `min_valid` such pixels: the image does not count.
pub fn depth_metrics(
    prediction: ArrayView2<'_, f32>,
    target: ArrayView2<'_, f32>,
    (min, max): (f64, f64),
    min_valid: usize,
) -> Option<DepthMetrics> {
    let mut sums = DepthMetrics::default();
    let (mut count, mut error, mut squared_error) = (0usize, 0.0, 0.0);
    for (&prediction, &target) in prediction.iter().zip(target.iter()) {
        let (p, t) = (f64::from(prediction), f64::from(target));
        if !(t > 0.0 && t >= min && t <= max) {
            continue;
        }
        count += 1;
        let ratio = (t / p).max(p / t);
        sums.delta1 += f64::from(ratio < 1.25);
        sums.delta2 += f64::from(ratio < 1.25 * 1.25);
        sums.delta3 += f64::from(ratio < 1.25 * 1.25 * 1.25);
        let difference = p - t;
        sums.abs_rel += difference.abs() / t;
        sums.sq_rel += difference * difference / t;
        sums.rmse += difference * difference;
        let e = p.ln() - t.ln();
        error += e;
        squared_error += e * e;
        sums.log10 += (p.log10() - t.log10()).abs();
    }
    if count < min_valid.max(1) {
        return None;
    }
    let n = count as f64;
    Some(DepthMetrics {
        delta1: sums.delta1 / n,
        delta2: sums.delta2 / n,
        delta3: sums.delta3 / n,
        abs_rel: sums.abs_rel / n,
        sq_rel: sums.sq_rel / n,
        rmse: (sums.rmse / n).sqrt(),
        rmse_log: (squared_error / n).sqrt(),
        log10: sums.log10 / n,
        silog: (squared_error / n - 0.5 * (error / n).powi(2)).max(0.0).sqrt(),
    })
}

/// The mean over images of each metric; `None` without images. (A mean of per-image rmse is not the
/// rmse over all pixels.)
pub fn mean(images: &[DepthMetrics]) -> Option<DepthMetrics> {
    if images.is_empty() {
        return None;
    }
    let of = |field: fn(&DepthMetrics) -> f64| {
        images.iter().map(field).sum::<f64>() / images.len() as f64
    };
    Some(DepthMetrics {
        delta1: of(|m| m.delta1),
        delta2: of(|m| m.delta2),
        delta3: of(|m| m.delta3),
        abs_rel: of(|m| m.abs_rel),
        sq_rel: of(|m| m.sq_rel),
        rmse: of(|m| m.rmse),
        rmse_log: of(|m| m.rmse_log),
        log10: of(|m| m.log10),
        silog: of(|m| m.silog),
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    const RANGE: (f64, f64) = (0.001, 10.0);

    #[test]
    fn a_perfect_prediction_has_no_error() {
        let target = array![[1.0f32, 2.0], [0.0, 5.0]];
        let found = depth_metrics(target.view(), target.view(), RANGE, 1).unwrap();
        let perfect = DepthMetrics { delta1: 1.0, delta2: 1.0, delta3: 1.0, ..Default::default() };
        assert_eq!(found, perfect);
    }

    /// By hand: ratios 2 and 4/3 on the two pixels that count.
    #[test]
    fn pixels_out_of_range_do_not_count() {
        let prediction = array![[2.0f32, 3.0, 9.0, 9.0]];
        let target = array![[1.0f32, 4.0, 0.0, 10.5]];
        let found = depth_metrics(prediction.view(), target.view(), RANGE, 2).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        assert_eq!((found.delta1, found.delta2, found.delta3), (0.0, 0.5, 0.5));
        close(found.abs_rel, (1.0 + 0.25) / 2.0);
        close(found.sq_rel, (1.0 + 0.25) / 2.0);
        close(found.rmse, 1.0);
        close(found.log10, (2f64.log10() + (4f64 / 3.0).log10()) / 2.0);
        let (a, b) = (2f64.ln(), 0.75f64.ln());
        close(found.rmse_log, ((a * a + b * b) / 2.0).sqrt());
        close(found.silog, ((a * a + b * b) / 2.0 - 0.5 * ((a + b) / 2.0).powi(2)).sqrt());
        assert!(depth_metrics(prediction.view(), target.view(), RANGE, 3).is_none());
    }

    #[test]
    fn the_mean_is_over_images() {
        let one = DepthMetrics { rmse: 1.0, ..Default::default() };
        let three = DepthMetrics { rmse: 3.0, delta1: 1.0, ..Default::default() };
        let both = mean(&[one, three]).unwrap();
        assert_eq!((both.rmse, both.delta1), (2.0, 0.5));
        assert!(mean(&[]).is_none());
    }
}
