use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use schema::Fingerprint;

use super::{Element, Likeness, TensorInfo, TensorSource, WeightsError};

/// A tensor the encoder needs, by its canonical name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Canonical name.
    pub name: String,
    /// Shape, outermost first. Leading dimensions of 1 may be missing or surplus in a file.
    pub shape: Vec<usize>,
}

impl Expected {
    /// Number of parameters in it: its elements, and none in the running statistics of a batch norm.
    pub fn parameters(&self) -> u64 {
        let statistics = [".running_mean", ".running_var"];
        match statistics.iter().any(|end| self.name.ends_with(end)) {
            true => 0,
            false => self.shape.iter().product::<usize>() as u64,
        }
    }
}

/// What a name in a file stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// The whole tensor of that canonical name.
    Whole(String),
    /// Part `index` of `of` equal parts along the first dimension (q, k, v of a packed qkv).
    Part {
        /// Canonical name.
        name: String,
        /// Which part.
        index: usize,
        /// How many parts.
        of: usize,
    },
    /// Equal parts along the first dimension, each the whole tensor of that canonical name (the biases
    /// of q, k and v); `None` is not needed.
    Split(Vec<Option<String>>),
    /// Known and not needed by the encoder, for example a decoder's tensor.
    Ignored,
    /// Not a name this family knows.
    Unknown,
}

/// Turns the names of every accepted naming generation into canonical ones.
pub type NameMap = fn(&str) -> Canonical;

/// One thing that is wrong with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Not in the file.
    Missing(String),
    /// In the file and not part of the encoder.
    Unexpected(String),
    /// Two names of the file stand for the same tensor.
    Duplicate(String),
    /// Wrong shape.
    Shape {
        /// Name.
        name: String,
        /// Shape the encoder needs.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
}

const SHOWN: usize = 40;

/// A list of at most forty entries a kind: enough to see the pattern without drowning the reader.
pub(super) fn list(mismatches: &[Mismatch]) -> String {
    let mut text = String::new();
    let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for mismatch in mismatches {
        let (kind, line) = match mismatch {
            Mismatch::Missing(name) => ("missing", name.clone()),
            Mismatch::Unexpected(name) => ("unexpected", name.clone()),
            Mismatch::Duplicate(name) => ("given twice", name.clone()),
            Mismatch::Shape { name, expected, found } => {
                ("mis-shaped", format!("{name}: expected {expected:?}, found {found:?}"))
            }
        };
        kinds.entry(kind).or_default().push(line);
    }
    for (kind, mut lines) in kinds {
        lines.sort();
        let _ = writeln!(text, "  {kind} ({}):", lines.len());
        for line in lines.iter().take(SHOWN) {
            let _ = writeln!(text, "    {line}");
        }
        if lines.len() > SHOWN {
            let _ = writeln!(text, "    ... and {} more", lines.len() - SHOWN);
        }
    }
    text.trim_end().to_owned()
}

/// A checked set of weights: every expected tensor is there once, in the right shape.
pub struct Weights {
    source: Box<dyn TensorSource>,
    /// Canonical name to the pieces that make it up, in order.
    parts: BTreeMap<String, Vec<Piece>>,
    shapes: BTreeMap<String, Vec<usize>>,
    parameters: u64,
}

/// A stored tensor, or one of several equal parts of it along the first dimension.
#[derive(Clone, Debug)]
struct Piece {
    raw: String,
    /// Which part, of how many.
    cut: Option<(usize, usize)>,
}

impl Piece {
    fn bytes<'a>(&self, source: &'a dyn TensorSource) -> Result<Cow<'a, [u8]>, WeightsError> {
        let whole = source.bytes(&self.raw)?;
        let Some((index, of)) = self.cut else { return Ok(whole) };
        let size = whole.len() / of;
        let part = index * size..(index + 1) * size;
        Ok(match whole {
            Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[part]),
            Cow::Owned(bytes) => Cow::Owned(bytes[part].to_vec()),
        })
    }
}

/// Pieces by their index, with how many there are.
type Pieces = BTreeMap<usize, (usize, Piece)>;

