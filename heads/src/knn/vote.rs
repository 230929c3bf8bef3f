use schema::{KPrediction, VoteStage};

use super::error::KnnError;

/// How many classes top-5 looks at, at most.
const TOP: usize = 5;

/// Checks a vote's settings against the number of train samples, before any work.
///
/// # Errors
/// As [`Knn::predict`](super::Knn::predict): `k` of 0 or above the train set, a list of k that is
/// empty or not ascending, a temperature that is not positive or too small.
pub fn check_vote(stage: &VoteStage, train: usize) -> Result<(), KnnError> {
    Vote::new(stage, train).map(drop)
}

/// A vote whose settings were checked against the train set.
pub(super) struct Vote<'a> {
    ks: &'a [usize],
    temperature: f64,
    pub(super) k_max: usize,
}

impl<'a> Vote<'a> {
    pub(super) fn new(stage: &'a VoteStage, train: usize) -> Result<Self, KnnError> {
        let (ks, temperature) = (stage.k.as_slice(), stage.temperature);
        if ks.contains(&0) {
            return Err(KnnError::KZero);
        }
        let k_max = match ks.last() {
            Some(&last) if ks.is_sorted_by(|a, b| a < b) => last,
            _ => return Err(KnnError::KList { found: ks.to_vec() }),
        };
        if k_max > train {
            return Err(KnnError::KTooLarge { k: k_max, train });
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(KnnError::Temperature { found: temperature });
        }
        // Norms may be off by half a percent each, see `Features`.
        if !((1.01 / temperature).exp() * k_max as f64).is_finite() {
            return Err(KnnError::TemperatureTooSmall { found: temperature, k: k_max });
        }
        Ok(Self { ks, temperature, k_max })
    }

    /// Predicts one query for every k of the list, in its order.
    ///
    /// `neighbours` are `(similarity, class)`, nearest first. `scores` is scratch, one a class.
    pub(super) fn predict(
        &self,
        neighbours: impl Iterator<Item = (f32, u32)>,
        label: u32,
        scores: &mut [f64],
    ) -> Vec<KPrediction> {
        scores.fill(0.0);
        let mut neighbours = neighbours.map(|(similarity, class)| {
            ((f64::from(similarity) / self.temperature).exp(), class as usize)
        });
        let mut voted = 0;
        let predict = |&k: &usize| {
            for (weight, class) in neighbours.by_ref().take(k - voted) {
                if let Some(score) = scores.get_mut(class) {
                    *score += weight;
                }
            }
            voted = k;
            let first = first_classes(scores);
            let first = first.get(..k.min(first.len())).unwrap_or(&first);
            let predicted = first.first().copied().unwrap_or_default();
            KPrediction {
                k: k as u32,
                predicted,
                top1: predicted == label,
                top5: first.contains(&label),
            }
        };
        self.ks.iter().map(predict).collect()
    }
}

/// The first [`TOP`] classes by score descending, equal scores by class ascending.
fn first_classes(scores: &[f64]) -> Vec<u32> {
    let mut first: Vec<(f64, u32)> = Vec::with_capacity(TOP + 1);
    for (&score, class) in scores.iter().zip(0..) {
        let place = first.partition_point(|&(other, _)| other >= score);
        if place < TOP {
            first.insert(place, (score, class));
            first.truncate(TOP);
        }
    }
    first.into_iter().map(|(_, class)| class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(k: &[usize], temperature: f64) -> VoteStage {
        VoteStage { revision: 1, k: k.to_vec(), temperature }
    }

    #[test]
    fn equal_scores_rank_by_class_and_classes_without_votes_count() {
        assert_eq!(first_classes(&[0.0, 2.0, 0.0, 3.0, 2.0, 0.0, 0.0]), [3, 1, 4, 0, 2]);
        assert_eq!(first_classes(&[0.0, 1.0]), [1, 0]);
    }

    #[test]
    fn top5_looks_at_no_more_classes_than_neighbours() {
        let stage = stage(&[1, 2, 4], 1.0);
        let vote = Vote::new(&stage, 4).unwrap();
        let neighbours = [(0.9, 6), (0.8, 2), (0.7, 2), (0.1, 5)];
        let mut scores = [0.0; 8];
        let by_k = vote.predict(neighbours.into_iter(), 0, &mut scores);
        // k = 4: class 2 overtakes; then 6, 5 and, without votes, 0: among the first four.
        let expected = [(1, 6, false, false), (2, 6, false, false), (4, 2, false, true)];
        assert_eq!(
            by_k,
            expected.map(|(k, predicted, top1, top5)| KPrediction { k, predicted, top1, top5 })
        );
        let by_k = vote.predict(neighbours.into_iter(), 2, &mut scores);
        assert_eq!(
            by_k.iter().map(|p| (p.top1, p.top5)).collect::<Vec<_>>(),
            [(false, false), (false, true), (true, true)]
        );
    }

    #[test]
    fn a_colder_vote_follows_the_nearest() {
        let neighbours = [(0.9, 1), (0.8, 0), (0.8, 0)];
        let predicted = |temperature| {
            let stage = stage(&[3], temperature);
            let vote = Vote::new(&stage, 3).unwrap();
            vote.predict(neighbours.into_iter(), 0, &mut [0.0; 2])[0].predicted
        };
        // 2 exp(-0.1/T) > 1 exactly when T > 0.1 / ln 2 = 0.144.
        assert_eq!(predicted(0.15), 0);
        assert_eq!(predicted(0.14), 1);
        assert_eq!(predicted(0.002), 1);
    }

    #[test]
    fn bad_settings_are_refused() {
        let refused = |k: &[usize], temperature| {
            Vote::new(&stage(k, temperature), 100).map(|vote| vote.k_max).unwrap_err().to_string()
        };
        assert_eq!(refused(&[0, 10], 0.07), "k = 0: at least one neighbour is needed");
        assert_eq!(
            refused(&[10, 200], 0.07),
            "k = 200 is larger than the train set of 100 samples"
        );
        let list = "the list of k must be strictly ascending and not empty, found";
        assert_eq!(refused(&[], 0.07), format!("{list} []"));
        assert_eq!(refused(&[20, 10], 0.07), format!("{list} [20, 10]"));
        assert_eq!(refused(&[10, 10], 0.07), format!("{list} [10, 10]"));
        let positive = "a positive, finite number is needed";
        assert_eq!(refused(&[10], 0.0), format!("temperature 0: {positive}"));
        assert_eq!(refused(&[10], -0.07), format!("temperature -0.07: {positive}"));
        assert_eq!(refused(&[10], f64::NAN), format!("temperature NaN: {positive}"));
        assert_eq!(
            refused(&[10], 0.001),
            "temperature 0.001 is too small: the weights of 10 neighbours, exp(1/0.001) each, \
             overflow a 64-bit float"
        );
    }
}
