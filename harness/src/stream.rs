//! Feature streams: images in, in order, decoded on all cores ahead of the encoder.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many samples ahead of the one that is decoded the system is asked to fetch a file: threads that
/// wait for a disk or a server do not decode.
pub const READAHEAD: usize = 64;

struct State<T> {
    /// Index of the next item to make.
    next: usize,
    /// Index of the item at the front of `slots`.
    front: usize,
    slots: VecDeque<Option<T>>,
    stopped: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    made: Condvar,
    room: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.made.notify_all();
        self.room.notify_all();
    }
}

/// Wakes everyone when a worker or the consumer leaves early, also by a panic.
struct StopOnDrop<'a, T>(&'a Shared<T>, bool);

impl<T> Drop for StopOnDrop<'_, T> {
    fn drop(&mut self) {
        if self.1 {
            self.0.stop();
        }
    }
}

/// Calls `make(i)` for every `i` of `range` on `workers` threads, and `take` with the results in
/// order on this one. At most `ahead` results wait at any time. The first error of `take` ends it.
pub fn ordered<T: Send, E>(
    range: std::ops::Range<usize>,
    workers: usize,
    ahead: usize,
    make: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let ahead = ahead.max(1);
    let shared = Shared {
        state: Mutex::new(State {
            next: range.start,
            front: range.start,
            slots: VecDeque::new(),
            stopped: false,
        }),
        made: Condvar::new(),
        room: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, range.len().max(1)) {
            scope.spawn(|| work(&shared, range.end, ahead, &make));
        }
        let _stop = StopOnDrop(&shared, true);
        for i in range.clone() {
            let mut state = shared.lock();
            let item = loop {
                if let Some(Some(_)) = state.slots.front() {
                    state.front += 1;
                    break state.slots.pop_front().flatten();
                }
                if state.stopped {
                    break None;
                }
                state = shared.made.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            shared.room.notify_one();
            // Without an item a worker has panicked; the scope passes that on.
            let Some(item) = item else { break };
            take(i, item)?;
        }
        Ok(())
    })
}

fn work<T>(shared: &Shared<T>, end: usize, ahead: usize, make: &impl Fn(usize) -> T) {
    let mut guard = StopOnDrop(shared, true);
    loop {
        let mut state = shared.lock();
        while !state.stopped && state.next < end && state.next >= state.front + ahead {
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.next >= end {
            break;
        }
        let i = state.next;
        state.next += 1;
        state.slots.push_back(None);
        drop(state);
        let item = make(i);
        let mut state = shared.lock();
        let slot = i - state.front;
        state.slots[slot] = Some(item);
        drop(state);
        shared.made.notify_one();
    }
    guard.1 = false;
    // Others may be waiting for room that no longer matters.
    shared.room.notify_all();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn results_come_in_order_and_never_too_far_ahead(
            start in 0usize..50, count in 0usize..200, workers in 1usize..6, ahead in 1usize..20,
        ) {
            let made = AtomicUsize::new(0);
            let mut taken = Vec::new();
            let widest = AtomicUsize::new(0);
            let consumed = AtomicUsize::new(0);
            let make = |i: usize| {
                let lead = made.fetch_add(1, Ordering::SeqCst) + 1
                    - consumed.load(Ordering::SeqCst);
                widest.fetch_max(lead, Ordering::SeqCst);
                i * i
            };
            let result: Result<(), ()> = ordered(start..start + count, workers, ahead, make, |i, x| {
                consumed.fetch_add(1, Ordering::SeqCst);
                taken.push((i, x));
                Ok(())
            });
            prop_assert!(result.is_ok());
            prop_assert_eq!(taken, (start..start + count).map(|i| (i, i * i)).collect::<Vec<_>>());
            // One more than `ahead` is the item the consumer holds.
            prop_assert!(widest.load(Ordering::SeqCst) <= ahead + 1);
        }
    }

    #[test]
    fn an_error_ends_the_stream() {
        let result =
            ordered(0..1_000_000, 3, 8, |i| i, |i, _| if i == 5 { Err(i) } else { Ok(()) });
        assert_eq!(result, Err(5));
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_in_a_worker_is_passed_on() {
        let make = |i| assert_ne!(i, 7);
        let _ = ordered(0..100, 2, 4, make, |_, ()| Ok::<(), ()>(()));
    }
}
