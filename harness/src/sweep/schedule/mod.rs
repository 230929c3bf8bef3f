//! The plan on paper: which probes share a pass of the encoder, and in which order units are taken.
//!
//! A **stream** is one pass of an encoder over the data; its **probes** (cells) ride on it. A **unit**
//! is what one worker carries out at a time: a stream with some of its probes. A stream that is split
//! over several units pays its start-up and its pass again in each. Workers have no fixed share: each
//! takes the first unit of one queue that fits its device, is not too long for its speed, and may start.
//!
//! [`schedule`] tries to end early. Its plan does not depend on the order of its input, except where
//! two streams, probes or devices are equal.

mod bound;
mod fill;
mod levels;
mod plan;
mod problem;
mod queue;
mod show;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use plan::schedule;
pub use queue::{makespan, simulate};
pub use show::{Names, describe};

/// What a probe costs on top of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeCost {
    /// Its own training, validation or vote on a device of speed 1, in seconds.
    pub seconds: f64,
    /// Bytes it holds on the device.
    pub memory: u64,
}

/// What a stream costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamCost {
    /// Start-up on a device of speed 1, in seconds: loading the encoder, opening the data.
    pub fixed: f64,
    /// The encoder's pass over everything the stream needs, on a device of speed 1, in seconds.
    pub encode: f64,
    /// The probes; none for a stream that only extracts features.
    pub probes: Vec<ProbeCost>,
    /// Bytes that every unit holds whatever its probes: weights, activations, taps, the largest step.
    pub shared_memory: u64,
    /// The stream, by its index, that must have ended before this one starts.
    pub needs: Option<usize>,
    /// Whether the units of this stream divide the pass between them instead of each making its own,
    /// as processes do that share the shards of an extraction. What needs all of the features is then
    /// a stream of its own that needs this one.
    pub splittable_encode: bool,
}

/// What a device can do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceCost {
    /// Work done in a second, as a multiple of what the seconds of streams and probes mean.
    pub speed: f64,
    /// Bytes.
    pub memory: u64,
}

/// Some probes of one stream, for one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Index of the stream.
    pub stream: usize,
    /// Indices of probes of the stream, ascending.
    pub probes: Vec<usize>,
    /// Start-up, pass (or share of it) and probes on a device of speed 1, in seconds.
    pub seconds: f64,
    /// Bytes it needs.
    pub memory: u64,
    /// A slower device leaves it to the others: it would end too late.
    pub least_speed: f64,
    /// Needs more than any device has: a probe that does not fit even alone. It is planned for the
    /// devices with the most memory.
    pub oversized: bool,
}

/// When a device carries out a unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Index of the unit.
    pub unit: usize,
    /// Seconds from the start of the sweep.
    pub start: f64,
    /// Seconds from the start of the sweep.
    pub end: f64,
}

/// Passes of encoders over their data. Units that divide one pass between them make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    /// As planned.
    pub shared: usize,
    /// With every cell run alone, from nothing.
    pub alone: usize,
}

/// Units, and when they are expected to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// In the order of the queue.
    pub units: Vec<Unit>,
    /// What each device is expected to do, in the order of its start.
    pub devices: Vec<Vec<Slot>>,
    /// Expected end of the last unit, in seconds.
    pub makespan: f64,
    /// No way of splitting and ordering can end before, in seconds.
    pub lower_bound: f64,
    /// Passes of encoders.
    pub passes: Passes,
}

/// Costs that no plan can be made of.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// Nothing to run on.
    #[error("expected at least one device, found none")]
    NoDevice,
    /// Not a speed.
    #[error("device {device}: expected a speed from 1e-6 to 1e6, found {found}")]
    Speed {
        /// Index of the device.
        device: usize,
        /// Its speed.
        found: f64,
    },
    /// Not a duration.
    #[error("stream {stream}: expected {what} of 0 to 1e12 seconds, found {found}")]
    Seconds {
        /// Index of the stream.
        stream: usize,
        /// `fixed`, `encode` or `a probe`.
        what: &'static str,
        /// What was given.
        found: f64,
    },
    /// Waits for something that is not there.
    #[error("stream {stream} needs stream {needs}, but there are {streams}")]
    Needs {
        /// Index of the stream.
        stream: usize,
        /// What it waits for.
        needs: usize,
        /// How many there are.
        streams: usize,
    },
    /// Waits for itself.
    #[error("stream {stream} needs, over other streams or at once, itself")]
    Circle {
        /// Index of the stream.
        stream: usize,
    },
}
