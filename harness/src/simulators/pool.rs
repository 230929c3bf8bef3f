//! Environments spread over workers. One that dies, hangs or answers nonsense is replaced: its episodes
//! are run again on a new worker, from their seeds through the actions so far, and go on where they were.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::exchange::{Answer, Ask, Environment, Observed, Space, Spent, Step};
use super::worker::{Worker, unusable};
use super::{SimulatorError, Simulators};

/// Workers in a row that may fail at the same thing.
const TRIES: usize = 3;
/// How long importing a simulator and making an environment may take, in seconds.
const OPENING: u64 = 300;
/// How long a step of a worker's environments may take, in seconds.
const STEP: u64 = 120;

/// Environments in numbered slots, slot `s` on worker `s % workers`.
pub struct Pool<'a> {
    simulators: &'a Simulators<'a>,
    workers: Vec<Worker>,
    /// Requests of each worker that are not answered yet, oldest first.
    pending: Vec<VecDeque<Request>>,
    /// Workers of each batch that is under way, oldest first.
    batches: VecDeque<Vec<usize>>,
    slots: Vec<Option<Slot>>,
    /// Whether images are rendered.
    images: bool,
    restarts: u64,
    spent: Spent,
}

/// An open environment and what brought it where it is.
struct Slot {
    environment: Environment,
    space: Space,
    began: Option<(u64, Value)>,
    actions: Vec<Vec<f64>>,
}

#[derive(Clone)]
struct Request {
    doing: String,
    items: Vec<(usize, Ask)>,
}

impl Drop for Pool<'_> {
    /// All workers are told at once: each needs a moment to close its renderers.
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(Worker::close);
    }
}

