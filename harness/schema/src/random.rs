//! Randomness by counter: what is drawn depends on a key and a counter alone, never on the order
//! or the thread in which it is asked for.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
//! easy as 1, 2, 3", SC 2011). It is frozen by the known-answer vectors in the tests below: every
//! seeded result of the program depends on these exact words.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// A keyed function from 128-bit counters to 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// A stream of its own for every key; the low word of `key` is Philox's first key word.
    pub fn new(key: u64) -> Self {
        Self { key: halves(key) }
    }

    /// A stream for one purpose under a seed. Streams of different tags are unrelated, so that, for
    /// example, a shuffle and the crops of one seed do not share draws.
    pub fn tagged(seed: u64, tag: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(tag.as_bytes());
        let mut key = [0; 8];
        hasher.finalize_xof().fill(&mut key);
        Self::new(u64::from_le_bytes(key))
    }

    /// Four random words at a counter.
    pub fn at(&self, counter: [u32; 4]) -> [u32; 4] {
        let mut words = counter;
        let mut key = self.key;
        for _ in 0..ROUNDS {
            let [low0, high0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(words[0]));
            let [low1, high1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(words[2]));
            words = [high1 ^ words[1] ^ key[0], low1, high0 ^ words[3] ^ key[1], low0];
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        words
    }

    /// A uniform number in `[0, 1)` with 53 random bits, from the first two words at `counter`.
    pub fn uniform(&self, counter: [u32; 4]) -> f64 {
        const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
        (join(self.at(counter)) >> 11) as f64 * SCALE
    }

    /// A uniform whole number in `0..n` without bias (Lemire, "Fast random integer generation in an
    /// interval", 2019); 0 where `n` is 0.
    ///
    /// The last counter word counts the rare rejected draws: callers leave it 0.
    pub fn below(&self, counter: [u32; 4], n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let rejected_below = n.wrapping_neg() % n;
        let mut counter = counter;
        loop {
            let product = u128::from(join(self.at(counter))) * u128::from(n);
            if product as u64 >= rejected_below {
                return (product >> 64) as u64;
            }
            counter[3] = counter[3].wrapping_add(1);
        }
    }
}

/// The numbers `0..n` in a random order that depends on `seed`, `tag` and `n` alone
/// (Fisher-Yates, position `i` drawn at counter `i`).
pub fn shuffled(seed: u64, tag: &str, n: usize) -> Vec<usize> {
    let stream = Stream::tagged(seed, tag);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let [low, high] = halves(i as u64);
        let j = stream.below([low, high, 0, 0], i as u64 + 1);
        order.swap(i, j as usize);
    }
    order
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn join(words: [u32; 4]) -> u64 {
    u64::from(words[0]) | u64::from(words[1]) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (philox4x32, 10 rounds).
    #[test]
    fn philox_gives_the_published_words() {
        let zeros = Stream::new(0).at([0; 4]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Stream::new(u64::MAX).at([u32::MAX; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = Stream::new(0x299f_31d0_a409_3822).at([
            0x243f_6a88,
            0x85a3_08d3,
            0x1319_8a2e,
            0x0370_7344,
        ]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn uniform_and_below_fill_their_range_evenly() {
        let stream = Stream::new(7);
        let draws = 40_000;
        let mut counts = [0_u32; 10];
        let mut sum = 0.0;
        for i in 0..draws {
            counts[stream.below([i, 0, 0, 0], 10) as usize] += 1;
            let value = stream.uniform([i, 1, 0, 0]);
            assert!((0.0..1.0).contains(&value));
            sum += value;
        }
        // Five standard deviations of a binomial count and of a uniform mean.
        assert!(counts.iter().all(|&c| f64::from(c.abs_diff(draws / 10)) < 300.0), "{counts:?}");
        assert!((sum / f64::from(draws) - 0.5).abs() < 0.0073, "{sum}");
        assert_eq!(stream.below([0; 4], 0), 0);
        assert_eq!(stream.below([0; 4], 1), 0);
    }

    #[test]
    fn a_shuffle_is_a_permutation_frozen_by_seed_and_tag() {
        let order = shuffled(0, "limit", 10);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_eq!(order, shuffled(0, "limit", 10));
        assert_ne!(order, shuffled(1, "limit", 10));
        assert_ne!(order, shuffled(0, "crops", 10));
        assert_eq!(order, FROZEN);
        assert!(shuffled(0, "limit", 0).is_empty());
    }

    const FROZEN: [usize; 10] = [4, 8, 9, 1, 2, 6, 3, 0, 5, 7];
}
