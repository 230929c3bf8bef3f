//! Costs, checked and in an order of their own.

use std::cmp::Ordering;

use super::{DeviceCost, ScheduleError, StreamCost, bound};

/// Longest duration that is taken for one, in seconds.
const LONGEST: f64 = 1e12;
/// Slowest device; the fastest is its inverse.
const SLOWEST: f64 = 1e-6;

/// A probe, with its place among those of its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub index: usize,
    pub seconds: f64,
    pub memory: u64,
    /// Devices with less memory than this, an index into [`Devices::memories`], cannot hold it.
    pub level: usize,
}

/// A stream. A unit with probes P takes `cost + share of the load + seconds of P`.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub index: usize,
    /// Paid by every unit, in seconds.
    pub cost: f64,
    /// Divided between the units, in seconds.
    pub load: f64,
    /// Those that only large devices can hold first, then the longest first.
    pub probes: Vec<Probe>,
    /// Seconds of all probes together.
    pub sum: f64,
    /// Seconds of the longest probe; 0 without probes, like the two below.
    pub longest: f64,
    /// Seconds of the shortest.
    pub shortest: f64,
    /// Bytes of the smallest.
    pub least: u64,
    pub shared_memory: u64,
    /// As [`Probe::level`], without any probe.
    pub level: usize,
    pub divides: bool,
    /// Place of the stream that must have ended.
    pub needs: Option<usize>,
    /// No unit can start earlier than this many seconds after the start of everything...
    pub head: f64,
    /// ...nor end later than this many before its end.
    pub tail: f64,
}

impl Stream {
    /// Seconds that all units together take beyond `cost` for each.
    pub fn work(&self) -> f64 {
        self.load + self.sum
    }

    /// Everything that a plan could depend on.
    fn order(&self, other: &Self) -> Ordering {
        let numbers = |s: &Self| [s.tail, s.head, s.cost, s.load, s.sum];
        let rest = |s: &Self| (s.shared_memory, s.divides, s.probes.len());
        let floats = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).map(|(a, b)| b.total_cmp(a)).find(|order| order.is_ne())
        };
        let probes = || {
            let mut pairs = self.probes.iter().zip(&other.probes);
            pairs.find_map(|(a, b)| Some(a.order(b)).filter(|order| order.is_ne()))
        };
        floats(&numbers(self), &numbers(other))
            .unwrap_or_else(|| rest(self).cmp(&rest(other)))
            .then_with(|| probes().unwrap_or(Ordering::Equal))
            .then(self.index.cmp(&other.index))
    }
}

impl Probe {
    fn order(&self, other: &Self) -> Ordering {
        let by_size = other.level.cmp(&self.level).then(other.seconds.total_cmp(&self.seconds));
        by_size.then(other.memory.cmp(&self.memory))
    }
}

/// The devices, and what is common to them.
#[derive(Clone, Debug)]
pub(super) struct Devices {
    /// The fastest first, then those with the most memory.
    pub all: Vec<DeviceCost>,
    /// Index of each as it was given.
    pub indices: Vec<usize>,
    /// Distinct, ascending.
    pub memories: Vec<u64>,
    /// Distinct, ascending.
    pub speeds: Vec<f64>,
}

impl Devices {
    fn new(all: &[DeviceCost]) -> Result<Self, ScheduleError> {
        if all.is_empty() {
            return Err(ScheduleError::NoDevice);
        }
        for (device, cost) in all.iter().enumerate() {
            if !(SLOWEST..=1.0 / SLOWEST).contains(&cost.speed) {
                return Err(ScheduleError::Speed { device, found: cost.speed });
            }
        }
        let mut indices: Vec<usize> = (0..all.len()).collect();
        indices.sort_by(|&a, &b| {
            let (a, b) = (all[a], all[b]);
            b.speed.total_cmp(&a.speed).then(b.memory.cmp(&a.memory))
        });
        let all: Vec<DeviceCost> = indices.iter().map(|&index| all[index]).collect();
        let mut memories: Vec<u64> = all.iter().map(|device| device.memory).collect();
        memories.sort_unstable();
        memories.dedup();
        let mut speeds: Vec<f64> = all.iter().map(|device| device.speed).collect();
        speeds.sort_unstable_by(f64::total_cmp);
        speeds.dedup();
        Ok(Self { all, indices, memories, speeds })
    }

    /// Most memory of any.
    pub fn largest(&self) -> u64 {
        self.memories.last().copied().unwrap_or(0)
    }

    /// Highest speed of any.
    pub fn fastest(&self) -> f64 {
        self.speeds.last().copied().unwrap_or(0.0)
    }

