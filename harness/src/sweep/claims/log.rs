//! What happened to claims, in the order it happened, and a check that no key was held twice at once.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::claim::Released;
use super::{ClaimError, files, log_folder};

/// What happened to a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Taken, where nobody held it. Written once it was.
    Taken,
    /// Taken from a holder that was dead.
    TakenOver {
        /// The worker that held it.
        from: String,
    },
    /// Given back. Written before others can see it.
    GivenBack(Released),
    /// The worker stops to count on it, for this reason.
    Lost(String),
}

/// A line of a worker's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// The key.
    pub key: String,
    /// Which taking of the key this is about, counted from 1.
    pub generation: u64,
    /// The unit that the key's cell was done in.
    pub unit: String,
    /// The worker.
    pub worker: String,
    /// Its launch.
    pub launch: String,
    /// Time of day (RFC 3339), by the machine's clock.
    pub wall: String,
    /// The machine's boot.
    pub boot: Option<String>,
    /// Nanoseconds since that boot: orders the events of one machine.
    pub since_boot: Option<u64>,
}

/// A worker's own log; nobody else writes to it.
pub(super) struct Log {
    file: File,
}

impl Log {
    pub(super) fn open(path: &Path) -> Result<Self, ClaimError> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self { file: file.map_err(ClaimError::io("open", path))? })
    }

    /// Adds a line. What was written of it is taken back where it does not succeed.
    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let before = self.file.metadata()?.len();
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if written.is_err() {
            let _ = self.file.set_len(before);
        }
        written
    }
}

/// The events of all workers of a sweep, worker by worker. A last line without an end, of a worker that
/// was killed while it wrote, is passed over.
///
/// # Errors
/// Where a log cannot be read, or a line of it.
pub fn read_log(state: &Path) -> Result<Vec<Event>, ClaimError> {
    let folder = log_folder(state);
    files::refresh(&folder);
    let mut events = Vec::new();
    for (name, path) in files::list(&folder)? {
        if !name.ends_with(".jsonl") {
            continue;
        }
        let text = fs::read(&path).map_err(ClaimError::io("read", &path))?;
        for (at, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(event) if line.ends_with(b"\n") => events.push(event),
                _ if !line.ends_with(b"\n") => {}
                Ok(_) => {}
                Err(error) => {
                    return Err(ClaimError::Unreadable {
                        path,
                        expected: "a log of claims",
                        why: format!("line {}: {error}", at + 1),
                    });
                }
            }
        }
    }
    Ok(events)
}

/// A time for which a worker held a key, as far as the log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its beginning.
    pub from: Event,
    /// Its end: given back, lost, or (of a worker that died, nobody knows when) the taking of the next
    /// generation. `None` where the log ends first.
    pub until: Option<Event>,
}

/// A key that two workers may have worked on at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The earlier generation, or one of two takings of the same.
    pub first: Holding,
    /// The later one.
    pub second: Holding,
    /// Whether clocks of two machines were compared, which may be wrong.
    pub between_machines: bool,
}

/// Times for which a key was held by two at once. That a worker which died held its key to the end of
/// its life is not in the log: its time is taken to end where the next generation begins, so what it
/// did while it seemed dead to others shows only if it lived to notice (then it lost the claim later
/// than the other took it). Two takings of one generation are always named.
pub fn overlaps(events: &[Event]) -> Vec<Overlap> {
    let mut keys: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        keys.entry(&event.key).or_default().push(event);
    }
    let mut found = Vec::new();
    for events in keys.values() {
        let held = holdings(events);
        for (at, first) in held.iter().enumerate() {
            found.extend(held[at + 1..].iter().filter_map(|second| overlap(first, second)));
        }
    }
    found
}

/// Times for which one key was held, by generation.
fn holdings(events: &[&Event]) -> Vec<Holding> {
    let begins = |event: &&&Event| matches!(event.what, What::Taken | What::TakenOver { .. });
    let mut takings: Vec<&Event> = events.iter().filter(begins).copied().collect();
    takings.sort_by_key(|event| event.generation);
    let end = |from: &Event| {
        let own = events.iter().copied().filter(|event| {
            !begins(&event) && (&event.worker, event.generation) == (&from.worker, from.generation)
        });
        // A claim that was lost is given back later, if at all.
        let own = own.reduce(|a, b| if order(a, b).0 == Ordering::Greater { b } else { a });
        own.or_else(|| takings.iter().copied().find(|next| next.generation > from.generation))
    };
    let holding = |from: &&Event| Holding { from: (*from).clone(), until: end(from).cloned() };
    takings.iter().map(holding).collect()
}

fn overlap(first: &Holding, second: &Holding) -> Option<Overlap> {
    let found = |between_machines| {
        Some(Overlap { first: first.clone(), second: second.clone(), between_machines })
    };
    if first.from.generation == second.from.generation {
        return found(false);
    }
    // Whether `a` ends after `b` begins, and whether clocks of two machines say so.
    let reaches = |a: &Holding, b: &Holding| match &a.until {
        None => (true, false),
        Some(end) => {
            let (order, between) = order(end, &b.from);
            (order == Ordering::Greater, between)
        }
    };
    let (forth, back) = (reaches(first, second), reaches(second, first));
    if forth.0 && back.0 { found(forth.1 || back.1) } else { None }
}

