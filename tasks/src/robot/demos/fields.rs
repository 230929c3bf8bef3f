//! Named arrays of one demonstration in a pickle, held against what its task needs.

use std::path::Path;

use ndarray::{Array2, Array3};
use pickle::{Array, ElementType, Pickle, Value};

use super::{DemoError, Frames};

/// The entries of a dict.
pub(super) struct Fields<'p, 'a> {
    pub(super) pickle: &'p Pickle<'a>,
    pub(super) dict: Value<'a>,
    pub(super) path: &'p Path,
    /// What the dict is, for messages.
    pub(super) place: String,
}

impl<'p, 'a> Fields<'p, 'a> {
    fn place(&self, key: &str) -> String {
        format!("{}, {key}", self.place)
    }

    fn content(&self, place: String, why: String) -> DemoError {
        DemoError::Content { path: self.path.to_path_buf(), place, why }
    }

    fn shape(&self, key: &str, expected: String, array: &Array<'_>) -> DemoError {
        let found = format!("{} {:?}", array.element, array.shape);
        DemoError::Shape { path: self.path.to_path_buf(), place: self.place(key), expected, found }
    }

    /// The dict under a key.
    pub(super) fn within(&self, key: &str) -> Result<Self, DemoError> {
        let &Self { pickle, path, .. } = self;
        Ok(Self { pickle, dict: self.value(key)?, path, place: self.place(key) })
    }

    fn value(&self, key: &str) -> Result<Value<'a>, DemoError> {
        if self.pickle.pairs(self.dict).is_none() {
            let found = self.pickle.kind(self.dict);
            return Err(self.content(self.place.clone(), format!("{found}; expected a dict")));
        }
        let missing = || self.content(self.place.clone(), format!("it has no {key}"));
        self.pickle.get(self.dict, key).ok_or_else(missing)
    }

    /// The array under a key.
    pub(super) fn array(&self, key: &str) -> Result<Array<'a>, DemoError> {
        Array::read(self.pickle, self.value(key)?).map_err(|source| DemoError::Array {
            path: self.path.to_path_buf(),
            place: self.place(key),
            source,
        })
    }

    /// Finite numbers `[rows, width]`.
    pub(super) fn matrix(
        &self,
        key: &str,
        rows: usize,
        width: usize,
    ) -> Result<Array2<f32>, DemoError> {
        let array = self.array(key)?;
        let expected = || format!("[{rows}, {width}]");
        if array.shape != [rows, width] {
            return Err(self.shape(key, expected(), &array));
        }
        let values = self.finite(key, &array)?;
        Array2::from_shape_vec((rows, width), values)
            .map_err(|_| self.shape(key, expected(), &array))
    }

    /// Finite numbers `[rows]` or `[rows, 1]`.
    pub(super) fn column(&self, key: &str, rows: usize) -> Result<Vec<f64>, DemoError> {
        let array = self.array(key)?;
        if array.shape != [rows] && array.shape != [rows, 1] {
            return Err(self.shape(key, format!("[{rows}]"), &array));
        }
        Ok(self.finite(key, &array)?.into_iter().map(f64::from).collect())
    }

    fn finite(&self, key: &str, array: &Array<'_>) -> Result<Vec<f32>, DemoError> {
        let values = numbers(array)
            .ok_or_else(|| self.shape(key, "float64, float32 or whole numbers".into(), array))?;
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        if values.iter().any(|value| !value.is_finite()) {
            let (path, place) = (self.path.to_path_buf(), self.place(key));
            return Err(DemoError::NotFinite { path, place });
        }
        Ok(values)
    }

    /// Images `[T, side, side, 3]` of at least one frame, as they lie in the pickle.
    pub(super) fn images(&self, key: &str, side: usize) -> Result<Array<'a>, DemoError> {
        let array = self.array(key)?;
        let fits =
            matches!(array.shape[..], [steps, h, w, 3] if steps > 0 && h == side && w == side);
        if !fits || array.element != ElementType::U8 {
            return Err(self.shape(key, format!("uint8 [T, {side}, {side}, 3]"), &array));
        }
        Ok(array)
    }

    /// The images apart.
    pub(super) fn frames(&self, key: &str, side: usize) -> Result<Frames, DemoError> {
        let array = self.images(key, side)?;
        let one = |bytes: &[u8]| Array3::from_shape_vec((side, side, 3), bytes.to_vec());
        array
            .bytes
            .chunks_exact(side * side * 3)
            .map(|bytes| one(bytes).map_err(|_| self.shape(key, "whole images".into(), &array)))
            .collect()
    }
}

/// Elements as numbers; `None` for types that demonstrations do not have.
pub(super) fn numbers(array: &Array<'_>) -> Option<Vec<f64>> {
    let bytes = &*array.bytes;
    macro_rules! read {
        ($number:ty) => {{
            let chunks = bytes.as_chunks::<{ size_of::<$number>() }>().0;
            chunks.iter().map(|bytes| <$number>::from_le_bytes(*bytes) as f64).collect()
        }};
    }
    Some(match array.element {
        ElementType::F64 => read!(f64),
        ElementType::F32 => read!(f32),
        ElementType::I64 => read!(i64),
        ElementType::U64 => read!(u64),
        ElementType::I32 => read!(i32),
        ElementType::U32 => read!(u32),
        ElementType::I16 => read!(i16),
        ElementType::U16 => read!(u16),
        ElementType::I8 => read!(i8),
        ElementType::U8 | ElementType::Bool => read!(u8),
        _ => return None,
    })
}
