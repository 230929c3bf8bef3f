//! The nearest neighbours of queries, from one block of similarities after another.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

/// Most neighbours that [`merge_nearest`] keeps.
pub const MOST_NEIGHBOURS: usize = 1024;

/// In place of a neighbour that was not found yet; after all keys.
const NONE: u64 = u64::MAX;

/// A similarity and the row it belongs to, so that ascending keys are similarities descending, then rows
/// ascending. The similarity -0 becomes 0, its equal.
pub fn neighbour_key(similarity: f32, row: u32) -> u64 {
    const SIGN: u32 = 1 << 31;
    // Adding zero makes -0 equal to 0.
    let bits = (similarity + 0.0).to_bits();
    let ascending = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    u64::from(!ascending) << 32 | u64::from(row)
}

/// The similarity and row of a [`neighbour_key`].
pub fn neighbour_of_key(key: u64) -> (f32, u32) {
    const SIGN: u32 = 1 << 31;
    let ascending = !((key >> 32) as u32);
    let bits = if ascending & SIGN == 0 { !ascending } else { ascending & !SIGN };
    (f32::from_bits(bits), key as u32)
}

/// No neighbours: `[queries, k]` i64, for [`merge_nearest`].
///
/// # Errors
/// If there is no memory.
pub fn no_neighbours(queries: usize, k: usize, device: &Device) -> Result<Tensor> {
    Tensor::full(NONE as i64, (queries, k), device)
}

/// Merges similarities `[queries, columns]` f32 into the nearest so far, in place: `keys` `[queries, k]` i64
/// holds [`neighbour_key`]s (their bits), ascending in each row. The first `rows` columns are the
/// similarities to rows `first` and following; the others are passed over, as are NaN.
///
/// # Errors
/// If the shapes or dtypes do not fit, `k` is 0 or more than [`MOST_NEIGHBOURS`], or a tensor is not
/// contiguous.
pub fn merge_nearest(keys: &Tensor, similarities: &Tensor, first: u32, rows: usize) -> Result<()> {
    let ((queries, k), (lines, columns)) = (keys.dims2()?, similarities.dims2()?);
    if queries != lines || rows > columns || k == 0 || k > MOST_NEIGHBOURS {
        bail!(
            "merge_nearest: expected keys [queries, 1 to {MOST_NEIGHBOURS}] and similarities [queries, {rows} \
             or more], found {:?} and {:?}",
            keys.dims(),
            similarities.dims()
        );
    }
    if (keys.dtype(), similarities.dtype()) != (DType::I64, DType::F32) {
        bail!("merge_nearest: expected i64 keys and f32 similarities");
    }
    if queries == 0 || rows == 0 {
        return Ok(());
    }
    keys.inplace_op2(similarities, &Merge { k, columns, first, rows })
}

pub(crate) struct Merge {
    pub(crate) k: usize,
    pub(crate) columns: usize,
    pub(crate) first: u32,
    pub(crate) rows: usize,
}

impl Merge {
    fn line(&self, own: &mut [i64], similarities: &[f32]) {
        let last = own.last().map_or(NONE, |&key| key as u64);
        let mut keys: Vec<u64> = own.iter().map(|&key| key as u64).collect();
        let candidates = similarities.iter().take(self.rows).zip(self.first..);
        let candidates = candidates.filter(|(similarity, _)| !similarity.is_nan());
        let candidates = candidates.map(|(&similarity, row)| neighbour_key(similarity, row));
        keys.extend(candidates.filter(|&key| key < last));
        if keys.len() > self.k {
            keys.select_nth_unstable(self.k - 1);
            keys.truncate(self.k);
            keys.sort_unstable();
        }
        own.iter_mut().zip(keys).for_each(|(own, key)| *own = key as i64);
    }
}

impl InplaceOp2 for Merge {
    fn name(&self) -> &'static str {
        "merge-nearest"
    }

    fn cpu_fwd(
        &self,
        keys: &mut CpuStorage,
        keys_layout: &Layout,
        similarities: &CpuStorage,
        layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::I64(keys), Some((start, end))) = (keys, keys_layout.contiguous_offsets())
        else {
            bail!("merge_nearest: expected contiguous i64 keys");
        };
        let (CpuStorage::F32(values), Some((from, to))) =
            (similarities, layout.contiguous_offsets())
        else {
            bail!("merge_nearest: expected contiguous f32, found {:?}", similarities.dtype());
        };
        keys[start..end]
            .par_chunks_mut(self.k)
            .zip(values[from..to].par_chunks(self.columns))
            .for_each(|(own, line)| self.line(own, line));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        keys: &mut candle_core::CudaStorage,
        keys_layout: &Layout,
        similarities: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<()> {
        crate::cuda::topk::merge(self, (keys, keys_layout), (similarities, layout))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_order_by_similarity_descending_then_row_ascending() {
        let order = [(1.0, 7), (0.5, 2), (0.5, 3), (0.0, 0), (-0.0, 1), (-1e-9, 0), (-1.0, 0)];
        let keys: Vec<u64> =
            order.iter().map(|&(value, index)| neighbour_key(value, index)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        for (&key, expected) in keys.iter().zip(order) {
            assert_eq!(neighbour_of_key(key), expected);
        }
    }

    proptest! {
        #[test]
        fn any_blocks_equal_a_full_stable_sort(
            levels in prop::collection::vec(-3_i8..=3, 1..400),
            k in 1_usize..300,
            step in 1_usize..200,
            padding in 0_usize..3,
        ) {
            let device = Device::Cpu;
            let values: Vec<f32> = levels.iter().map(|&level| f32::from(level) / 3.0).collect();
            let keys = no_neighbours(1, k, &device).unwrap();
            for (block, offered) in values.chunks(step).enumerate() {
                let mut line = offered.to_vec();
                line.extend(std::iter::repeat_n(9.0, padding));
                let line = Tensor::from_vec(line, (1, offered.len() + padding), &device).unwrap();
                merge_nearest(&keys, &line, (block * step) as u32, offered.len()).unwrap();
            }
            let mut expected: Vec<(f32, u32)> = values.iter().copied().zip(0..).collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0));
            expected.truncate(k);
            let keys = keys.flatten_all().unwrap().to_vec1::<i64>().unwrap();
            let found: Vec<u64> = keys.into_iter().map(|key| key as u64).collect();
            prop_assert!(found[expected.len()..].iter().all(|&key| key == NONE));
            let found: Vec<_> =
                found[..expected.len()].iter().map(|&key| neighbour_of_key(key)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn nan_is_nobodys_neighbour_and_what_does_not_fit_is_refused() {
        let keys = no_neighbours(1, 2, &Device::Cpu).unwrap();
        let line = Tensor::new(&[[f32::NAN, 0.5, -f32::NAN]], &Device::Cpu).unwrap();
        merge_nearest(&keys, &line, 7, 3).unwrap();
        let found = keys.to_vec2::<i64>().unwrap();
        assert_eq!(neighbour_of_key(found[0][0] as u64), (0.5, 8));
        assert_eq!(found[0][1] as u64, NONE);
        assert!(merge_nearest(&keys, &line, 0, 4).is_err());
        assert!(merge_nearest(&keys, &line.to_dtype(DType::F64).unwrap(), 0, 3).is_err());
        let many = no_neighbours(1, MOST_NEIGHBOURS + 1, &Device::Cpu).unwrap();
        assert!(merge_nearest(&many, &line, 0, 3).is_err());
    }
}
