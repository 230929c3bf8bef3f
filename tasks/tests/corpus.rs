//! The inputs worth keeping, once each; and, on demand, mutations of them for a stated time:
//!
//! ```text
//! FUZZ_SECONDS=60 cargo test --release -p pixio-eval-tasks --test corpus -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../fuzz/src/archives.rs"]
mod archives;
#[path = "../../harness/pickle/fuzz/src/bounded.rs"]
mod bounded;
#[path = "../fuzz/src/images.rs"]
mod images;
#[path = "../fuzz/src/lists.rs"]
mod lists;
#[path = "../fuzz/src/registry.rs"]
mod registry;

type Check = fn(&[u8]) -> bool;
const TARGETS: [(&str, Check); 4] = [
    ("images", images::check),
    ("lists", lists::check),
    ("registry", registry::check),
    ("archives", archives::check),
];

/// The corpus of a target; that of images has the files of their tests besides.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![tests.join("fuzz/corpus").join(target)];
    if target == "images" {
        folders.extend(["jpeg", "png"].map(|kind| tests.join("tests/data/images").join(kind)));
    }
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpora_are_read_without_a_panic() {
    for (target, check) in TARGETS {
        let corpus = corpus(target);
        let whole = corpus.iter().filter(|data| check(data)).count();
        // With none that is right, a change of format has left the corpus behind.
        assert!(corpus.len() >= 5 && whole > 1, "{target}: {whole} of {} files", corpus.len());
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n.max(1) as u64) as usize
    }
}

/// Bytes changed, numbers at their limits, parts left out, repeated or taken from another file.
fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const NUMBERS: [u64; 10] =
        [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX];
    for _ in 0..1 + random.below(6) {
        let at = random.below(data.len() + 1);
        let most = 1 << random.below(8);
        let length = random.below(most).min(data.len() - at);
        match random.below(8) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = random.below(256) as u8,
            2 => {
                let number = NUMBERS[random.below(NUMBERS.len())];
                let bytes =
                    if random.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let width = (1 << random.below(4)).min(data.len() - at);
                let from = if bytes[0] == 0 { 8 - width } else { 0 };
                data[at..at + width].copy_from_slice(&bytes[from..from + width]);
            }
            3 => drop(data.drain(at..at + length)),
            4 => data.truncate(at),
            5 => {
                let part = data[at..at + length].to_vec();
                data.splice(at..at, part);
            }
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let part = other[from..(from + length + 1).min(other.len())].to_vec();
                let end = (at + part.len()).min(data.len());
                data.splice(at..end, part);
            }
            _ => data.insert(at, b"\n /.\\=\"[]{}#*\0\xff"[random.below(15)]),
        }
    }
}

/// Each target for `FUZZ_SECONDS` (5), from `FUZZ_SEED` (0) on. A case that fails is left in the temporary
/// folder, in `fuzz-TARGET`.
#[test]
#[ignore = "takes as long as it is told to"]
fn fuzz_for() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let time = Duration::from_secs(number("FUZZ_SECONDS", 5));
    for (target, check) in TARGETS {
        let corpus = corpus(target);
        let case = std::env::temp_dir().join(format!("fuzz-{target}"));
        let mut random = Random(number("FUZZ_SEED", 0));
        let (began, mut runs, mut whole) = (Instant::now(), 0_u64, 0_u64);
        while began.elapsed() < time {
            let mut data = corpus[random.below(corpus.len())].clone();
            let other = &corpus[random.below(corpus.len())];
            mutate(&mut data, other, &mut random);
            // Before it is tried: a refused allocation ends the program at once.
            std::fs::write(&case, &data).unwrap();
            whole += u64::from(check(&data));
            runs += 1;
        }
        std::fs::remove_file(&case).unwrap();
        println!("{target}: {runs} executions, {whole} accepted, in {:.0?}", began.elapsed());
    }
}
