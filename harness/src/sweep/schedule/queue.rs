//! One queue, many workers: who carries out what, and when.

use std::collections::BTreeSet;

use super::{DeviceCost, Slot, StreamCost, Unit};

/// What a worker takes.
pub(super) struct Work {
    pub unit: usize,
    pub stream: usize,
    /// On a device of speed 1.
    pub seconds: f64,
}

/// Where workers find something to do.
pub(super) trait Source {
    /// The stream may start from now on.
    fn open(&mut self, stream: usize);
    /// Something for a device that is free `now`, of streams that may start.
    fn next(&mut self, device: usize, now: f64) -> Option<Work>;
    /// Whether nothing of the stream is left to be taken.
    fn all_taken(&self, stream: usize) -> bool;
}

/// Lets the devices work until the source gives nothing more. Of several that are free at one time the
/// fastest chooses first, then the one with the most memory, then the first.
pub(super) fn work_off(
    devices: &[DeviceCost],
    needs: &[Option<usize>],
    source: &mut impl Source,
) -> Vec<Vec<Slot>> {
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    for (stream, needs) in needs.iter().enumerate() {
        match *needs {
            Some(needs) if !source.all_taken(needs) => waiting[needs].push(stream),
            _ => source.open(stream),
        }
    }
    let mut order: Vec<usize> = (0..devices.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (devices[a], devices[b]);
        b.speed.total_cmp(&a.speed).then(b.memory.cmp(&a.memory))
    });
    let mut slots: Vec<Vec<Slot>> = vec![Vec::new(); devices.len()];
    let mut busy: Vec<Option<(f64, usize)>> = vec![None; devices.len()];
    let mut running = vec![0_usize; needs.len()];
    let mut now = 0.0;
    loop {
        for &device in &order {
            if busy[device].is_some() {
                continue;
            }
            if let Some(work) = source.next(device, now) {
                let end = now + work.seconds / devices[device].speed;
                slots[device].push(Slot { unit: work.unit, start: now, end });
                busy[device] = Some((end, work.stream));
                running[work.stream] += 1;
            }
        }
        let Some(next) = busy.iter().flatten().map(|&(end, _)| end).min_by(f64::total_cmp) else {
            return slots;
        };
        now = next;
        for device in &mut busy {
            if let Some((_, stream)) = device.take_if(|(end, _)| *end <= now) {
                running[stream] -= 1;
                if running[stream] == 0 && source.all_taken(stream) {
                    waiting[stream].drain(..).for_each(|next| source.open(next));
                }
            }
        }
    }
}

/// A unit, as far as a queue is concerned.
#[derive(Clone, Copy)]
pub(super) struct Queued {
    pub stream: usize,
    pub memory: u64,
    pub least_speed: f64,
    pub seconds: f64,
}

/// Units in a fixed order: a device takes the first that may start and that it may carry out.
pub(super) struct Queue<'a> {
    devices: &'a [DeviceCost],
    largest: u64,
    fastest: f64,
    units: &'a [Queued],
    of_stream: Vec<Vec<usize>>,
    left: Vec<usize>,
    open: BTreeSet<usize>,
}

impl<'a> Queue<'a> {
    pub fn new(streams: usize, devices: &'a [DeviceCost], units: &'a [Queued]) -> Self {
        let mut of_stream = vec![Vec::new(); streams];
        for (index, unit) in units.iter().enumerate() {
            of_stream[unit.stream].push(index);
        }
        Self {
            devices,
            largest: devices.iter().map(|device| device.memory).max().unwrap_or(0),
            fastest: devices.iter().map(|device| device.speed).fold(0.0, f64::max),
            units,
            left: of_stream.iter().map(Vec::len).collect(),
            of_stream,
            open: BTreeSet::new(),
        }
    }
}

impl Source for Queue<'_> {
    fn open(&mut self, stream: usize) {
        self.open.extend(&self.of_stream[stream]);
    }

    fn next(&mut self, device: usize, _: f64) -> Option<Work> {
        let device = self.devices[device];
        let may = |&&unit: &&usize| {
            let unit = &self.units[unit];
            device.memory >= unit.memory.min(self.largest)
                && device.speed >= unit.least_speed.min(self.fastest)
        };
        let unit = *self.open.iter().find(may)?;
        self.open.remove(&unit);
        let Queued { stream, seconds, .. } = self.units[unit];
        self.left[stream] -= 1;
        Some(Work { unit, stream, seconds })
    }

    fn all_taken(&self, stream: usize) -> bool {
        self.left[stream] == 0
    }
}

/// What workers do that take units from one queue, in the order of `units`, as soon as they are free.
///
/// Streams and devices are those the units were planned for; `seconds` says how long a unit, by its
/// index, takes on a device of speed 1. A stream without units counts as ended. What no device may take,
/// and what waits for it, is never done.
pub fn simulate(
    streams: &[StreamCost],
    devices: &[DeviceCost],
    units: &[Unit],
    seconds: impl Fn(usize) -> f64,
) -> Vec<Vec<Slot>> {
    let needs: Vec<_> = streams.iter().map(|stream| stream.needs).collect();
    let units: Vec<_> = units
        .iter()
        .enumerate()
        .map(|(index, unit)| Queued {
            stream: unit.stream,
            memory: unit.memory,
            least_speed: unit.least_speed,
            seconds: seconds(index),
        })
        .collect();
    work_off(devices, &needs, &mut Queue::new(streams.len(), devices, &units))
}

/// End of the last slot, in seconds.
pub fn makespan(devices: &[Vec<Slot>]) -> f64 {
    devices.iter().flatten().map(|slot| slot.end).fold(0.0, f64::max)
}