impl<'a> Pool<'a> {
    /// Starts `workers` processes for `slots` environments.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start(
        simulators: &'a Simulators<'a>,
        workers: usize,
        slots: usize,
        images: bool,
    ) -> Result<Self, SimulatorError> {
        let count = workers.clamp(1, slots.max(1));
        let workers: Vec<Worker> =
            (0..count).map(|_| simulators.worker()).collect::<Result<_, _>>()?;
        Ok(Self {
            simulators,
            workers,
            pending: vec![VecDeque::new(); count],
            batches: VecDeque::new(),
            slots: (0..slots).map(|_| None).collect(),
            images,
            restarts: 0,
            spent: Spent::default(),
        })
    }

    /// Workers that were replaced so far.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Where time went so far.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Puts an environment into each slot, unless the same is there already.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn open(
        &mut self,
        slots: &[usize],
        environment: &Environment,
    ) -> Result<Space, SimulatorError> {
        let mut found = None;
        let same =
            |slot: &Option<Slot>| slot.as_ref().is_some_and(|s| s.environment == *environment);
        let missing: Vec<usize> =
            slots.iter().copied().filter(|&slot| !same(&self.slots[slot])).collect();
        // All at once: making an environment takes a second.
        let mut lost = vec![false; self.workers.len()];
        for &slot in &missing {
            let at = slot % self.workers.len();
            lost[at] |= self.ask_open(slot, environment).is_err();
        }
        for slot in missing {
            let at = slot % self.workers.len();
            let opened = match lost[at] {
                false => self.opened(slot, environment),
                true => self.again(at, |pool| pool.open_one(slot, environment)),
            };
            let space = match opened {
                Err(error) if !lost[at] => {
                    lost[at] = true;
                    self.recover(at, error)?;
                    self.again(at, |pool| pool.open_one(slot, environment))?
                }
                opened => opened?,
            };
            let (environment, began) = (environment.clone(), None);
            self.slots[slot] = Some(Slot { environment, space, began, actions: Vec::new() });
        }
        for &slot in slots {
            found = found.or_else(|| self.slots[slot].as_ref().map(|slot| slot.space.clone()));
        }
        found.ok_or_else(|| unusable("opening environments", "no slot".to_owned()))
    }

    fn open_one(
        &mut self,
        slot: usize,
        environment: &Environment,
    ) -> Result<Space, SimulatorError> {
        self.ask_open(slot, environment)?;
        self.opened(slot, environment)
    }

    fn ask_open(&mut self, slot: usize, environment: &Environment) -> Result<(), SimulatorError> {
        let Environment { suite, task, render, repeat } = environment;
        let request = json!({
            "do": "open", "slot": slot, "suite": suite, "task": task, "render": render,
            "repeat": repeat,
        });
        let at = slot % self.workers.len();
        self.workers[at].send(&opening(environment), &request, &[])
    }

    fn opened(&mut self, slot: usize, environment: &Environment) -> Result<Space, SimulatorError> {
        let doing = opening(environment);
        let at = slot % self.workers.len();
        let (value, _) =
            self.workers[at].receive(&doing, patience(STEP).max(Duration::from_secs(OPENING)))?;
        let space: Space =
            serde_json::from_value(value).map_err(|error| unusable(&doing, error.to_string()))?;
        if space.low.len() != space.actions || space.high.len() != space.actions {
            return Err(unusable(&doing, format!("bounds of {} actions", space.low.len())));
        }
        let side = environment.render.side;
        if space.image != [side, side, 3] {
            let found = space.image;
            return Err(unusable(
                &doing,
                format!("images {found:?}; expected {side} x {side} x 3"),
            ));
        }
        Ok(space)
    }

    /// Asks for the next step of some environments; the answer is [`finish`](Self::finish)ed later.
    /// Batches are answered in the order they were begun in.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn begin(&mut self, items: Vec<(usize, Ask)>) -> Result<(), SimulatorError> {
        let count = self.workers.len();
        let mut of: Vec<Vec<(usize, Ask)>> = vec![Vec::new(); count];
        for (slot, ask) in items {
            of[slot % count].push((slot, ask));
        }
        let mut batch = Vec::new();
        for (at, items) in of.into_iter().enumerate().filter(|(_, items)| !items.is_empty()) {
            let doing = self.doing(&items);
            let request = Request { doing, items };
            self.pending[at].push_back(request.clone());
            batch.push(at);
            if let Err(error) = self.send(at, &request) {
                self.recover(at, error)?;
            }
        }
        self.batches.push_back(batch);
        Ok(())
    }

    /// Waits for the oldest batch: what each of its slots saw, in slot order.
    ///
    /// # Errors
    /// [`SimulatorError::GaveUp`] when one worker after another failed at it, and
    /// [`SimulatorError::Interrupted`].
    pub fn finish(&mut self) -> Result<Vec<(usize, Observed)>, SimulatorError> {
        let mut all = Vec::new();
        for at in self.batches.pop_front().unwrap_or_default() {
            let began = Instant::now();
            let seen = self.again(at, |pool| pool.receive(at))?;
            self.spent.waiting += began.elapsed().as_secs_f64();
            let Some(request) = self.pending[at].pop_front() else { continue };
            for ((slot, ask), seen) in request.items.into_iter().zip(seen) {
                if let Some(open) = &mut self.slots[slot] {
                    match ask {
                        Ask::Reset { seed, start } => {
                            open.began = Some((seed, start));
                            open.actions.clear();
                        }
                        Ask::Step(action) => open.actions.push(action),
                    }
                }
                all.push((slot, seen));
            }
        }
        all.sort_by_key(|(slot, _)| *slot);
        Ok(all)
    }

    /// One batch, begun and finished.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn step(
        &mut self,
        items: Vec<(usize, Ask)>,
    ) -> Result<Vec<(usize, Observed)>, SimulatorError> {
        self.begin(items)?;
        self.finish()
    }

    /// The scripted expert's actions in the slots' present states.
    ///
    /// # Errors
    /// A fault for tasks that have none, with the reason.
    pub fn expert(&mut self, slots: &[usize]) -> Result<Vec<Vec<f64>>, SimulatorError> {
        const DOING: &str = "asking the expert";
        let count = self.workers.len();
        for &slot in slots {
            let request = json!({ "do": "expert", "slot": slot });
            self.workers[slot % count].send(DOING, &request, &[])?;
        }
        slots
            .iter()
            .map(|&slot| {
                let (_, payload) = self.workers[slot % count].receive(DOING, patience(STEP))?;
                let expected = self.slots[slot].as_ref().map_or(0, |slot| slot.space.actions);
                match numbers(&payload, expected) {
                    Some(action) if payload.len() == 8 * expected => Ok(action),
                    _ => Err(unusable(
                        DOING,
                        format!("{} bytes of {expected} numbers", payload.len()),
                    )),
                }
            })
            .collect()
    }

    fn doing(&self, items: &[(usize, Ask)]) -> String {
        let what = match items.first() {
            Some((slot, _)) => self.slots[*slot].as_ref(),
            None => None,
        };
        let what = what.map(|slot| format!("{}/{}", slot.environment.suite, slot.environment.task));
        format!("stepping {}", what.unwrap_or_default())
    }

    fn send(&mut self, at: usize, request: &Request) -> Result<(), SimulatorError> {
        let images = self.images;
        let (mut payload, mut steps, mut resets) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, ask) in &request.items {
            match ask {
                Ask::Reset { seed, start } => resets
                    .push(json!({ "slot": slot, "seed": seed, "start": start, "render": images })),
                Ask::Step(action) => {
                    steps.push(json!({ "slot": slot, "render": images }));
                    payload.extend(action.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
        let (verb, items) = match resets.is_empty() {
            true => ("step", steps),
            false if steps.is_empty() => ("reset", resets),
            false => return Err(unusable(&request.doing, "resets and steps in one".to_owned())),
        };
        let message = json!({ "do": verb, "items": items });
        self.workers[at].send(&request.doing, &message, &payload)
    }

    /// The answer to a worker's oldest request, checked.
    fn receive(&mut self, at: usize) -> Result<Vec<Observed>, SimulatorError> {
        let Some(request) = self.pending[at].front() else { return Ok(Vec::new()) };
        let doing = request.doing.clone();
        let slots: Vec<usize> = request.items.iter().map(|(slot, _)| *slot).collect();
        let (value, payload) = self.workers[at].receive(&doing, patience(STEP))?;
        let answer: Answer =
            serde_json::from_value(value).map_err(|error| unusable(&doing, error.to_string()))?;
        let seen = self.observed(&doing, &slots, &answer.items, &payload)?;
        self.spent.physics += answer.seconds.physics;
        self.spent.render += answer.seconds.render;
        Ok(seen)
    }

    fn observed(
        &self,
        doing: &str,
        slots: &[usize],
        items: &[Step],
        payload: &[u8],
    ) -> Result<Vec<Observed>, SimulatorError> {
        let wrong = |why: String| unusable(doing, why);
        if items.len() != slots.len() {
            let (found, expected) = (items.len(), slots.len());
            return Err(wrong(format!("{found} environments; expected {expected}")));
        }
        let size = |slot: &Slot| {
            let image = if self.images { slot.space.image.iter().product() } else { 0 };
            image + 8 * (slot.space.proprio + slot.space.state)
        };
        let opened: Vec<&Slot> =
            slots.iter().filter_map(|&slot| self.slots[slot].as_ref()).collect();
        let expected: usize = opened.iter().map(|slot| size(slot)).sum();
        if opened.len() != slots.len() || payload.len() != expected {
            return Err(wrong(format!("{} bytes; expected {expected}", payload.len())));
        }
        let mut rest = payload;
        let mut all = Vec::with_capacity(slots.len());
        for (slot, item) in opened.into_iter().zip(items) {
            let (mine, others) = rest.split_at(size(slot));
            rest = others;
            let numbers_at = mine.len() - 8 * (slot.space.proprio + slot.space.state);
            let proprio = numbers(&mine[numbers_at..], slot.space.proprio).unwrap_or_default();
            let state = numbers(&mine[numbers_at + 8 * slot.space.proprio..], slot.space.state)
                .unwrap_or_default();
            let Step { reward, score, success, done } = *item;
            let finite = |values: &[f64]| values.iter().all(|x| x.is_finite());
            if !(finite(&proprio) && finite(&state) && finite(&[reward, score])) {
                return Err(wrong("a number that is not finite".to_owned()));
            }
            if !(0.0..=100.0).contains(&score) {
                return Err(wrong(format!("a score of {score}; expected 0 to 100")));
            }
            let image = mine[..numbers_at].to_vec();
            all.push(Observed { image, proprio, state, reward, score, success, done });
        }
        Ok(all)
    }

    /// Does something with a worker; when that fails, with a new one, a few times.
    fn again<T>(
        &mut self,
        at: usize,
        mut attempt: impl FnMut(&mut Self) -> Result<T, SimulatorError>,
    ) -> Result<T, SimulatorError> {
        let mut last = match attempt(self) {
            Err(error) if !matches!(error, SimulatorError::Interrupted) => error,
            result => return result,
        };
        for _ in 1..TRIES {
            self.recover(at, last)?;
            last = match attempt(self) {
                Err(error) if !matches!(error, SimulatorError::Interrupted) => error,
                result => return result,
            };
        }
        Err(SimulatorError::GaveUp { tries: TRIES, last: Box::new(last) })
    }

    /// Replaces a worker, brings its environments where they were, and asks again for what was not
    /// answered.
    fn recover(&mut self, at: usize, why: SimulatorError) -> Result<(), SimulatorError> {
        let mut last = why;
        for _ in 0..TRIES {
            if matches!(last, SimulatorError::Interrupted) {
                return Err(last);
            }
            self.restarts += 1;
            self.simulators.note(&format!("{last}; its episodes go on in a new worker"));
            match self.replace(at) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(SimulatorError::GaveUp { tries: TRIES, last: Box::new(last) })
    }

    fn replace(&mut self, at: usize) -> Result<(), SimulatorError> {
        self.workers[at].end();
        self.workers[at] = self.simulators.worker()?;
        let count = self.workers.len();
        for slot in (at..self.slots.len()).step_by(count) {
            let Some(open) = self.slots[slot].take() else { continue };
            let outcome = self.restore(at, slot, &open);
            self.slots[slot] = Some(open);
            outcome?;
        }
        for request in self.pending[at].clone() {
            self.send(at, &request)?;
        }
        Ok(())
    }

    fn restore(&mut self, at: usize, slot: usize, open: &Slot) -> Result<(), SimulatorError> {
        let space = self.open_one(slot, &open.environment)?;
        let doing = "running an episode again";
        if space != open.space {
            return Err(unusable(doing, "another environment than before".to_owned()));
        }
        let Some((seed, start)) = &open.began else { return Ok(()) };
        let request = json!({
            "do": "replay", "slot": slot, "seed": seed, "start": start,
            "steps": open.actions.len(),
        });
        let payload: Vec<u8> =
            open.actions.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
        self.workers[at].send(doing, &request, &payload)?;
        let patience = patience(STEP).saturating_mul(4);
        self.workers[at].receive(doing, patience)?;
        Ok(())
    }
}

fn opening(environment: &Environment) -> String {
    format!("opening {}/{}", environment.suite, environment.task)
}

/// How long something may take: `PIXIO_EVAL_SIMULATOR_TIMEOUT` seconds, else `standard`.
fn patience(standard: u64) -> Duration {
    let set = std::env::var("PIXIO_EVAL_SIMULATOR_TIMEOUT").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(set.filter(|&seconds| seconds > 0).unwrap_or(standard))
}

fn numbers(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    let bytes = bytes.get(..8 * count)?;
    let number = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    Some(bytes.chunks_exact(8).map(number).collect())
}