impl Weights {
    /// Finds every expected tensor in `source`, or lists all that is wrong in one error.
    pub fn map(
        source: Box<dyn TensorSource>,
        family: &str,
        expected: &[Expected],
        names: NameMap,
    ) -> Result<Self, WeightsError> {
        let mut wrong = Vec::new();
        let mut found: BTreeMap<String, Pieces> = BTreeMap::new();
        let mut all = source.names();
        all.sort();
        for raw in all {
            let piece = |cut| Piece { raw: raw.clone(), cut };
            let stands_for = match names(&raw) {
                Canonical::Whole(name) => vec![(name, 0, 1, piece(None))],
                Canonical::Part { name, index, of } => vec![(name, index, of, piece(None))],
                Canonical::Split(names) => {
                    let of = names.len();
                    let wanted = names.into_iter().enumerate();
                    wanted
                        .filter_map(|(i, name)| Some((name?, 0, 1, piece(Some((i, of))))))
                        .collect()
                }
                Canonical::Ignored => continue,
                // Counters and tables of indices are no weights, whatever their names.
                Canonical::Unknown if is_whole(&*source, &raw) => continue,
                Canonical::Unknown => {
                    wrong.push(Mismatch::Unexpected(raw));
                    continue;
                }
            };
            for (name, index, of, piece) in stands_for {
                let parts = found.entry(name).or_default();
                let mixed = parts.values().any(|(others, _)| *others != of);
                if mixed || parts.insert(index, (of, piece)).is_some() {
                    wrong.push(Mismatch::Duplicate(raw.clone()));
                }
            }
        }
        let mut parts = BTreeMap::new();
        for Expected { name, shape } in expected {
            match found.remove(name) {
                None => wrong.push(Mismatch::Missing(name.clone())),
                Some(pieces) => {
                    let raw = check(&*source, name, shape, pieces, &mut wrong)?;
                    parts.insert(name.clone(), raw);
                }
            }
        }
        let surplus = found.into_values().flat_map(BTreeMap::into_values);
        let surplus: BTreeSet<String> = surplus.map(|(_, piece)| piece.raw).collect();
        wrong.extend(surplus.into_iter().map(Mismatch::Unexpected));
        if !wrong.is_empty() {
            return Err(WeightsError::Mismatch {
                source_name: source.describe(),
                family: family.to_owned(),
                mismatches: wrong,
                wanted: Likeness::of(expected.iter().map(|e| (e.name.clone(), e.shape.clone()))),
                found: Likeness::of_source(&*source),
            });
        }
        let shapes = expected.iter().map(|e| (e.name.clone(), e.shape.clone())).collect();
        let parameters = expected.iter().map(Expected::parameters).sum();
        Ok(Self { source, parts, shapes, parameters })
    }

    /// Loads one tensor, converted to `dtype` (f32, f16, bf16 or f64) on `device`.
    pub fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, WeightsError> {
        let shape = self.shapes.get(name).cloned().unwrap_or_default();
        let tensor = match dtype {
            DType::F16 => Tensor::from_vec(self.values::<f16>(name)?, shape, device),
            DType::BF16 => Tensor::from_vec(self.values::<bf16>(name)?, shape, device),
            DType::F64 => Tensor::from_vec(self.values::<f64>(name)?, shape, device),
            _ => Tensor::from_vec(self.values::<f32>(name)?, shape, device)
                .and_then(|tensor| tensor.to_dtype(dtype)),
        };
        tensor.map_err(|source| WeightsError::Convert { name: name.to_owned(), source })
    }

    /// A tensor's elements, converted piece by piece: nothing of its size is held beside them.
    fn values<T: WithDType>(&self, name: &str) -> Result<Vec<T>, WeightsError> {
        const PIECE: usize = 1 << 16;
        let convert = |source| WeightsError::Convert { name: name.to_owned(), source };
        let count = self.shapes.get(name).map_or(0, |shape| shape.iter().product());
        let mut values = Vec::with_capacity(count);
        for part in self.parts.get(name).map(Vec::as_slice).unwrap_or_default() {
            let (stored, _) = info(&*self.source, &part.raw)?;
            let size = stored.size_in_bytes();
            for piece in part.bytes(&*self.source)?.chunks(PIECE * size) {
                let shape = [piece.len() / size];
                let piece = Tensor::from_raw_buffer(piece, stored, &shape, &Device::Cpu);
                let piece = piece.and_then(|piece| piece.to_dtype(T::DTYPE)?.to_vec1());
                values.extend_from_slice(&piece.map_err(convert)?);
            }
        }
        Ok(values)
    }

    /// Hash over `architecture` and every mapped tensor's canonical name, shape, type and bytes: the
    /// same for the same weights in any container or naming generation.
    pub fn identity(
        &self,
        architecture: &impl serde::Serialize,
    ) -> Result<Fingerprint, WeightsError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(schema::fingerprint(architecture).0.as_bytes());
        for (name, parts) in &self.parts {
            let (dtype, _) = info(&*self.source, parts.first().map_or("", |piece| &piece.raw))?;
            let shape = &self.shapes[name];
            hasher.update(format!("{name} {shape:?} {dtype:?}\n").as_bytes());
            for part in parts {
                hasher.update_rayon(&part.bytes(&*self.source)?);
            }
        }
        Ok(hasher.finalize().into())
    }

    /// Number of parameters over all mapped tensors.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }
}