    /// Whether something of so many bytes may run on a device: if it fits, or if it fits none and
    /// this is one of the largest.
    pub fn may_hold(&self, device: usize, bytes: u64) -> bool {
        self.all[device].memory >= bytes.min(self.largest())
    }

    fn level(&self, bytes: u64) -> usize {
        self.memories.partition_point(|&memory| memory < bytes.min(self.largest()))
    }
}

/// What is to be planned.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// By falling tail; the rest of the order depends on costs alone.
    pub streams: Vec<Stream>,
    pub devices: Devices,
}

impl Problem {
    pub fn new(costs: &[StreamCost], devices: &[DeviceCost]) -> Result<Self, ScheduleError> {
        let devices = Devices::new(devices)?;
        let mut streams = Vec::with_capacity(costs.len());
        for (index, cost) in costs.iter().enumerate() {
            check(index, cost, costs.len())?;
            streams.push(stream(index, cost, &devices));
        }
        reach(&mut streams, &devices)?;

        streams.sort_by(Stream::order);
        let mut places = vec![0; streams.len()];
        for (place, stream) in streams.iter().enumerate() {
            places[stream.index] = place;
        }
        for stream in &mut streams {
            stream.needs = stream.needs.map(|index| places[index]);
        }
        Ok(Self { streams, devices })
    }
}

fn check(stream: usize, cost: &StreamCost, streams: usize) -> Result<(), ScheduleError> {
    let named = [("fixed", cost.fixed), ("encode", cost.encode)];
    let probes = cost.probes.iter().map(|probe| ("a probe", probe.seconds));
    for (what, found) in named.into_iter().chain(probes) {
        if !(0.0..=LONGEST).contains(&found) {
            return Err(ScheduleError::Seconds { stream, what, found });
        }
    }
    match cost.needs {
        Some(needs) if needs >= streams => Err(ScheduleError::Needs { stream, needs, streams }),
        _ => Ok(()),
    }
}

fn stream(index: usize, cost: &StreamCost, devices: &Devices) -> Stream {
    let probe = |(index, probe): (usize, &super::ProbeCost)| Probe {
        index,
        seconds: probe.seconds,
        memory: probe.memory,
        level: devices.level(cost.shared_memory.saturating_add(probe.memory)),
    };
    let mut probes: Vec<Probe> = cost.probes.iter().enumerate().map(probe).collect();
    probes.sort_by(Probe::order);
    let (own, divided) = match cost.splittable_encode {
        true => (0.0, cost.encode),
        false => (cost.encode, 0.0),
    };
    let seconds = || probes.iter().map(|probe| probe.seconds);
    Stream {
        index,
        cost: cost.fixed + own,
        load: divided,
        sum: seconds().sum(),
        longest: seconds().fold(0.0, f64::max),
        shortest: seconds().min_by(f64::total_cmp).unwrap_or(0.0),
        least: probes.iter().map(|probe| probe.memory).min().unwrap_or(0),
        shared_memory: cost.shared_memory,
        level: devices.level(cost.shared_memory),
        divides: cost.splittable_encode,
        needs: cost.needs,
        head: 0.0,
        tail: 0.0,
        probes,
    }
}

/// Fills in heads and tails: bounds of the chains before and after each stream.
fn reach(streams: &mut [Stream], devices: &Devices) -> Result<(), ScheduleError> {
    // A stream before those that need it.
    let mut order = Vec::with_capacity(streams.len());
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); streams.len()];
    for (index, stream) in streams.iter().enumerate() {
        match stream.needs {
            Some(needs) => waiting[needs].push(index),
            None => order.push(index),
        }
    }
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        order.extend(&waiting[index]);
        next += 1;
    }
    if order.len() < streams.len() {
        let mut stream = (0..streams.len()).find(|index| !order.contains(index)).unwrap_or(0);
        // It may only wait for the circle: after so many steps it is on it.
        for _ in 0..streams.len() {
            stream = streams[stream].needs.unwrap_or(stream);
        }
        return Err(ScheduleError::Circle { stream });
    }

    let chained = |index: usize| streams[index].needs.is_some() || !waiting[index].is_empty();
    let alone: Vec<f64> = (0..streams.len())
        .map(|index| if chained(index) { bound::alone(&streams[index], devices) } else { 0.0 })
        .collect();
    for &index in &order {
        if let Some(needs) = streams[index].needs {
            streams[index].head = streams[needs].head + alone[needs];
        }
    }
    for &index in order.iter().rev() {
        if let Some(needs) = streams[index].needs {
            let tail = streams[index].tail + alone[index];
            streams[needs].tail = streams[needs].tail.max(tail);
        }
    }
    Ok(())
}
