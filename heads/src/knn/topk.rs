use ops::{neighbour_key, neighbour_of_key};

/// Similarities compared with the threshold at once; the compiler turns it into vector code.
const LANES: usize = 32;

/// The running k nearest of one query.
///
/// Train rows are offered in ascending order, so a later row must be strictly more similar than
/// the k-th best so far: an equal one has the larger index and loses. Candidates gather in a
/// buffer; when it is full, the k best are kept and the threshold rises.
pub(super) struct TopK {
    k: usize,
    /// Sorting them ascending sorts by similarity descending, then by index ascending.
    keys: Vec<u64>,
    threshold: f32,
}

impl TopK {
    pub(super) fn new(k: usize) -> Self {
        Self { k, keys: Vec::with_capacity(Self::capacity(k)), threshold: f32::NEG_INFINITY }
    }

    /// The k nearest that were found already, as keys.
    pub(super) fn of_keys(keys: impl ExactSizeIterator<Item = u64>) -> Self {
        Self { k: keys.len(), keys: keys.collect(), threshold: f32::INFINITY }
    }

    /// Length of the buffer: compacted at `k + max(k, 64)`, and one group may still come in before.
    pub(super) const fn capacity(k: usize) -> usize {
        Self::limit(k) + LANES
    }

    const fn limit(k: usize) -> usize {
        k + if k > 64 { k } else { 64 }
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.threshold = f32::NEG_INFINITY;
    }

    /// Offers the similarities of train rows `first..first + similarities.len()`.
    pub(super) fn offer(&mut self, first: u32, similarities: &[f32]) {
        let mut index = first;
        let (groups, rest) = similarities.as_chunks::<LANES>();
        for group in groups {
            let threshold = self.threshold;
            if group.iter().fold(false, |any, &value| any | (value > threshold)) {
                self.push(index, group);
            }
            index += LANES as u32;
        }
        self.push(index, rest);
    }

    fn push(&mut self, first: u32, group: &[f32]) {
        for (index, &value) in (first..).zip(group) {
            if value > self.threshold {
                self.keys.push(neighbour_key(value, index));
            }
        }
        if self.keys.len() >= Self::limit(self.k) {
            let (_, &mut last, _) = self.keys.select_nth_unstable(self.k - 1);
            self.keys.truncate(self.k);
            self.threshold = neighbour_of_key(last).0;
        }
    }

    /// The k best `(similarity, train row)`, best first (fewer if fewer were offered).
    pub(super) fn sorted(&mut self) -> impl ExactSizeIterator<Item = (f32, u32)> {
        self.keys.sort_unstable();
        self.keys.truncate(self.k);
        self.keys.iter().map(|&key| neighbour_of_key(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_split_of_the_offers_equals_a_full_stable_sort(
            levels in prop::collection::vec(-3_i8..=3, 1..900),
            k in 1_usize..300,
            step in 1_usize..200,
        ) {
            let values: Vec<f32> = levels.iter().map(|&level| f32::from(level) / 3.0).collect();
            let mut top = TopK::new(k);
            let capacity = top.keys.capacity();
            for (part, offered) in values.chunks(step).enumerate() {
                top.offer((part * step) as u32, offered);
            }
            let mut expected: Vec<(f32, u32)> = values.iter().copied().zip(0..).collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0));
            expected.truncate(k);
            prop_assert_eq!(top.sorted().collect::<Vec<_>>(), expected);
            prop_assert_eq!(top.keys.capacity(), capacity);
        }
    }
}
