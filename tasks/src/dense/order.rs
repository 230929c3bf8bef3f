//! Which samples make up each batch of an epoch.

use crate::random::shuffled;

/// Training steps of one epoch: `floor(ceil(samples / groups) / group_size)`, the steps of `groups`
/// equal shares of the samples, without an incomplete last batch. 0 where a batch is empty or
/// larger than the padded split.
pub fn steps_per_epoch(samples: usize, groups: usize, group_size: usize) -> usize {
    if groups == 0 || group_size == 0 {
        return 0;
    }
    samples.div_ceil(groups) / group_size
}

/// The batches of one epoch.
///
/// The samples are shuffled, and the shuffled order is repeated from its start until its length is a
/// multiple of `groups`. Group `g` takes its positions `g, g + groups, g + 2 groups, ...`,
/// `group_size` of them a step; what is left over at the end is dropped. A repeated sample (fewer than
/// `groups` are, once each, unless there are fewer samples than groups) has the same crop both times,
/// since that depends on its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    order: Vec<usize>,
    groups: usize,
    group_size: usize,
}

impl EpochOrder {
    /// Shuffles the indices `0..samples` for an epoch, counted from 0. The shuffle depends on
    /// `seed`, the data set's name, `epoch` and `samples` alone.
    pub fn new(
        seed: u64,
        dataset: &str,
        epoch: usize,
        samples: usize,
        groups: usize,
        group_size: usize,
    ) -> Self {
        let order = shuffled(seed, &format!("dense/order/{dataset}/{epoch}"), samples);
        Self { order, groups, group_size }
    }

    /// Number of batches, see [`steps_per_epoch`].
    pub fn steps(&self) -> usize {
        steps_per_epoch(self.order.len(), self.groups, self.group_size)
    }

    /// The `groups * group_size` sample indices of a step, group after group; `None` from
    /// [`steps`](Self::steps) on.
    pub fn step(&self, step: usize) -> Option<Vec<usize>> {
        if step >= self.steps() {
            return None;
        }
        let first = step * self.group_size;
        let positions = (0..self.groups).flat_map(|group| {
            (first..first + self.group_size).map(move |turn| turn * self.groups + group)
        });
        Some(positions.map(|position| self.order[position % self.order.len()]).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_are_the_published_ones() {
        let steps = [(24_231, 4), (23_158, 4), (20_210, 2), (10_582, 4), (2_522, 1)]
            .map(|(samples, group_size)| steps_per_epoch(samples, 8, group_size));
        assert_eq!(steps, [757, 723, 1263, 330, 316]);
        assert_eq!(
            [(0, 8, 4), (9, 0, 4), (9, 8, 0)].map(|(n, g, b)| steps_per_epoch(n, g, b)),
            [0; 3]
        );
    }

    #[test]
    fn an_epoch_is_frozen_and_dealt_to_groups_in_turn() {
        let order = EpochOrder::new(0, "nyuv2", 0, 13, 4, 2);
        assert_eq!(order.order, FROZEN);
        // 13 padded to 16: 4 a group, two steps.
        let expected = [[0, 4, 1, 5, 2, 6, 3, 7], [8, 12, 9, 0, 10, 1, 11, 2]];
        for (step, positions) in expected.iter().enumerate() {
            let expected: Vec<usize> = positions.iter().map(|&at| FROZEN[at]).collect();
            assert_eq!(order.step(step), Some(expected));
        }
        assert_eq!(order.step(2), None);
        for other in [(1, "nyuv2", 0), (0, "kitti", 0), (0, "nyuv2", 1)] {
            assert_ne!(EpochOrder::new(other.0, other.1, other.2, 13, 4, 2), order, "{other:?}");
        }
    }

    const FROZEN: [usize; 13] = [11, 6, 10, 2, 5, 12, 4, 8, 7, 1, 0, 9, 3];

    proptest! {
        #[test]
        fn every_batch_is_full_and_no_sample_is_preferred(
            samples in 0_usize..200, groups in 1_usize..10, group_size in 1_usize..6, epoch in 0_usize..9,
        ) {
            let order = EpochOrder::new(3, "kitti", epoch, samples, groups, group_size);
            let mut seen = vec![0; samples];
            for step in 0..order.steps() {
                let batch = order.step(step).unwrap();
                prop_assert_eq!(batch.len(), groups * group_size);
                batch.into_iter().for_each(|index| seen[index] += 1);
            }
            prop_assert_eq!(order.step(order.steps()), None);
            let used = order.steps() * groups * group_size;
            prop_assert!(used <= samples.next_multiple_of(groups));
            prop_assert!(samples.next_multiple_of(groups) - used < groups * group_size);
            if samples >= groups {
                let repeated = seen.iter().filter(|&&count| count == 2).count();
                prop_assert!(repeated < groups && seen.iter().all(|&count| count <= 2));
            }
        }
    }
}
