//! A time before which no plan can end.
//!
//! [`impossible`] says of a time T that nothing can end by it; the largest T found so is the bound.
//! Write `c` for what every unit of a stream pays, `L` for the rest of the stream's work, `w` for its
//! window (T less the chains before and after it, which only one another's end allow to start) and `s`
//! for the highest speed. Suppose a plan ends by T. Then:
//!
//! 1. *Window.* A probe of `h` seconds runs in a unit of at least `c + h` seconds, on one device,
//!    within the window: `c + h <= s w`.
//! 2. *Area.* A unit has room for at most `s w - c` of L, so a stream has at least
//!    `m = ceil(L / (s w - c))` units, and not fewer than its probes' memory needs. Each pays c: the
//!    devices spend at least `m c + L` on the stream, and over all streams at most `T * sum of speeds`.
//!    Streams that must all have ended `b` before the end have only `T - b`, and likewise at the start.
//! 3. *Packing.* For any `a > 0`, a device that is busy for `x <= s_d T` with units (or shares of units)
//!    of sizes `x_1 + x_2 + ...` has `sum of floor(x_i / a) <= floor(s_d T / a)`, since floor(y) + floor(z)
//!    <= floor(y + z). So the sum over everything is at most the sum of floor(s_d T / a) over devices.
//!    Sizes that hold whatever the plan is:
//!    - a probe with its share of c: a unit with load X <= min(s w - c, L) takes c + X >= X (1 + c /
//!      min(s w - c, L)), so that each probe stands for h (1 + c / min(s w - c, L));
//!    - or units as a whole where c >= a: k of them take k c + L in all, and lose less than one by each
//!      rounding, so that they count at least floor((k c + L) / a) - (k - 1), and at least k floor(c / a).
//!      Both grow with k, and k >= m.
//!
//! All this holds as well for the probes that only some devices can carry out (for their memory, or for
//! their speed within T) and these devices alone. More memory than is there, or another order, changes
//! none of it.

use super::problem::{Devices, Probe, Problem, Stream};
use super::{DeviceCost, levels};

/// Halvings of the interval that holds the bound.
const HALVINGS: usize = 40;
/// How often something must fit a device for packing to gain nothing over area: a ninth at most.
const AT_ONCE: usize = 8;
/// Keeps a rounding error from proving anything.
const EPSILON: f64 = 1e-9;

/// A lower bound of the makespan, given that of some plan, in seconds.
pub(super) fn lower_bound(problem: &Problem, reached: f64) -> f64 {
    let bound = search(&problem.streams, &problem.devices, reached);
    bound.max(levels::lower_bound(problem).min(reached))
}

/// The same for one stream with every device to itself.
pub(super) fn alone(stream: &Stream, devices: &Devices) -> f64 {
    let reached =
        (stream.probes.len().max(1) as f64 * stream.cost + stream.work()) / devices.fastest();
    let stream = Stream { head: 0.0, tail: 0.0, ..stream.clone() };
    search(&[stream], devices, reached)
}

