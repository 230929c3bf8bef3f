use ndarray::ArrayView2;

/// A target label that is neither a class nor the ignored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {label} at row {row}, column {column} is outside the {classes} classes")]
pub struct LabelOutside {
    /// The label found.
    pub label: u8,
    /// Row of its first pixel.
    pub row: usize,
    /// Column of its first pixel.
    pub column: usize,
    /// Number of classes.
    pub classes: usize,
}

/// What a confusion matrix comes to for IoU, by class: pixels where prediction and target agree,
/// pixels predicted, pixels of the target. Counts of images add up to those of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounts {
    /// Predicted and true, `[classes]`.
    pub intersection: Vec<u64>,
    /// Predicted, `[classes]`.
    pub predicted: Vec<u64>,
    /// True, `[classes]`.
    pub target: Vec<u64>,
}

impl ClassCounts {
    /// No pixels of any of `classes` classes.
    pub fn new(classes: usize) -> Self {
        let none = || vec![0; classes];
        Self { intersection: none(), predicted: none(), target: none() }
    }

    /// Counts one image, labels `[H, W]`. Pixels whose target is `ignore` count neither as target nor
    /// as prediction.
    ///
    /// # Errors
    /// A target that is neither a class nor `ignore`, and a prediction that is no class.
    pub fn of(
        prediction: ArrayView2<'_, u8>,
        target: ArrayView2<'_, u8>,
        classes: usize,
        ignore: u8,
    ) -> Result<Self, LabelOutside> {
        let mut counts = Self::new(classes);
        for ((at, &truth), &found) in target.indexed_iter().zip(prediction.iter()) {
            if truth == ignore {
                continue;
            }
            for label in [truth, found] {
                if usize::from(label) >= classes {
                    return Err(LabelOutside { label, row: at.0, column: at.1, classes });
                }
            }
            counts.target[usize::from(truth)] += 1;
            counts.predicted[usize::from(found)] += 1;
            counts.intersection[usize::from(truth)] += u64::from(truth == found);
        }
        Ok(counts)
    }

    /// Adds another image's or set's counts of the same classes.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.intersection, &other.intersection),
            (&mut self.predicted, &other.predicted),
            (&mut self.target, &other.target),
        ];
        for (sum, more) in pairs {
            sum.iter_mut().zip(more).for_each(|(a, b)| *a += b);
        }
    }

    /// Pixels of the union, by class.
    pub fn union(&self) -> impl Iterator<Item = u64> {
        let areas = self.predicted.iter().zip(&self.target).zip(&self.intersection);
        areas.map(|((predicted, target), both)| predicted + target - both)
    }

    /// Intersection over union by class, percent; 1e-6 is added to each union, as the published code
    /// does, so that an absent class scores 0.
    pub fn iou(&self) -> Vec<f64> {
        let pairs = self.intersection.iter().zip(self.union());
        pairs.map(|(&both, union)| both as f64 / (union as f64 + 1e-6) * 100.0).collect()
    }

    /// Mean IoU over all classes, absent ones included, percent.
    pub fn miou(&self) -> f64 {
        self.iou().iter().sum::<f64>() / self.intersection.len().max(1) as f64
    }

    /// Share of target pixels predicted right, percent.
    pub fn pixel_accuracy(&self) -> f64 {
        let sum = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
        100.0 * sum(&self.intersection) / sum(&self.target).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ignored_pixels_count_nowhere_and_absent_classes_score_zero() {
        let prediction = array![[0u8, 1, 1], [2, 0, 0]];
        let target = array![[0u8, 1, 0], [255, 0, 255]];
        let counts = ClassCounts::of(prediction.view(), target.view(), 3, 255).unwrap();
        assert_eq!(counts.intersection, [2, 1, 0]);
        assert_eq!(counts.union().collect::<Vec<_>>(), [3, 2, 0]);
        let expected = (200.0 / 3.0 + 50.0) / 3.0;
        assert!((counts.miou() - expected).abs() < 1e-3);
        assert_eq!(counts.pixel_accuracy(), 75.0);
    }

    #[test]
    fn a_label_outside_the_classes_is_named_with_its_place() {
        let target = array![[0u8, 0], [0, 3]];
        let found = ClassCounts::of(target.view(), target.view(), 3, 255).unwrap_err();
        assert_eq!(found, LabelOutside { label: 3, row: 1, column: 1, classes: 3 });
    }

    proptest! {
        #[test]
        fn counts_of_parts_add_up_to_the_whole(
            pixels in proptest::collection::vec((0u8..5, prop_oneof![0u8..5, Just(255u8)]), 12..200),
            at in 1usize..11,
        ) {
            let rows = pixels.len() / 12;
            let map = |pick: fn(&(u8, u8)) -> u8| {
                let values = pixels[..rows * 12].iter().map(pick).collect();
                Array2::from_shape_vec((rows, 12), values).unwrap()
            };
            let (prediction, target) = (map(|p| p.0), map(|p| p.1));
            let of = |p, t| ClassCounts::of(p, t, 5, 255).unwrap();
            let whole = of(prediction.view(), target.view());
            let (left, right) = prediction.view().split_at(ndarray::Axis(1), at);
            let (left_target, right_target) = target.view().split_at(ndarray::Axis(1), at);
            let mut sum = of(left, left_target);
            sum.add(&of(right, right_target));
            prop_assert_eq!(sum, whole);
        }
    }
}
