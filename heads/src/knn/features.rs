use rayon::prelude::*;

use super::error::{KnnError, Set};

/// How far a squared norm may be from 1: leaves room for rows kept in 16-bit floats.
const SQUARED_NORM_TOLERANCE: f64 = 1e-2;

/// Feature rows `[n, dim]`, row-major, borrowed from memory or from a file's map.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Features<'a> {
    /// Takes `n * dim` values as `n` rows.
    ///
    /// # Errors
    /// [`KnnError::Ragged`] when the values do not divide into rows (also for `dim = 0`).
    pub fn new(values: &'a [f32], dim: usize) -> Result<Self, KnnError> {
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(KnnError::Ragged { values: values.len(), dim });
        }
        Ok(Self { values, dim })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Width of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Refuses an empty set, and names the first row that is not finite or not normalised.
    pub(super) fn check(&self, set: Set) -> Result<(), KnnError> {
        if self.values.is_empty() {
            return Err(KnnError::Empty { set });
        }
        let bad = self
            .values
            .par_chunks(self.dim)
            .enumerate()
            .with_min_len(64)
            .find_map_first(|(row, values)| check_row(set, row, values));
        bad.map_or(Ok(()), Err)
    }
}

fn check_row(set: Set, row: usize, values: &[f32]) -> Option<KnnError> {
    let squared = f64::from(sum_of_squares(values));
    if squared == 0.0 || (squared - 1.0).abs() <= SQUARED_NORM_TOLERANCE {
        return None;
    }
    let bad = values.iter().enumerate().find(|(_, value)| !value.is_finite());
    Some(match bad {
        Some((column, &value)) => KnnError::NonFinite { set, row, column, value },
        None => KnnError::NotNormalised { set, row, norm: norm(values) },
    })
}

/// In independent lanes, so that it runs at the speed of memory; precise enough for a check.
fn sum_of_squares(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0_f32; 16];
    for group in groups {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane += value * value;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Divides each row of `[n, dim]` by its L2 norm, or by 1e-12 where the norm is smaller: a row of
/// zeros stays one. As `torch.nn.functional.normalize`, with the norm summed in 64 bits.
///
/// # Errors
/// [`KnnError::Ragged`] when the values do not divide into rows.
pub fn l2_normalise(values: &mut [f32], dim: usize) -> Result<(), KnnError> {
    Features::new(values, dim)?;
    values.par_chunks_mut(dim).with_min_len(64).for_each(|row| {
        let norm = norm(row).max(1e-12) as f32;
        row.iter_mut().for_each(|value| *value /= norm);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalising_divides_by_the_norm_and_keeps_zero_rows() {
        let mut values = [3.0, 4.0, 0.0, 0.0, 1e-13, 0.0];
        l2_normalise(&mut values, 2).unwrap();
        assert_eq!(values, [0.6, 0.8, 0.0, 0.0, 1e-13 / 1e-12, 0.0]);
        assert_eq!(l2_normalise(&mut values, 4), Err(KnnError::Ragged { values: 6, dim: 4 }));
        assert_eq!(l2_normalise(&mut values, 0), Err(KnnError::Ragged { values: 6, dim: 0 }));
    }

    #[test]
    fn the_first_bad_row_is_named() {
        let mut values = vec![0.0; 200 * 20];
        values[150 * 20 + 17] = f32::NEG_INFINITY;
        values[180 * 20] = 2.0;
        let check = |values: &[f32]| Features::new(values, 20).unwrap().check(Set::Query);
        let bad =
            KnnError::NonFinite { set: Set::Query, row: 150, column: 17, value: f32::NEG_INFINITY };
        assert_eq!(check(&values), Err(bad));
        values[150 * 20 + 17] = 1.0;
        let long = KnnError::NotNormalised { set: Set::Query, row: 180, norm: 2.0 };
        assert_eq!(check(&values), Err(long));
        values[180 * 20] = f32::MAX; // its square overflows, the value does not
        let huge = check(&values).unwrap_err();
        assert!(matches!(huge, KnnError::NotNormalised { row: 180, .. }), "{huge}");
        values[180 * 20] = f32::NAN;
        let nan = check(&values).unwrap_err();
        assert_eq!(nan.to_string(), "query row 180 has NaN in column 0: features must be finite");
        assert_eq!(check(&[]), Err(KnnError::Empty { set: Set::Query }));
    }
}
