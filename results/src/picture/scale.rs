//! Colour scales with round ends.

use super::Rgb;

/// From `first * step` to `last * step`, with a tick at each step between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    step: f64,
    first: i64,
    last: i64,
    decimals: usize,
}

impl Scale {
    /// The smallest scale over `low..=high` (both finite, at least 0) whose ends are ticks; about
    /// five steps of 1, 2 or 5 times a power of ten. A single value gets some room on both sides.
    pub(super) fn over(low: f64, high: f64) -> Self {
        let room = 0.05 * high.max(0.1);
        let (low, high) = if high - low < 0.02 * room {
            ((low - room).max(0.0), high + room)
        } else {
            (low, high)
        };
        let raw = (high - low) / 5.0;
        let power = raw.log10().floor() as i32;
        let (factor, power) = [(1, power), (2, power), (5, power), (1, power + 1)]
            .into_iter()
            .find(|&(factor, power)| f64::from(factor) * 10_f64.powi(power) >= raw * (1.0 - 1e-9))
            .unwrap_or((1, power + 1));
        let step = f64::from(factor) * 10_f64.powi(power);
        let first = (low / step + 1e-6).floor() as i64;
        let last = ((high / step - 1e-6).ceil() as i64).max(first + 1);
        Self { step, first, last, decimals: (-power).max(0) as usize }
    }

    /// The lower end.
    pub(super) fn low(&self) -> f64 {
        self.first as f64 * self.step
    }

    /// The upper end.
    pub(super) fn high(&self) -> f64 {
        self.last as f64 * self.step
    }

    /// Where a value lies, 0 at the lower and 1 at the upper end; values beyond lie on the ends.
    pub(super) fn position(&self, value: f64) -> f64 {
        ((value - self.low()) / (self.high() - self.low())).clamp(0.0, 1.0)
    }

    /// Positions and words of every `every`-th tick.
    pub(super) fn ticks(&self, every: usize) -> Vec<(f64, String)> {
        (self.first..=self.last)
            .step_by(every.max(1))
            .map(|tick| {
                let place = (tick - self.first) as f64 / (self.last - self.first) as f64;
                (place, format!("{:.*}", self.decimals, tick as f64 * self.step))
            })
            .collect()
    }
}

/// A colour for a position in 0..=1.
pub(super) type ColourMap = fn(f64) -> Rgb;

/// Viridis, from blue to yellow.
pub(super) fn viridis(position: f64) -> Rgb {
    colorous::VIRIDIS.eval_continuous(position).into_array()
}

/// Magma, from black to pale yellow.
pub(super) fn magma(position: f64) -> Rgb {
    colorous::MAGMA.eval_continuous(position).into_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(low: f64, high: f64) -> String {
        let ticks = Scale::over(low, high).ticks(1);
        ticks.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ends_are_round_and_cover_the_values() {
        assert_eq!(words(0.0, 10.0), "0 2 4 6 8 10");
        assert_eq!(words(0.71, 9.3), "0 2 4 6 8 10");
        assert_eq!(words(1.2, 3.4), "1.0 1.5 2.0 2.5 3.0 3.5");
        assert_eq!(words(0.0, 0.013), "0.000 0.005 0.010 0.015");
        assert_eq!(words(4.0, 80.0), "0 20 40 60 80");
        for (low, high) in [(0.0, 1e-6), (3.0, 3.0), (0.0, 0.0), (79.99, 80.0), (0.3, 0.9)] {
            let scale = Scale::over(low, high);
            assert!(scale.low() <= low + 1e-9 && scale.high() >= high - 1e-9, "{low}..{high}");
            assert!(scale.low() < scale.high());
            assert!((2..=8).contains(&scale.ticks(1).len()), "{scale:?}");
        }
        assert_eq!(words(3.0, 3.0), "2.8 2.9 3.0 3.1 3.2");
    }

    #[test]
    fn positions_are_linear_and_end_at_the_ends() {
        let scale = Scale::over(0.0, 10.0);
        assert_eq!(scale.position(2.5), 0.25);
        assert_eq!((scale.position(-1.0), scale.position(99.0)), (0.0, 1.0));
        assert_eq!(scale.ticks(5), [(0.0, "0".into()), (1.0, "10".into())]);
    }

    #[test]
    fn maps_have_their_published_ends() {
        assert_eq!((viridis(0.0), viridis(1.0)), ([0x44, 0x01, 0x54], [0xfd, 0xe7, 0x25]));
        assert_eq!((magma(0.0), magma(1.0)), ([0x00, 0x00, 0x04], [0xfc, 0xfd, 0xbf]));
    }
}
