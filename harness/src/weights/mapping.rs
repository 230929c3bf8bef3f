use std::collections::BTreeMap;
use std::fmt::Write as _;

use candle_core::{DType, Device, Tensor};
use schema::Fingerprint;

use super::{TensorInfo, TensorSource, WeightsError};

/// A tensor the encoder needs, by its canonical name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Canonical name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
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
    /// Canonical name to the parts that make it up, in order.
    parts: BTreeMap<String, Vec<String>>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Weights {
    /// Finds every expected tensor in `source`, or lists all that is wrong in one error.
    pub fn map(
        source: Box<dyn TensorSource>,
        family: &str,
        expected: &[Expected],
        names: NameMap,
    ) -> Result<Self, WeightsError> {
        let mut wrong = Vec::new();
        let mut found: BTreeMap<String, BTreeMap<usize, (usize, String)>> = BTreeMap::new();
        let mut all = source.names();
        all.sort();
        for raw in all {
            let (name, index, of) = match names(&raw) {
                Canonical::Whole(name) => (name, 0, 1),
                Canonical::Part { name, index, of } => (name, index, of),
                Canonical::Ignored => continue,
                Canonical::Unknown => {
                    wrong.push(Mismatch::Unexpected(raw));
                    continue;
                }
            };
            let parts = found.entry(name).or_default();
            let mixed = parts.values().any(|(others, _)| *others != of);
            if mixed || parts.insert(index, (of, raw.clone())).is_some() {
                wrong.push(Mismatch::Duplicate(raw));
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
        wrong.extend(surplus.map(|(_, raw)| Mismatch::Unexpected(raw)));
        if !wrong.is_empty() {
            return Err(WeightsError::Mismatch {
                source_name: source.describe(),
                family: family.to_owned(),
                mismatches: wrong,
            });
        }
        let shapes = expected.iter().map(|e| (e.name.clone(), e.shape.clone())).collect();
        Ok(Self { source, parts, shapes })
    }

    /// Loads one tensor, converted to `dtype` on `device`. Only this tensor is held twice.
    pub fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor, WeightsError> {
        let convert = |source| WeightsError::Convert { name: name.to_owned(), source };
        let shape = self.shapes.get(name).cloned().unwrap_or_default();
        let raw = self.parts.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut pieces = Vec::with_capacity(raw.len());
        for part in raw {
            let info = info(&*self.source, part)?;
            let bytes = self.source.bytes(part)?;
            let piece = Tensor::from_raw_buffer(&bytes, info.dtype, &info.shape, &Device::Cpu)
                .and_then(|t| t.to_dtype(dtype))
                .map_err(convert)?;
            pieces.push(piece);
        }
        let whole = match pieces.as_slice() {
            [one] => one.clone(),
            many => Tensor::cat(many, 0).map_err(convert)?,
        };
        whole.reshape(shape).and_then(|t| t.to_device(device)).map_err(convert)
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
            let first = info(&*self.source, parts.first().map_or("", String::as_str))?;
            let shape = &self.shapes[name];
            hasher.update(format!("{name} {shape:?} {:?}\n", first.dtype).as_bytes());
            for part in parts {
                hasher.update_rayon(&self.source.bytes(part)?);
            }
        }
        Ok(hasher.finalize().into())
    }

    /// Number of elements over all mapped tensors.
    pub fn parameters(&self) -> u64 {
        self.shapes.values().map(|s| s.iter().product::<usize>() as u64).sum()
    }
}

/// Checks one tensor's parts against its shape; returns the raw names in order.
fn check(
    source: &dyn TensorSource,
    name: &str,
    shape: &[usize],
    pieces: BTreeMap<usize, (usize, String)>,
    wrong: &mut Vec<Mismatch>,
) -> Result<Vec<String>, WeightsError> {
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
    let mut raw_names = Vec::new();
    for (_, raw) in pieces.into_values() {
        let found = info(source, &raw)?.shape;
        if found != wanted {
            let name = raw.clone();
            wrong.push(Mismatch::Shape { name, expected: wanted.clone(), found });
        }
        raw_names.push(raw);
    }
    Ok(raw_names)
}

fn info(source: &dyn TensorSource, raw: &str) -> Result<TensorInfo, WeightsError> {
    let bad = |found: String| WeightsError::Dtype {
        name: raw.to_owned(),
        source_name: source.describe(),
        found,
    };
    let info = source.info(raw).ok_or_else(|| bad("an unknown type".to_owned()))?;
    match info.dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F64 => Ok(info),
        other => Err(bad(format!("{other:?}").to_lowercase())),
    }
}