/// Checks one tensor's pieces against its shape; returns them in order.
fn check(
    source: &dyn TensorSource,
    name: &str,
    shape: &[usize],
    pieces: Pieces,
    wrong: &mut Vec<Mismatch>,
) -> Result<Vec<Piece>, WeightsError> {
    let of = pieces.values().next().map_or(1, |(of, _)| *of);
    for index in 0..of {
        if !pieces.contains_key(&index) {
            wrong.push(Mismatch::Missing(format!("{name} (part {} of {of})", index + 1)));
        }
    }
    let mut wanted = shape.to_vec();
    if let Some(rows) = wanted.first_mut() {
        *rows /= of;
    }
    let mut in_order = Vec::new();
    for (_, piece) in pieces.into_values() {
        let (_, found) = info(source, &piece.raw)?;
        let mut whole = wanted.clone();
        if let (Some((_, of)), Some(rows)) = (piece.cut, whole.first_mut()) {
            *rows *= of;
        }
        if without_ones(&found) != without_ones(&whole) {
            let name = piece.raw.clone();
            wrong.push(Mismatch::Shape { name, expected: whole, found });
        }
        in_order.push(piece);
    }
    Ok(in_order)
}

/// A shape without leading dimensions of 1: a class token is `[D]` in one code and `[1, 1, D]` in another.
fn without_ones(shape: &[usize]) -> &[usize] {
    &shape[shape.iter().take_while(|size| **size == 1).count()..]
}

/// Type and shape of a tensor that must be a weight.
fn info(source: &dyn TensorSource, raw: &str) -> Result<(DType, Vec<usize>), WeightsError> {
    let found = match source.info(raw) {
        Some(TensorInfo { element: Element::Real(dtype), shape }) => return Ok((dtype, shape)),
        Some(TensorInfo { element: Element::Whole(name) | Element::Other(name), .. }) => name,
        None => "none".to_owned(),
    };
    Err(WeightsError::Dtype { name: raw.to_owned(), source_name: source.describe(), found })
}

fn is_whole(source: &dyn TensorSource, raw: &str) -> bool {
    matches!(source.info(raw), Some(TensorInfo { element: Element::Whole(_), .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors `[2, N]` of small numbers.
    struct Few(Vec<(&'static str, Element)>);

    const N: usize = 50_000;

    fn numbers(name: &str) -> Vec<f32> {
        let seed = name.len() as f32;
        (0..2 * N).map(|i| (i as f32 + seed).sin()).collect()
    }

    impl TensorSource for Few {
        fn names(&self) -> Vec<String> {
            self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
        }

        fn info(&self, name: &str) -> Option<TensorInfo> {
            let (_, element) = self.0.iter().find(|(known, _)| *known == name)?;
            Some(TensorInfo { element: element.clone(), shape: vec![2, N] })
        }

        fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightsError> {
            Ok(numbers(name).iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>().into())
        }

        fn describe(&self) -> String {
            "few".to_owned()
        }
    }

    fn map(tensors: &[(&'static str, Element)]) -> Result<Weights, WeightsError> {
        let expected = [Expected { name: "w".to_owned(), shape: vec![4, N] }];
        Weights::map(Box::new(Few(tensors.to_vec())), "any", &expected, |raw| match raw {
            "q" | "key" => {
                let index = usize::from(raw == "key");
                Canonical::Part { name: "w".to_owned(), index, of: 2 }
            }
            _ => Canonical::Unknown,
        })
    }

    #[test]
    fn integers_beside_weights_are_left_out_and_as_weights_refused() {
        let real = Element::Real(DType::F32);
        let whole = Element::Whole("int64".to_owned());
        let weights = [("q", real.clone()), ("key", real.clone())];
        let with = |name, element| map(&[&weights[..], &[(name, element)]].concat());
        assert!(with("steps", whole.clone()).is_ok());
        assert!(matches!(with("scale", real.clone()), Err(WeightsError::Mismatch { .. })));
        let other = Element::Other("complex64".to_owned());
        assert!(matches!(with("phase", other), Err(WeightsError::Mismatch { .. })));
        let error = map(&[("q", real), ("key", whole)]).err().unwrap().to_string();
        assert_eq!(error, "tensor key in few has type int64; expected f32, f64, f16 or bf16");
    }

    #[test]
    fn parts_are_converted_piece_by_piece_to_the_same_bits() {
        let real = Element::Real(DType::F32);
        let weights = map(&[("q", real.clone()), ("key", real)]).ok().unwrap();
        let all = [numbers("q"), numbers("key")].concat();
        let whole = Tensor::from_vec(all, (4, N), &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
            let found = weights.load("w", dtype, &Device::Cpu).unwrap();
            assert_eq!((found.dims(), found.dtype()), ([4, N].as_slice(), dtype));
            let flat = |t: &Tensor| -> Vec<f64> {
                t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            assert_eq!(flat(&found), flat(&whole.to_dtype(dtype).unwrap()));
        }
    }
}
