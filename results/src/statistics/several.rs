//! Several tests, several seeds, several models.

use schema::Direction;

/// Holm's step-down correction (Holm, "A simple sequentially rejective multiple test procedure",
/// 1979): p-values, in the given order, that may each be held against one level. NaN stays NaN and
/// counts as no test.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&at| !p[at].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut corrected = vec![f64::NAN; p.len()];
    let mut least = 0.0_f64;
    for (done, &at) in order.iter().enumerate() {
        least = least.max((order.len() - done) as f64 * p[at]).min(1.0);
        corrected[at] = least;
    }
    corrected
}

/// Mean and standard deviation (with n - 1) of a metric over seeds; no deviation of one seed. This
/// is the spread of training again, which is not the spread over images of an interval.
pub fn mean_sd(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let count = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt())))
}

/// Ranks of values, best 1; equal values share the mean of their ranks.
pub fn ranks(values: &[f64], direction: Direction) -> Vec<f64> {
    let better = |a: f64, b: f64| match direction {
        Direction::Up => a > b,
        Direction::Down => a < b,
    };
    let rank = |&value: &f64| {
        let ahead = values.iter().filter(|&&other| better(other, value)).count() as f64;
        let alike = values.iter().filter(|&&other| other == value).count() as f64;
        ahead + (alike + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_steps_down_and_keeps_the_order() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005, f64::NAN, 0.9]);
        let expected = [0.04, 0.09, 0.09, 0.025, f64::NAN, 0.9];
        for (found, wanted) in corrected.iter().zip(expected) {
            assert!(
                (found - wanted).abs() < 1e-12 || found.is_nan() && wanted.is_nan(),
                "{corrected:?}"
            );
        }
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(mean_sd(&[]), None);
        assert_eq!(mean_sd(&[3.5]), Some((3.5, None)));
        assert_eq!(mean_sd(&[1.0, 2.0, 3.0, 6.0]), Some((3.0, Some((14.0_f64 / 3.0).sqrt()))));
    }

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[0.3, 0.2, 0.3, 0.5], Direction::Down), [2.5, 1.0, 2.5, 4.0]);
        assert_eq!(ranks(&[0.3, 0.2, 0.3, 0.5], Direction::Up), [2.5, 4.0, 2.5, 1.0]);
    }
}
