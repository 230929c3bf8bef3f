//! From values to places: scales, ticks and their labels.

use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::RangedCoordf64;

/// How values become places between two ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scale {
    Linear {
        low: f64,
        high: f64,
    },
    /// Both ends above 0.
    Log {
        low: f64,
        high: f64,
    },
    /// One place a name, values from 0.
    Names(Vec<String>),
}

impl Scale {
    /// A linear scale over finite values, a little wider than they are.
    pub(super) fn around(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = ends(values).unwrap_or((0.0, 1.0));
        let more = match high - low {
            0.0 => (0.05 * low.abs()).max(0.5),
            range => 0.06 * range,
        };
        Self::Linear { low: low - more, high: high + more }
    }

    /// A linear scale from 0 (or below, where a value is) to a little above the largest value.
    pub(super) fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = ends(values).unwrap_or((0.0, 1.0));
        let (low, high) = (low.min(0.0), high.max(0.0));
        match high - low {
            0.0 => Self::Linear { low: 0.0, high: 1.0 },
            range if low < 0.0 => {
                Self::Linear { low: low - 0.04 * range, high: high + 0.04 * range }
            }
            range => Self::Linear { low, high: high + 0.04 * range },
        }
    }

    /// A scale that keeps values apart that span factors, as learning rates and sizes do.
    pub(super) fn spread(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        match ends(values.iter().copied()) {
            Some((low, high)) if low > 0.0 && high / low > 8.0 => {
                let more = (high / low).powf(0.06);
                Self::Log { low: low / more, high: high * more }
            }
            _ => Self::around(values),
        }
    }

    /// The place of a value between `from` and `to`; outside them for a value outside the scale.
    pub(super) fn place(&self, value: f64, from: f32, to: f32) -> f32 {
        let share = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => (value / low).ln() / (high / low).ln(),
            Self::Names(names) => (value + 0.5) / names.len().max(1) as f64,
        };
        from + share as f32 * (to - from)
    }

    /// At most about `count` round values with their labels, ascending.
    pub(super) fn ticks(&self, count: usize, number: fn(f64) -> String) -> Vec<(f64, String)> {
        match self {
            Self::Linear { low, high } => {
                let scale = RangedCoordf64::from(*low..*high);
                let values: Vec<f64> = scale.key_points(BoldPoints(count));
                let step = values.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
                let label = |value: f64| {
                    // 0 may come as a remainder of rounding.
                    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
                    if step.is_finite() && (1e-5..1e6).contains(&step) && value.abs() < 1e6 {
                        let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
                        format!("{value:.decimals$}")
                    } else {
                        number(value)
                    }
                };
                values.into_iter().map(|value| (value, label(value))).collect()
            }
            Self::Log { low, high } => {
                let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
                let of = |factors: &'static [f64]| {
                    let values = decades.clone().flat_map(move |decade| {
                        factors.iter().map(move |factor| factor * 10f64.powi(decade))
                    });
                    values.filter(|value| (*low..=*high).contains(value)).collect::<Vec<_>>()
                };
                let whole = of(&[1.0]);
                let values = if whole.len() < 3 { of(&[1.0, 2.0, 5.0]) } else { whole };
                values.into_iter().map(|value| (value, number(value))).collect()
            }
            Self::Names(names) => {
                names.iter().enumerate().map(|(i, name)| (i as f64, name.clone())).collect()
            }
        }
    }
}

/// Least and largest of the finite values.
fn ends(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |ends, value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// A number in few characters: `0.001`, `12`, `3e-5`.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e6 => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => {
            let text = format!("{value:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// A count of parameters: `86M`, `1.1B`.
pub(crate) fn counted(value: f64) -> String {
    let (value, unit) = match value {
        1e9.. => (value / 1e9, "B"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    format!("{}{unit}", plain((value * 10.0).round() / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> String {
        let ticks = scale.ticks(6, plain);
        ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round_and_inside() {
        for (scale, text) in [
            (Scale::Linear { low: 0.0, high: 100.0 }, "0 20 40 60 80 100"),
            (Scale::Linear { low: 0.31, high: 0.37 }, "0.32 0.34 0.36"),
            (Scale::Linear { low: -0.5, high: 0.5 }, "-0.4 -0.2 0.0 0.2 0.4"),
            (Scale::Log { low: 8e-6, high: 0.02 }, "1e-5 1e-4 0.001 0.01"),
            (Scale::Log { low: 30.0, high: 600.0 }, "50 100 200 500"),
        ] {
            assert_eq!(labels(&scale), text, "{scale:?}");
        }
    }

    #[test]
    fn scales_hold_their_values_and_odd_ones_do_no_harm() {
        for values in [vec![], vec![f64::NAN], vec![3.0], vec![0.0, 0.0], vec![1.0, f64::INFINITY]]
        {
            for scale in [
                Scale::around(values.clone()),
                Scale::from_zero(values.clone()),
                Scale::spread(values.clone()),
            ] {
                assert!(!scale.ticks(5, plain).is_empty(), "{scale:?} of {values:?}");
                for value in values.iter().filter(|value| value.is_finite()) {
                    let place = scale.place(*value, 0.0, 1.0);
                    assert!((0.0..=1.0).contains(&place), "{value} at {place} of {scale:?}");
                }
            }
        }
        assert!(matches!(Scale::spread([1e-4, 1e-2]), Scale::Log { .. }));
        assert!(matches!(Scale::spread([0.0, 1e-2]), Scale::Linear { .. }));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1e-4, 0.07, 12.0, 1.5e7].map(plain);
        assert_eq!(shown, ["0", "1e-4", "0.07", "12", "1.5e7"]);
        assert_eq!([86e6, 1.1e9, 5300.0].map(counted), ["86M", "1.1B", "5.3k"]);
    }
}
