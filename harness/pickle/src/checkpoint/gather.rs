use std::borrow::Cow;

/// The elements of a strided view in row-major order.
///
/// `storage` holds elements of `size` bytes; `first` and `strides` count elements. A view that is
/// row-major already is borrowed. `None` where the view reaches outside the storage. An empty view
/// may have any sizes beside its 0, so the caller does not ask for one.
pub(crate) fn gather<'s>(
    storage: &'s [u8],
    size: usize,
    shape: &[usize],
    strides: &[usize],
    first: usize,
) -> Option<Cow<'s, [u8]>> {
    let total = shape.iter().product::<usize>().checked_mul(size)?;
    let view = storage.get(first.checked_mul(size)?..)?;
    // Dimensions of one element have strides without meaning; row-major neighbours make one dimension.
    let mut dimensions: Vec<(usize, usize)> = Vec::with_capacity(shape.len());
    for (&count, &stride) in shape.iter().zip(strides).filter(|(count, _)| **count != 1) {
        match dimensions.last_mut() {
            Some((outer, outer_stride)) if *outer_stride == count * stride => {
                (*outer, *outer_stride) = (*outer * count, stride);
            }
            _ => dimensions.push((count, stride)),
        }
    }
    let (count, stride) = dimensions.pop().unwrap_or((1, 1));
    if dimensions.is_empty() && stride == 1 {
        return view.get(..total).map(Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(total);
    let mut index = vec![0; dimensions.len()];
    let mut start = 0;
    loop {
        let row = view.get(start * size..)?;
        if stride == 1 {
            bytes.extend_from_slice(row.get(..count * size)?);
        } else {
            match size {
                1 => strided::<1>(row, count, stride, &mut bytes)?,
                2 => strided::<2>(row, count, stride, &mut bytes)?,
                4 => strided::<4>(row, count, stride, &mut bytes)?,
                8 => strided::<8>(row, count, stride, &mut bytes)?,
                _ => strided::<16>(row, count, stride, &mut bytes)?,
            }
        }
        // The next row: the innermost index that can still grow does, those inside it start again.
        let mut inner = dimensions.len();
        loop {
            inner = match inner.checked_sub(1) {
                Some(inner) => inner,
                None => return Some(Cow::Owned(bytes)),
            };
            let (count, stride) = dimensions[inner];
            index[inner] += 1;
            start += stride;
            if index[inner] < count {
                break;
            }
            start -= stride * count;
            index[inner] = 0;
        }
    }
}

/// Appends `count` elements of `N` bytes, `stride` elements apart.
fn strided<const N: usize>(
    row: &[u8],
    count: usize,
    stride: usize,
    bytes: &mut Vec<u8>,
) -> Option<()> {
    for i in 0..count {
        let at = i * stride * N;
        bytes.extend_from_slice(row.get(at..at + N)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every element by its own index.
    fn slowly(
        storage: &[u8],
        size: usize,
        shape: &[usize],
        strides: &[usize],
        first: usize,
    ) -> Vec<u8> {
        let total: usize = shape.iter().product();
        let mut bytes = Vec::new();
        for mut rest in 0..total {
            let mut at = first;
            for (count, stride) in shape.iter().zip(strides).rev() {
                at += rest % count * stride;
                rest /= count;
            }
            bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
        }
        bytes
    }

    proptest! {
        #[test]
        fn any_view_is_gathered_element_by_element(
            dimensions in proptest::collection::vec((1usize..5, 0usize..7), 0..5),
            first in 0usize..9,
            size in prop::sample::select(vec![1usize, 2, 4, 8, 16]),
        ) {
            let (shape, strides): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
            let storage: Vec<u8> = (0..size * 140).map(|i| (i * 37 % 251) as u8).collect();
            let found = gather(&storage, size, &shape, &strides, first).unwrap();
            prop_assert_eq!(&*found, &*slowly(&storage, size, &shape, &strides, first));
        }
    }

    #[test]
    fn a_row_major_view_is_borrowed() {
        let storage = [0u8; 48];
        let found = gather(&storage, 4, &[1, 2, 1, 3], &[99, 3, 0, 1], 6).unwrap();
        assert!(matches!(found, Cow::Borrowed(bytes) if bytes.len() == 24));
        assert!(gather(&storage, 4, &[2, 3], &[3, 1], 7).is_none());
    }
}
