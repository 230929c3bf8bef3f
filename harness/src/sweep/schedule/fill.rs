//! Units made for a given end: each device in turn takes as much of a stream as it can finish in time.

use std::collections::BTreeSet;

use super::DeviceCost;
use super::problem::{Problem, Stream};
use super::queue::{Source, Work, work_off};

/// Into how many pieces for a device a pass is divided at most.
const SHARES: usize = 4;

/// A unit of the problem's streams and probes, by their places.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub stream: usize,
    pub probes: Vec<usize>,
    pub seconds: f64,
    pub memory: u64,
    pub least_speed: f64,
}

/// What pieces are made for, in seconds; infinite for none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// When everything shall have ended.
    pub end: f64,
    /// What a piece shall not take longer than, unless half of it would go into what every piece pays.
    pub longest: f64,
    /// Whether a device prefers streams of which it can hold everything that is left.
    pub whole: bool,
}

/// What is left of a stream.
enum Left {
    /// Probes by their places, the first to be taken last.
    Probes(Vec<usize>),
    /// Pieces that are already made, the first to be taken last: of a pass that is divided, whose
    /// shares depend on their number, and of a stream without probes.
    Pieces(Vec<Piece>),
}

struct Fill<'a> {
    problem: &'a Problem,
    goal: Goal,
    /// Place of the stream at each rank, and the rank at each place.
    ranked: &'a [usize],
    ranks: Vec<usize>,
    left: Vec<Left>,
    /// Bytes of the probes that are left of each stream, and what they share.
    bytes: Vec<u128>,
    /// Ranks of streams that may start and have something left.
    open: BTreeSet<usize>,
    made: Vec<Piece>,
}

/// Pieces in the order in which devices take them, if all can be done by the goal's end. Of the streams that may
/// start and fit, a device takes the first of `ranked`.
pub(super) fn fill(problem: &Problem, goal: Goal, ranked: &[usize]) -> Option<Vec<Piece>> {
    let mut ranks = vec![0; ranked.len()];
    for (rank, &stream) in ranked.iter().enumerate() {
        ranks[stream] = rank;
    }
    let left = (0..problem.streams.len()).map(|stream| whole(problem, stream, goal)).collect();
    let bytes = |stream: &Stream| {
        let probes = stream.probes.iter().map(|probe| u128::from(probe.memory));
        u128::from(stream.shared_memory) + probes.sum::<u128>()
    };
    let bytes = problem.streams.iter().map(bytes).collect();
    let (open, made) = (BTreeSet::new(), Vec::new());
    let mut fill = Fill { problem, goal, ranked, ranks, left, bytes, open, made };
    let needs: Vec<_> = problem.streams.iter().map(|stream| stream.needs).collect();
    work_off(&problem.devices.all, &needs, &mut fill);
    fill.left.iter().all(Left::is_empty).then_some(fill.made)
}

fn whole(problem: &Problem, place: usize, goal: Goal) -> Left {
    let stream = &problem.streams[place];
    if stream.probes.is_empty() && !stream.divides {
        let memory = stream.shared_memory;
        let piece =
            Piece { stream: place, probes: vec![], seconds: stream.cost, memory, least_speed: 0.0 };
        return Left::Pieces(vec![piece]);
    }
    if !stream.divides {
        return Left::Probes((0..stream.probes.len()).rev().collect());
    }
    let speed = problem.devices.fastest();
    let room = speed * (goal.end - stream.head - stream.tail) - stream.cost;
    let longest = (speed * goal.longest - stream.cost).max(stream.cost);
    let shares = |room: f64, most: usize| match room > 0.0 {
        true => ((stream.work() / room).ceil() as usize).min(most),
        false => most,
    };
    let devices = problem.devices.all.len();
    let shares = shares(room, devices).max(shares(longest, SHARES * devices)).max(1);
    Left::Pieces(divided(problem, place, shares))
}

