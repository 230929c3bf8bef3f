//! Snappy streams, from the middle.
//!
//! Encoders pack blocks of 64 KiB by themselves: no copy reaches back over the beginning of its block. Images
//! hardly compress, so a block is a few literals, and walking from element to element reads little more than the
//! headers of literals, as walking through a tar archive does.

use std::collections::VecDeque;

use super::super::error::{Fault, Problem};
use super::super::found::{Method, Place};
use super::super::source::Window;

/// Unpacked bytes of a block.
const BLOCK: u64 = 1 << 16;
/// Copies of copies that are followed for one byte; behind more, the page is unpacked whole.
const MOST_HOPS: usize = 64;
/// Bytes of the longest header of an element.
const HEADER: usize = 5;
/// The most bytes that one packed byte makes: a copy of 64 has three.
const RATIO: usize = 22;

enum Element {
    Literal(u64),
    Copy { back: u64, len: u64 },
}

/// Length of an element's header, and what it says. None: too few bytes.
fn element(bytes: &[u8]) -> Option<(usize, Element)> {
    let tag = *bytes.first()?;
    let number = |n: usize| {
        let bytes = bytes.get(1..=n)?;
        Some(bytes.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let long = u64::from(tag >> 2);
    Some(match tag & 3 {
        0 if long < 60 => (1, Element::Literal(long + 1)),
        0 => {
            let n = long as usize - 59;
            (1 + n, Element::Literal(number(n)? + 1))
        }
        1 => {
            let back = u64::from(tag >> 5) << 8 | number(1)?;
            (2, Element::Copy { back, len: (long & 7) + 4 })
        }
        2 => (3, Element::Copy { back: number(2)?, len: long + 1 }),
        _ => (5, Element::Copy { back: number(4)?, len: long + 1 }),
    })
}

/// Unpacks elements until `take` bytes after `skip` are there. None: damaged, or too few.
pub(in super::super) fn unpack(mut bytes: &[u8], skip: usize, take: usize) -> Option<Vec<u8>> {
    let end = skip.checked_add(take)?;
    let mut out = Vec::with_capacity(end.min(bytes.len().saturating_mul(RATIO)));
    while out.len() < end {
        let (header, element) = element(bytes)?;
        let left = (end - out.len()) as u64;
        match element {
            Element::Literal(len) => {
                let used = len.min(left) as usize;
                out.extend_from_slice(bytes.get(header..header + used)?);
                bytes = bytes.get(header + used..)?;
            }
            Element::Copy { back, len } => {
                let back = usize::try_from(back).ok()?;
                let len = len.min(left) as usize;
                let from = out.len().checked_sub(back).filter(|_| back > 0)?;
                if len <= back {
                    out.extend_from_within(from..from + len);
                } else {
                    for i in from..from + len {
                        out.push(out[i]);
                    }
                }
                bytes = &bytes[header..];
            }
        }
    }
    out.drain(..skip);
    Some(out)
}

/// The length that a stream has at its beginning: bytes of it, and unpacked bytes.
pub(super) fn preamble(bytes: &[u8]) -> Option<(usize, u64)> {
    let mut value = 0_u64;
    for (i, &byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((i + 1, value));
        }
    }
    None
}

/// Why a walk ended.
pub(super) enum Stop {
    Fault(Fault),
    /// A copy reaches over the beginning of its block: such a stream is unpacked whole.
    Crossing,
}

impl<F: Into<Fault>> From<F> for Stop {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

#[derive(Clone, Copy)]
struct Block {
    out: u64,
    packed: u64,
}

#[derive(Clone, Copy)]
enum Source {
    /// Place of the first byte in the file.
    Literal(u64),
    /// How many bytes back.
    Copy(u64),
}

/// Walks over the elements of a stream, forward. Keeps those of the last two blocks.
pub(super) struct Walk {
    next: u64,
    end: u64,
    out: u64,
    elements: VecDeque<(u64, Source)>,
    before: Block,
    block: Block,
}

impl Walk {
    /// Of the elements between two places in the file.
    pub(super) fn new(start: u64, end: u64) -> Self {
        let block = Block { out: 0, packed: start };
        Self { next: start, end, out: 0, elements: VecDeque::new(), before: block, block }
    }

    /// Walks until `to` bytes would be unpacked.
    fn reach(&mut self, window: &mut Window<'_>, to: u64) -> Result<(), Stop> {
        while self.out < to {
            if self.out >= self.block.out + BLOCK {
                self.before = self.block;
                self.block = Block { out: self.out, packed: self.next };
                while self.elements.front().is_some_and(|&(out, _)| out < self.before.out) {
                    self.elements.pop_front();
                }
            }
            let room = (self.end - self.next).min(HEADER as u64) as usize;
            let element = element(window.slice(self.next, room)?);
            let (header, element) = element.ok_or_else(|| broken("a Snappy stream ends early"))?;
            let at = self.next + header as u64;
            let (source, len, packed) = match element {
                Element::Literal(len) => (Source::Literal(at), len, len),
                Element::Copy { back, len } => {
                    let from = self.out.checked_sub(back).filter(|_| back > 0);
                    let from = from.ok_or_else(|| broken("a Snappy copy of nothing"))?;
                    if from < self.block.out {
                        return Err(Stop::Crossing);
                    }
                    (Source::Copy(back), len, 0)
                }
            };
            if at + packed > self.end {
                return Err(broken("a Snappy literal ends early").into());
            }
            self.elements.push_back((self.out, source));
            self.next = at + packed;
            self.out += len;
        }
        Ok(())
    }

    /// Some unpacked bytes. Asked for in ascending order.
    pub(super) fn bytes(
        &mut self,
        window: &mut Window<'_>,
        at: u64,
        n: u64,
    ) -> Result<Vec<u8>, Stop> {
        let mut bytes = Vec::new();
        for mut wanted in at..at + n {
            self.reach(window, wanted + 1)?;
            let mut hops = 0;
            loop {
                hops += 1;
                if hops > MOST_HOPS {
                    return Err(Stop::Crossing);
                }
                let place = self.elements.partition_point(|&(out, _)| out <= wanted);
                let element = place.checked_sub(1).and_then(|i| self.elements.get(i));
                match *element.ok_or(Stop::Crossing)? {
                    (out, Source::Literal(at)) => {
                        let byte = window.slice(at + (wanted - out), 1)?;
                        bytes.push(*byte.first().ok_or(Fault::from(Problem::Truncated))?);
                        break;
                    }
                    (_, Source::Copy(back)) => wanted -= back,
                }
            }
        }
        Ok(bytes)
    }

    /// Where some unpacked bytes are read from.
    pub(super) fn place(
        &mut self,
        window: &mut Window<'_>,
        at: u64,
        size: u64,
    ) -> Result<Place, Stop> {
        let mut place = Place::new(Method::Snappy, 0, size)?;
        if size == 0 {
            return Ok(place);
        }
        self.reach(window, at + 1)?;
        let from = if at >= self.block.out { self.block } else { self.before };
        let skip = at.checked_sub(from.out).ok_or(Stop::Crossing)?;
        self.reach(window, at + size)?;
        let last = self.elements.back();
        let end = match last.filter(|&&(out, _)| out < at + size) {
            Some(&(out, Source::Literal(place))) => place + (at + size - out),
            _ => self.next,
        };
        place.offset = from.packed;
        place.packed = narrow(end - from.packed)?;
        place.extra = narrow(skip)?;
        Ok(place)
    }
}

fn narrow(number: u64) -> Result<u32, Fault> {
    u32::try_from(number).map_err(|_| broken("a Snappy block of more than 4 GiB"))
}

fn broken(what: &str) -> Fault {
    Fault::damaged(what)
}
