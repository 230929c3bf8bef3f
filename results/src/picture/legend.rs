//! Which classes a legend names.

use ndarray::ArrayView2;

/// Classes named at most.
pub(super) const MOST: usize = 12;

/// What a legend lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Legend {
    /// The classes with the largest areas, largest first; of equal ones the smaller label.
    pub(super) classes: Vec<u8>,
    /// How many more occur.
    pub(super) more: usize,
    /// Whether pixels are ignored.
    pub(super) ignored: bool,
}

/// The classes that occur in truth or prediction, by their area in both together.
pub(super) fn legend(
    truth: ArrayView2<'_, u8>,
    prediction: ArrayView2<'_, u8>,
    ignore: u8,
) -> Legend {
    let mut areas = [0_usize; 256];
    let counted = truth.iter().filter(|&&label| label != ignore).chain(prediction.iter());
    for &label in counted {
        areas[usize::from(label)] += 1;
    }
    let mut classes: Vec<u8> = (0..=255).filter(|&k| areas[usize::from(k)] > 0).collect();
    classes.sort_by_key(|&class| std::cmp::Reverse(areas[usize::from(class)]));
    let more = classes.len().saturating_sub(MOST);
    classes.truncate(MOST);
    Legend { classes, more, ignored: truth.iter().any(|&label| label == ignore) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn classes_of_both_maps_largest_first() {
        let truth = array![[3, 3, 3, 255], [0, 7, 7, 255]];
        let prediction = array![[3, 3, 9, 9], [7, 7, 7, 9]];
        let found = legend(truth.view(), prediction.view(), 255);
        assert_eq!(found, Legend { classes: vec![3, 7, 9, 0], more: 0, ignored: true });
    }

    #[test]
    fn many_classes_are_counted_not_named() {
        let labels = Array2::from_shape_fn((1, 40), |(_, x)| (x / 2) as u8);
        let found = legend(labels.view(), labels.view(), 255);
        assert_eq!(found, Legend { classes: (0..12).collect(), more: 8, ignored: false });
    }
}
