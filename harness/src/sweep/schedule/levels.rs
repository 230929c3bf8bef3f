//! A bound for devices with different memory.
//!
//! The bound of `bound.rs` lets every unit be as large as the largest device allows. Where devices have
//! less, more passes are due: a unit with probes P of B bytes each, on a device with room for R bytes of
//! them, pays c and cannot have more than R of the stream's bytes, so that it takes at least the sum over
//! P of `h + c B / min(R, bytes of all probes)`. What a probe takes then depends only on the kind of device
//! it is on. For any weights u of the kinds whose sum over all devices of u times speed is 1, the time T
//! of a plan is the weighted mean of what each device could do, and so at least the sum over probes of the
//! least, over kinds, of u times what it takes there. Good weights are looked for; any are valid.

use super::problem::{Devices, Problem, Stream};

/// Ratio of the weights that are tried, one after the other.
const STEP: f64 = 0.87;
/// How many are tried below 1, for each kind of device.
const STEPS: i32 = 24;
/// How often each kind is looked at.
const ROUNDS: usize = 2;

/// A time before which no plan can end, in seconds; 0 where all devices have the same memory.
pub(super) fn lower_bound(problem: &Problem) -> f64 {
    let devices = &problem.devices;
    let kinds = devices.memories.len();
    if kinds == 1 {
        return 0.0;
    }
    let speeds: Vec<f64> = devices
        .memories
        .iter()
        .map(|&memory| {
            let same = devices.all.iter().filter(|device| device.memory == memory);
            same.map(|device| device.speed).sum()
        })
        .collect();
    let tables: Vec<Vec<f64>> =
        problem.streams.iter().map(|stream| seconds(stream, devices)).collect();
    let bound = |weights: &[f64]| {
        let least = |row: &[f64]| {
            row.iter()
                .zip(weights)
                .map(|(seconds, weight)| seconds * weight)
                .fold(f64::INFINITY, f64::min)
        };
        let total: f64 = tables.iter().flat_map(|table| table.chunks(kinds)).map(least).sum();
        total / weights.iter().zip(&speeds).map(|(weight, speed)| weight * speed).sum::<f64>()
    };
    let mut weights = vec![1.0; kinds];
    let mut best = bound(&weights);
    for _ in 0..ROUNDS {
        for kind in 0..kinds {
            for step in 0..STEPS {
                let before = std::mem::replace(&mut weights[kind], STEP.powi(step));
                let found = bound(&weights);
                if found > best {
                    best = found;
                } else {
                    weights[kind] = before;
                }
            }
        }
    }
    best * (1.0 - 1e-9)
}

/// What each probe of a stream, or the stream itself without probes, takes at least on each kind of
/// device; what it takes nowhere is infinite.
fn seconds(stream: &Stream, devices: &Devices) -> Vec<f64> {
    let kinds = devices.memories.len();
    let bytes: f64 = stream.probes.iter().map(|probe| probe.memory as f64).sum();
    let at = |kind: usize, level: usize, memory: u64, seconds: f64| {
        let room = devices.memories[kind].saturating_sub(stream.shared_memory) as f64;
        if kind < level {
            return f64::INFINITY;
        }
        // A probe that fits nowhere has a unit to itself.
        let share = match memory as f64 {
            own if own > room => 1.0,
            own if own > 0.0 => own / room.min(bytes),
            _ if bytes > 0.0 => 0.0,
            _ => 1.0 / stream.probes.len().max(1) as f64,
        };
        seconds + share * stream.cost
    };
    // A load that is divided can be anywhere.
    let mut table = vec![stream.load; kinds];
    if stream.probes.is_empty() {
        table.extend((0..kinds).map(|kind| at(kind, stream.level, 0, 0.0)));
    }
    for probe in &stream.probes {
        table.extend((0..kinds).map(|kind| at(kind, probe.level, probe.memory, probe.seconds)));
    }
    table
}
