//! Tries plans and keeps the best.

use super::fill::{Goal, Piece, fill};
use super::problem::Problem;
use super::queue::{Queue, Queued, makespan, work_off};
use super::{DeviceCost, Passes, Schedule, ScheduleError, Slot, StreamCost, Unit, bound};

/// Halvings of the interval in which an end is looked for, for each order of streams.
const HALVINGS: usize = 10;
/// Into how many pieces, at least, the work of a device is cut; none for the first.
const PIECES: [f64; 6] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0];
/// Plans that end later than the best by no more than this share of it count as equal: estimates are
/// no better. Of equals, the one with the least work is taken.
const EQUAL: f64 = 0.01;
/// Pairs of pieces, at most, for which it is tried whether one piece would do.
const MERGES: usize = 200;

struct Plan {
    pieces: Vec<Piece>,
    slots: Vec<Vec<Slot>>,
    makespan: f64,
    /// Seconds that devices are busy.
    busy: f64,
}

impl Plan {
    fn of(problem: &Problem, pieces: Vec<Piece>) -> Self {
        let devices = &problem.devices.all;
        let needs: Vec<_> = problem.streams.iter().map(|stream| stream.needs).collect();
        let queued = |piece: &Piece| {
            let &Piece { stream, memory, least_speed, seconds, .. } = piece;
            Queued { stream, memory, least_speed, seconds }
        };
        let units: Vec<_> = pieces.iter().map(queued).collect();
        let slots =
            work_off(devices, &needs, &mut Queue::new(problem.streams.len(), devices, &units));
        let busy = slots.iter().flatten().map(|slot| slot.end - slot.start).sum();
        Self { pieces, makespan: makespan(&slots), slots, busy }
    }
}

/// Splits streams into units and orders them so that, on these devices, all ends early; of plans that
/// end at about the same time, with as few passes as possible.
///
/// # Errors
/// [`ScheduleError`] for costs, devices and needs that make no sense.
pub fn schedule(streams: &[StreamCost], devices: &[DeviceCost]) -> Result<Schedule, ScheduleError> {
    let problem = Problem::new(streams, devices)?;
    let orders = orders(&problem);
    let mut plans = Vec::new();
    for order in &orders {
        let goal = Goal { end: f64::INFINITY, longest: f64::INFINITY, whole: false };
        try_for(&problem, goal, order, &mut plans);
    }
    let lower_bound = bound::lower_bound(&problem, earliest(&plans));
    let kinds: &[bool] = if problem.devices.memories.len() > 1 { &[false, true] } else { &[false] };
    for order in &orders {
        for (pieces, &whole) in PIECES.iter().flat_map(|p| kinds.iter().map(move |kind| (p, kind)))
        {
            let longest = if *pieces > 0.0 { lower_bound / pieces } else { f64::INFINITY };
            let goal = Goal { end: f64::INFINITY, longest, whole };
            try_for(&problem, goal, order, &mut plans);
            let (mut low, mut high) = (lower_bound, earliest(&plans));
            for _ in 0..HALVINGS {
                let end = 0.5 * (low + high);
                match try_for(&problem, Goal { end, ..goal }, order, &mut plans) {
                    true => high = end,
                    false => low = end,
                }
            }
        }
    }

    let latest = earliest(&plans) * (1.0 + EQUAL);
    let good = plans.into_iter().filter(|plan| plan.makespan <= latest);
    let best = good.min_by(|a, b| {
        let units = a.pieces.len().cmp(&b.pieces.len());
        a.busy.total_cmp(&b.busy).then(units).then(a.makespan.total_cmp(&b.makespan))
    });
    let plan = match best {
        Some(plan) => merged(&problem, plan, latest),
        None => Plan::of(&problem, Vec::new()),
    };
    let units: Vec<Unit> = plan.pieces.iter().map(|piece| unit(&problem, piece)).collect();
    let passes = passes(streams, &units);
    let mut slots = vec![Vec::new(); devices.len()];
    for (own, &index) in plan.slots.into_iter().zip(&problem.devices.indices) {
        slots[index] = own;
    }
    Ok(Schedule { units, devices: slots, makespan: plan.makespan, lower_bound, passes })
}

fn earliest(plans: &[Plan]) -> f64 {
    plans.iter().map(|plan| plan.makespan).min_by(f64::total_cmp).unwrap_or(0.0)
}