/// A stream whose units divide its pass, in so many or, for its memory, more of them, the longest last.
/// Each probe goes to the shortest piece that has memory for it on the smallest device that could hold
/// every probe alone: more pieces cost little, and more devices can take them.
fn divided(problem: &Problem, place: usize, shares: usize) -> Vec<Piece> {
    let stream = &problem.streams[place];
    let memory = stream.shared_memory;
    let empty = Piece { stream: place, probes: vec![], seconds: 0.0, memory, least_speed: 0.0 };
    let level = stream.probes.iter().map(|probe| probe.level).fold(stream.level, usize::max);
    let most = problem.devices.memories[level];
    let mut pieces = vec![empty.clone(); shares];
    for (place, probe) in stream.probes.iter().enumerate() {
        let memory = |piece: &Piece| piece.memory.saturating_add(probe.memory);
        let fits = |piece: &&mut Piece| piece.probes.is_empty() || memory(piece) <= most;
        let shortest =
            pieces.iter_mut().filter(fits).min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let piece = match shortest {
            Some(piece) => piece,
            None => {
                pieces.push(empty.clone());
                let last = pieces.len() - 1;
                &mut pieces[last]
            }
        };
        piece.memory = memory(piece);
        piece.seconds += probe.seconds;
        piece.probes.push(place);
    }
    let share = stream.cost + stream.load / pieces.len() as f64;
    pieces.iter_mut().for_each(|piece| piece.seconds += share);
    pieces.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    pieces
}

impl Left {
    fn is_empty(&self) -> bool {
        match self {
            Self::Probes(probes) => probes.is_empty(),
            Self::Pieces(pieces) => pieces.is_empty(),
        }
    }
}

impl Fill<'_> {
    /// What the device can do of a stream within so many seconds of its own.
    fn take(&mut self, place: usize, device: usize, room: f64) -> Option<Piece> {
        let problem = self.problem;
        let stream = &problem.streams[place];
        match &mut self.left[place] {
            Left::Pieces(pieces) => {
                let fits = |piece: &Piece| {
                    piece.seconds <= room && problem.devices.may_hold(device, piece.memory)
                };
                let index = pieces.iter().rposition(fits)?;
                Some(pieces.remove(index))
            }
            Left::Probes(left) => {
                let mut piece = Piece {
                    stream: place,
                    probes: Vec::new(),
                    seconds: stream.cost,
                    memory: stream.shared_memory,
                    least_speed: 0.0,
                };
                let DeviceCost { speed, memory } = problem.devices.all[device];
                let longest = room.min((self.goal.longest * speed).max(2.0 * stream.cost));
                // Those that are passed over, put back in the end.
                let mut passed = Vec::new();
                while let Some(next) = left.pop() {
                    let probe = &stream.probes[next];
                    let bytes = piece.memory.saturating_add(probe.memory);
                    let first = piece.probes.is_empty();
                    let holds = bytes <= memory || first && problem.devices.may_hold(device, bytes);
                    if piece.seconds + probe.seconds > if first { room } else { longest } || !holds
                    {
                        passed.push(next);
                    } else {
                        piece.probes.push(next);
                        piece.seconds += probe.seconds;
                        piece.memory = bytes;
                    }
                    let full = piece.memory.saturating_add(stream.least) > memory
                        || piece.seconds + stream.shortest > longest;
                    if full && !piece.probes.is_empty() || piece.seconds + stream.shortest > room {
                        break;
                    }
                }
                left.extend(passed.into_iter().rev());
                (!piece.probes.is_empty()).then_some(piece)
            }
        }
    }

    /// What the device can do of the first stream that allows it; with `whole`, of those that it can
    /// hold altogether.
    fn first(&mut self, device: usize, now: f64, whole: bool) -> Option<Piece> {
        let problem = self.problem;
        let DeviceCost { speed, memory } = problem.devices.all[device];
        let mut from = 0;
        while let Some(&rank) = self.open.range(from..).next() {
            from = rank + 1;
            let stream = self.ranked[rank];
            if whole && self.bytes[stream] > u128::from(memory) {
                continue;
            }
            let room = (self.goal.end - problem.streams[stream].tail - now) * speed;
            if let Some(piece) = self.take(stream, device, room) {
                return Some(Piece { least_speed: speed, ..piece });
            }
        }
        None
    }
}

impl Source for Fill<'_> {
    fn open(&mut self, stream: usize) {
        self.open.insert(self.ranks[stream]);
    }

    fn next(&mut self, device: usize, now: f64) -> Option<Work> {
        let whole = if self.goal.whole { self.first(device, now, true) } else { None };
        let piece = whole.or_else(|| self.first(device, now, false))?;
        let Piece { stream, seconds, .. } = piece;
        let probes = &self.problem.streams[stream].probes;
        let taken = piece.probes.iter().map(|&probe| u128::from(probes[probe].memory));
        self.bytes[stream] -= taken.sum::<u128>();
        if self.left[stream].is_empty() {
            self.open.remove(&self.ranks[stream]);
        }
        self.made.push(piece);
        Some(Work { unit: self.made.len() - 1, stream, seconds })
    }

    fn all_taken(&self, stream: usize) -> bool {
        self.left[stream].is_empty()
    }
}
