//! What every plan must keep to, and how near plans come to the bound.

mod cases;
mod optimum;
mod properties;

use super::*;

pub(super) const GIB: u64 = 1 << 30;

pub(super) fn probe(seconds: f64) -> ProbeCost {
    ProbeCost { seconds, memory: 0 }
}

/// A stream that starts at once, on any device, and divides nothing.
pub(super) fn stream(encode: f64, probes: impl IntoIterator<Item = f64>) -> StreamCost {
    StreamCost {
        fixed: 0.0,
        encode,
        probes: probes.into_iter().map(probe).collect(),
        shared_memory: 0,
        needs: None,
        splittable_encode: false,
    }
}

pub(super) fn equal_devices(count: usize) -> Vec<DeviceCost> {
    vec![DeviceCost { speed: 1.0, memory: 80 * GIB }; count]
}

pub(super) fn ratio(schedule: &Schedule) -> f64 {
    if schedule.makespan > 0.0 { schedule.makespan / schedule.lower_bound } else { 1.0 }
}

/// A generator of its own, so that the cases stay what they are.
pub(super) struct Random(pub u64);

impl Random {
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

/// Asserts what must hold of any plan.
pub(super) fn check(streams: &[StreamCost], devices: &[DeviceCost], schedule: &Schedule) {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()));
    let largest = devices.iter().map(|device| device.memory).max().unwrap();
    let holds = |device: usize, bytes: u64| devices[device].memory >= bytes.min(largest);

    // Every probe once, in a unit that costs what its parts cost.
    for (index, stream) in streams.iter().enumerate() {
        let own: Vec<&Unit> = schedule.units.iter().filter(|unit| unit.stream == index).collect();
        let mut probes: Vec<usize> = own.iter().flat_map(|unit| unit.probes.clone()).collect();
        probes.sort_unstable();
        assert!(probes.into_iter().eq(0..stream.probes.len()));
        assert!(
            !own.is_empty()
                && (stream.splittable_encode || own.len() <= stream.probes.len().max(1))
        );
        let share = if stream.splittable_encode { own.len() as f64 } else { 1.0 };
        for unit in own {
            assert!(unit.probes.is_sorted());
            let probes = unit.probes.iter().map(|&probe| stream.probes[probe]);
            let seconds: f64 = probes.clone().map(|probe| probe.seconds).sum();
            assert!(near(unit.seconds, stream.fixed + stream.encode / share + seconds));
            assert_eq!(unit.memory, stream.shared_memory + probes.map(|p| p.memory).sum::<u64>());
            assert_eq!(unit.oversized, unit.memory > largest);
            assert!(!unit.oversized || unit.probes.len() <= 1);
        }
    }

    // Every unit once, on a device that holds it, after what it waits for.
    let mut slots = vec![None; schedule.units.len()];
    for (device, own) in schedule.devices.iter().enumerate() {
        let mut free = 0.0;
        for slot in own {
            let unit = &schedule.units[slot.unit];
            assert!(holds(device, unit.memory) && slot.start >= free);
            assert!(devices[device].speed >= unit.least_speed);
            assert!(near((slot.end - slot.start) * devices[device].speed, unit.seconds));
            free = slot.end;
            assert!(slots[slot.unit].replace((device, *slot)).is_none());
        }
    }
    let slots: Vec<(usize, Slot)> = slots.into_iter().map(Option::unwrap).collect();
    let mut ends = vec![0.0_f64; streams.len()];
    for (unit, (_, slot)) in schedule.units.iter().zip(&slots) {
        ends[unit.stream] = ends[unit.stream].max(slot.end);
    }
    let open = |stream: usize| streams[stream].needs.map_or(0.0, |needs| ends[needs]);
    for (unit, (_, slot)) in schedule.units.iter().zip(&slots) {
        assert!(slot.start >= open(unit.stream));
    }
    // No worker took a unit while one before it in the queue was to be had.
    for (later, (device, slot)) in slots.iter().enumerate() {
        for (earlier, (_, other)) in slots[..later].iter().enumerate() {
            let unit = &schedule.units[earlier];
            let may = holds(*device, unit.memory) && devices[*device].speed >= unit.least_speed;
            let could = may && open(unit.stream) <= slot.start;
            assert!(!could || other.start <= slot.start, "{earlier} before {later}");
        }
    }

    assert_eq!(schedule.makespan, slots.iter().map(|(_, slot)| slot.end).fold(0.0, f64::max));
    assert!(schedule.lower_bound <= schedule.makespan);
    assert!(schedule.passes.shared <= schedule.passes.alone.max(schedule.units.len()));
    let again = simulate(streams, devices, &schedule.units, |unit| schedule.units[unit].seconds);
    assert_eq!(again, schedule.devices);
}
