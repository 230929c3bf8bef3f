//! Drawing the random parts of a scene, one after another.

use super::vector::{Turn, Vec3, vec3};
use crate::random::Stream;

/// A sequence of draws that belongs to one picture.
pub(super) struct Draw {
    stream: Stream,
    next: u32,
}

impl Draw {
    pub fn new(seed: u64, tag: &str) -> Self {
        Self { stream: Stream::tagged(seed, tag), next: 0 }
    }

    fn counter(&mut self) -> [u32; 4] {
        self.next += 1;
        [self.next, 0, 0, 0]
    }

    /// Uniform in `low..high`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        let counter = self.counter();
        low + (high - low) * self.stream.uniform(counter)
    }

    /// Uniform in `0..n`.
    pub fn pick(&mut self, n: usize) -> usize {
        let counter = self.counter();
        self.stream.below(counter, n as u64) as usize
    }

    pub fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.pick(N)]
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.range(0.0, 1.0) < probability
    }

    pub fn word(&mut self) -> u32 {
        let counter = self.counter();
        self.stream.at(counter)[0]
    }

    /// A turn of up to a quarter either way times `extent`.
    pub fn turn(&mut self, extent: f64) -> Turn {
        Turn::half_tangent(self.range(-extent, extent))
    }

    /// A colour of a hue in turns (0 red, 1/3 green, 2/3 blue) with drawn strength.
    pub fn hue(&mut self, hue: f64, saturation: (f64, f64), value: (f64, f64)) -> Vec3 {
        let saturation = self.range(saturation.0, saturation.1);
        let value = self.range(value.0, value.1);
        colour(hue, saturation, value)
    }

    /// A colour of any hue.
    pub fn any(&mut self, saturation: (f64, f64), value: (f64, f64)) -> Vec3 {
        let hue = self.range(0.0, 1.0);
        self.hue(hue, saturation, value)
    }
}

/// Hue (turns), saturation and value to a linear colour (gamma 2).
pub(super) fn colour(hue: f64, saturation: f64, value: f64) -> Vec3 {
    let channel = |offset: f64| {
        let turn = hue + offset;
        let ramp = ((turn - turn.floor()) * 6.0 - 3.0).abs() - 1.0;
        let shown = value * (1.0 - saturation * (1.0 - ramp.clamp(0.0, 1.0)));
        shown * shown
    };
    vec3(channel(0.0), channel(2.0 / 3.0), channel(1.0 / 3.0))
}