/// Orders in which devices may look at streams: the most work first, so that little is left for the end;
/// the longest probe first, which cannot be divided; the most expensive to split first.
fn orders(problem: &Problem) -> [Vec<usize>; 3] {
    let streams = &problem.streams;
    let by = |key: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..streams.len()).collect();
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
        order
    };
    let fixed = |stream: usize| streams[stream].tail + streams[stream].cost;
    [
        by(&|stream| fixed(stream) + streams[stream].work()),
        by(&|stream| fixed(stream) + streams[stream].longest),
        by(&fixed),
    ]
}

/// Adds the plans that devices make of a goal, if they can keep to it: in the order in which they make
/// its pieces, and with the longest pieces first.
fn try_for(problem: &Problem, goal: Goal, order: &[usize], plans: &mut Vec<Plan>) -> bool {
    let Some(pieces) = fill(problem, goal, order) else { return false };
    let left = |piece: &Piece| problem.streams[piece.stream].tail + piece.seconds;
    let mut longest_first = pieces.clone();
    longest_first.sort_by(|a, b| left(b).total_cmp(&left(a)));
    plans.push(Plan::of(problem, pieces));
    plans.push(Plan::of(problem, longest_first));
    true
}

/// The plan with pieces of one stream put together where this costs no time.
fn merged(problem: &Problem, mut plan: Plan, latest: f64) -> Plan {
    let mut tries = 0;
    for stream in 0..problem.streams.len() {
        // The pieces of a divided pass pay little, and share it as they are.
        if problem.streams[stream].divides {
            continue;
        }
        loop {
            let mut own: Vec<usize> =
                (0..plan.pieces.len()).filter(|&i| plan.pieces[i].stream == stream).collect();
            own.sort_by(|&a, &b| plan.pieces[a].seconds.total_cmp(&plan.pieces[b].seconds));
            let &[a, b, ..] = own.as_slice() else { break };
            let Some(pieces) = together(problem, &plan.pieces, a.min(b), a.max(b)) else { break };
            tries += 1;
            if tries > MERGES {
                return plan;
            }
            let next = Plan::of(problem, pieces);
            if next.makespan > latest || next.busy > plan.busy {
                break;
            }
            plan = next;
        }
    }
    plan
}

/// The pieces with the later of two put into the earlier, if there is a device for both.
fn together(problem: &Problem, pieces: &[Piece], to: usize, from: usize) -> Option<Vec<Piece>> {
    let stream = &problem.streams[pieces[to].stream];
    let own = pieces[from].memory.checked_sub(stream.shared_memory)?;
    let memory = pieces[to].memory.checked_add(own)?;
    let least_speed = pieces[to].least_speed.max(pieces[from].least_speed);
    let able = |device: &DeviceCost| device.memory >= memory && device.speed >= least_speed;
    problem.devices.all.iter().any(able).then(|| {
        let mut pieces = pieces.to_vec();
        let Piece { probes, seconds, .. } = pieces.remove(from);
        let piece = &mut pieces[to];
        piece.memory = memory;
        piece.least_speed = least_speed;
        piece.seconds += seconds - stream.cost;
        piece.probes.extend(probes);
        pieces
    })
}

fn unit(problem: &Problem, piece: &Piece) -> Unit {
    let stream = &problem.streams[piece.stream];
    let mut probes: Vec<usize> =
        piece.probes.iter().map(|&place| stream.probes[place].index).collect();
    probes.sort_unstable();
    Unit {
        stream: stream.index,
        probes,
        seconds: piece.seconds,
        memory: piece.memory,
        least_speed: piece.least_speed,
        oversized: piece.memory > problem.devices.largest(),
    }
}

fn passes(streams: &[StreamCost], units: &[Unit]) -> Passes {
    let mut divided: Vec<bool> = vec![false; streams.len()];
    let mut shared = 0;
    for unit in units.iter().filter(|unit| streams[unit.stream].encode > 0.0) {
        let first = !std::mem::replace(&mut divided[unit.stream], true);
        shared += usize::from(first || !streams[unit.stream].splittable_encode);
    }
    let mut needed = vec![false; streams.len()];
    streams.iter().filter_map(|stream| stream.needs).for_each(|needs| needed[needs] = true);
    // A cell alone makes the passes of everything it waits for; an extraction that nothing waits for
    // is a cell.
    let alone = streams.iter().zip(&needed).map(|(stream, &needed)| {
        let cells = match stream.probes.len() {
            0 => usize::from(!needed),
            probes => probes,
        };
        let chain = std::iter::successors(Some(stream), |stream| Some(&streams[stream.needs?]));
        cells * chain.filter(|stream| stream.encode > 0.0).count()
    });
    Passes { shared, alone: alone.sum() }
}
