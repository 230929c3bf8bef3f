use schema::TrainingStage;

/// Learning rate of every step: linear warm-up, then polynomial decay (PROTOCOL section 3).
///
/// The rate is set after each step from that step's index, so step 0 runs at the peak and every
/// other step at the rate of the index before its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    warmup: u64,
    total: u64,
    power: f64,
}

impl Schedule {
    /// A schedule over `total` steps whose first `warmup` indices warm up to `peak`.
    pub fn new(peak: f64, warmup: u64, total: u64, power: f64) -> Self {
        Self { peak, warmup, total, power }
    }

    /// The schedule of `training` over `total` steps; the warm-up's share of them is truncated.
    pub fn of(training: &TrainingStage, total: u64) -> Self {
        let warmup = (training.warmup * total as f64) as u64;
        Self::new(training.learning_rate, warmup, total, training.power)
    }

    /// The rate at which step `step` (from 0) runs; 0 past the end.
    pub fn rate(&self, step: u64) -> f64 {
        let Some(index) = step.checked_sub(1) else {
            return self.peak;
        };
        if index < self.warmup {
            return self.peak * (index as f64 / self.warmup as f64);
        }
        if index >= self.total {
            return 0.0;
        }
        let done = (index - self.warmup) as f64 / (self.total - self.warmup) as f64;
        self.peak * (1.0 - done).powf(self.power)
    }

    /// Number of steps.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(peak: f64, warmup: u64) -> Vec<f64> {
        let schedule = Schedule::new(peak, warmup, 5, 0.9);
        (0..5).map(|step| schedule.rate(step)).collect()
    }

    /// The rates at which the published code ran five steps, to the bit.
    #[test]
    fn rates_are_those_of_the_published_code() {
        assert_eq!(rates(2e-4, 2), [0.0002, 0.0, 0.0001, 0.0002, 0.00013885063253232143]);
        assert_eq!(rates(1e-4, 2), [0.0001, 0.0, 5e-05, 0.0001, 6.942531626616071e-05]);
        let linear =
            [0.0002, 0.0002, 0.00016361042921017168, 0.00012628917349787107, 8.76766581108174e-05];
        assert_eq!(rates(2e-4, 0), linear);
        let dpt =
            [0.0001, 0.0001, 8.180521460508584e-05, 6.314458674893553e-05, 4.38383290554087e-05];
        assert_eq!(rates(1e-4, 0), dpt);
    }

    #[test]
    fn the_warm_up_share_is_truncated_and_the_end_is_zero() {
        let training = TrainingStage {
            revision: 1,
            epochs: 1,
            groups: 1,
            group_size: 1,
            learning_rate: 1.0,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            warmup: 0.1,
            power: 0.9,
        };
        assert_eq!(Schedule::of(&training, 39), Schedule::new(1.0, 3, 39, 0.9));
        assert_eq!(Schedule::of(&training, 5), Schedule::new(1.0, 0, 5, 0.9));
        let all_warm_up = Schedule::of(&TrainingStage { warmup: 1.0, ..training }, 4);
        assert_eq!([1, 4, 5, 9].map(|step| all_warm_up.rate(step)), [0.0, 0.75, 0.0, 0.0]);
    }
}