/// Which event was first, and whether clocks of two machines were compared for it.
fn order(a: &Event, b: &Event) -> (Ordering, bool) {
    match (a.since_boot, b.since_boot) {
        (Some(x), Some(y)) if a.boot.is_some() && a.boot == b.boot => (x.cmp(&y), false),
        _ => {
            let time = |event: &Event| event.wall.parse::<jiff::Timestamp>().ok();
            (time(a).cmp(&time(b)), true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event of machine `boot` at `at` seconds; its clock on the wall goes wrong by `wrong` seconds.
    fn event(
        worker: &str,
        generation: u64,
        what: What,
        at: u64,
        (boot, wrong): (&str, i64),
    ) -> Event {
        let wall = jiff::Timestamp::new(1_700_000_000 + at as i64 + wrong, 0).unwrap();
        Event {
            what,
            key: "k".to_owned(),
            generation,
            unit: "u".to_owned(),
            worker: worker.to_owned(),
            launch: "l".to_owned(),
            wall: wall.to_string(),
            boot: Some(boot.to_owned()),
            since_boot: Some(at * 1_000_000_000),
        }
    }

    fn over(from: &str) -> What {
        What::TakenOver { from: from.to_owned() }
    }

    const DONE: What = What::GivenBack(Released::Done);
    const HERE: (&str, i64) = ("b1", 0);

    #[test]
    fn a_log_in_which_keys_change_hands_has_no_overlaps() {
        let mut events = vec![
            event("a", 1, What::Taken, 1, HERE),
            event("a", 1, What::GivenBack(Released::Interrupted), 5, HERE),
            event("b", 2, What::Taken, 5, HERE),
            // b dies; d, which took generation 4, died before it wrote so.
            event("c", 3, over("b"), 9, HERE),
            event("e", 5, over("d"), 12, HERE),
        ];
        assert_eq!(overlaps(&events), []);
        // Another key at the same time is no matter.
        let mut other = event("f", 1, What::Taken, 2, HERE);
        other.key = "k2".to_owned();
        events.push(other);
        events.reverse();
        assert_eq!(overlaps(&events), []);
    }

    #[test]
    fn keys_that_two_held_are_found() {
        let taken = event("a", 1, What::Taken, 1, HERE);
        // One generation twice, even if one after the other.
        let mut events = vec![taken.clone(), event("a", 1, DONE, 2, HERE)];
        events.push(event("b", 1, What::Taken, 7, HERE));
        assert_eq!(overlaps(&events).len(), 1);
        // The old holder noticed after the new one had begun.
        let late = |at| {
            let lost = event("a", 1, What::Lost("slept".to_owned()), at, HERE);
            vec![
                taken.clone(),
                lost,
                event("b", 2, over("a"), 60, HERE),
                event("b", 2, DONE, 90, HERE),
            ]
        };
        assert_eq!(overlaps(&late(59)), []);
        assert_eq!(overlaps(&late(60)), []);
        let found = overlaps(&late(61));
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].first.from.worker, &*found[0].second.from.worker), ("a", "b"));
        assert!(!found[0].between_machines);
        // Lost in time, then given back: over with the first of the two.
        let mut events = late(20);
        events.push(event("a", 1, DONE, 70, HERE));
        assert_eq!(overlaps(&events), []);
        // The third taker while the first still works.
        let mut events = vec![taken, event("a", 1, DONE, 50, HERE)];
        events.push(event("b", 2, over("a"), 10, HERE));
        events.push(event("c", 3, over("b"), 20, HERE));
        assert_eq!(overlaps(&events).len(), 2);
    }

    #[test]
    fn the_clock_of_the_boot_counts_on_one_machine_and_the_wall_between_two() {
        let there = ("b2", -30);
        let mut events = vec![
            event("a", 1, What::Taken, 1, HERE),
            event("a", 1, DONE, 50, ("b1", -40)),
            event("b", 2, What::Taken, 40, HERE),
        ];
        let found = overlaps(&events);
        assert!(found.len() == 1 && !found[0].between_machines);
        events[2] = event("b", 2, What::Taken, 60, there);
        // 50 - 40 seconds on one wall, 60 - 30 on the other.
        assert_eq!(overlaps(&events), []);
        events[2] = event("b", 2, What::Taken, 35, there);
        let found = overlaps(&events);
        assert!(found.len() == 1 && found[0].between_machines);
    }

    #[test]
    fn a_torn_last_line_is_passed_over_and_another_one_named() {
        let state = tempfile::tempdir().unwrap();
        let folder = log_folder(state.path());
        assert_eq!(read_log(state.path()).unwrap(), []);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.jsonl");
        let mut log = Log::open(&path).unwrap();
        let events = [event("a", 1, What::Taken, 1, HERE), event("a", 1, DONE, 2, HERE)];
        events.iter().for_each(|event| log.append(event).unwrap());
        fs::write(folder.join("notes.txt"), "foreign").unwrap();
        assert_eq!(read_log(state.path()).unwrap(), events);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let count = usize::from(len >= first);
            assert_eq!(read_log(state.path()).unwrap(), events[..count], "cut at {len}");
        }
        fs::write(&path, [&whole[..9], b"\n", &whole[..]].concat()).unwrap();
        let error = read_log(state.path()).unwrap_err().to_string();
        assert!(error.contains("a.jsonl") && error.contains("line 1"), "{error}");
    }
}