fn search(streams: &[Stream], devices: &Devices, reached: f64) -> f64 {
    let levels = 0..devices.memories.len();
    let parts: Vec<Vec<usize>> = levels
        .map(|level| streams.iter().map(|stream| parts(stream, devices, level)).collect())
        .collect();
    let (mut low, mut high) = (0.0, reached * (1.0 - EPSILON));
    if impossible(streams, &parts, devices, high) {
        return high;
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        match impossible(streams, &parts, devices, middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// Units that memory alone demands of the probes of a stream that need devices of a level.
fn parts(stream: &Stream, devices: &Devices, level: usize) -> usize {
    let room = devices.largest().saturating_sub(stream.shared_memory);
    let whole = devices.largest() >= stream.shared_memory;
    let needing = || stream.probes.iter().filter(|probe| probe.level >= level);
    let fitting = || needing().map(|probe| probe.memory).filter(|&memory| whole && memory <= room);
    let oversized = needing().count() - fitting().count();
    let total: u128 = fitting().map(u128::from).sum();
    let by_sum = total.div_ceil(u128::from(room.max(1))) as usize;
    // The packing of the module's comment, in bytes.
    let by_size = (1..=AT_ONCE as u64).map(|k| {
        let a = room / (k + 1) + 1;
        let count: u64 = fitting().map(|memory| memory / a).sum();
        count.div_ceil((room / a).max(1)) as usize
    });
    (oversized + by_size.fold(by_sum, usize::max)).max(1)
}

/// What a stream, or those of its probes that need certain devices, asks of them.
struct Share {
    head: f64,
    tail: f64,
    cost: f64,
    work: f64,
    /// Units there are at least.
    units: f64,
    /// Seconds of each probe with its share of `cost`.
    sizes: Vec<f64>,
}

impl Share {
    /// Of the probes that are `kept`, or of a stream without probes if it is, in `parts` units or more
    /// on devices of at most `speed`.
    fn of(
        stream: &Stream,
        parts: usize,
        speed: f64,
        time: f64,
        kept: impl Fn(Option<&Probe>) -> bool,
    ) -> Option<Self> {
        if stream.probes.is_empty() && !kept(None) {
            return None;
        }
        let mut sizes: Vec<f64> = stream
            .probes
            .iter()
            .filter(|probe| kept(Some(probe)))
            .map(|probe| probe.seconds)
            .collect();
        if sizes.is_empty() && !stream.probes.is_empty() {
            return None;
        }
        // Units without probes may carry out the load where the probes cannot run.
        let load = if kept(None) { stream.load } else { 0.0 };
        let work = load + sizes.iter().sum::<f64>();
        let room = speed * (time - stream.head - stream.tail) - stream.cost;
        let units = match work > 0.0 {
            true => (work / room.max(f64::MIN_POSITIVE) * (1.0 - EPSILON)).ceil(),
            false => 1.0,
        };
        let units = units.max(parts as f64);
        let inflation = 1.0 + stream.cost / room.min(work).max(f64::MIN_POSITIVE);
        sizes.iter_mut().for_each(|seconds| *seconds *= inflation);
        Some(Self { head: stream.head, tail: stream.tail, cost: stream.cost, work, units, sizes })
    }

    fn seconds(&self) -> f64 {
        self.units * self.cost + self.work
    }

    /// How many pieces of `a` seconds it counts as.
    fn count(&self, a: f64) -> f64 {
        let probes: f64 =
            self.sizes.iter().filter(|&&size| size >= a).map(|size| (size / a).floor()).sum();
        if self.cost < a {
            return probes;
        }
        let rounded = (self.seconds() / a).floor() - (self.units - 1.0);
        probes.max(rounded).max(self.units * (self.cost / a).floor())
    }
}

/// Whether it is certain that no plan ends within `time`. `parts`: units each stream has at
/// least, by the level of the probes they are for.
fn impossible(streams: &[Stream], parts: &[Vec<usize>], devices: &Devices, time: f64) -> bool {
    let window = |stream: &Stream| time - stream.head - stream.tail;
    let late = |stream: &Stream| {
        stream.cost + stream.longest > devices.fastest() * window(stream) * (1.0 + EPSILON)
    };
    if streams.iter().any(late) {
        return true;
    }
    // Everything, and what needs one of the larger devices; then what needs one of the faster.
    let by_memory =
        devices.memories.iter().zip(parts).enumerate().any(|(level, (&memory, parts))| {
            let able = devices.all.iter().filter(|device| device.memory >= memory);
            let needs = |stream: &Stream, probe: Option<&Probe>| {
                probe.map_or(stream.level, |probe| probe.level) >= level
            };
            overfull_among(streams, parts, able.copied().collect(), time, needs)
        });
    let one = vec![1; streams.len()];
    let by_speed = || {
        devices.speeds.windows(2).any(|speeds| {
            let able = devices.all.iter().filter(|device| device.speed >= speeds[1]);
            let needs = |stream: &Stream, probe: Option<&Probe>| {
                let seconds = stream.cost + probe.map_or(0.0, |probe| probe.seconds);
                seconds > speeds[0] * window(stream) * (1.0 + EPSILON)
            };
            overfull_among(streams, &one, able.copied().collect(), time, needs)
        })
    };
    by_memory || by_speed()
}

fn overfull_among(
    streams: &[Stream],
    parts: &[usize],
    able: Vec<DeviceCost>,
    time: f64,
    needs: impl Fn(&Stream, Option<&Probe>) -> bool,
) -> bool {
    let fastest = able.iter().map(|device| device.speed).fold(0.0, f64::max);
    let shares = streams.iter().zip(parts).filter_map(|(stream, &parts)| {
        Share::of(stream, parts, fastest, time, |probe| needs(stream, probe))
    });
    overfull(shares.collect(), &able, time)
}

/// Whether the devices cannot do it all within `time`, by area or by packing.
fn overfull(mut shares: Vec<Share>, devices: &[DeviceCost], time: f64) -> bool {
    let speed: f64 = devices.iter().map(|device| device.speed).sum();
    let mut too_much = |reach: fn(&Share) -> f64| {
        shares.sort_by(|a, b| reach(b).total_cmp(&reach(a)));
        let mut seconds = 0.0;
        shares.iter().any(|share| {
            seconds += share.seconds();
            seconds > speed * (time - reach(share)) * (1.0 + EPSILON)
        })
    };
    if too_much(|share| share.tail) || too_much(|share| share.head) {
        return true;
    }
    let mut speeds: Vec<f64> = devices.iter().map(|device| device.speed).collect();
    speeds.sort_unstable_by(f64::total_cmp);
    speeds.dedup();
    // Just above a fraction of what a device can do, one piece less fits it.
    let steps = speeds.iter().flat_map(|speed| {
        (1..=AT_ONCE).map(move |fitting| speed * time / (fitting + 1) as f64 * (1.0 + EPSILON))
    });
    steps.into_iter().filter(|&a| a > 0.0).any(|a| {
        let room = |device: &DeviceCost| (device.speed * time / a * (1.0 + 1e-12)).floor();
        let asked: f64 = shares.iter().map(|share| share.count(a)).sum();
        asked > devices.iter().map(room).sum()
    })
}
