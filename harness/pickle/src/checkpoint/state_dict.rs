use super::error::CheckpointError;
use super::tensor::{Described, describe};
use crate::shown;
use crate::value::{Pickle, Value};

/// Entries that a training script puts its state dict under, tried in this order.
const WRAPPERS: [&str; 4] = ["model", "state_dict", "module", "r3m"];

/// Dict entries walked through, and bytes of names and tensors' descriptions made: dicts and tensors
/// may be shared, so that a small file can stand for very many.
const MOST_ENTRIES: usize = 1 << 18;
const MOST_BYTES: usize = 32 << 20;

/// Named tensors as the pickle describes them.
pub(super) type Tensors<'a> = Vec<(String, Described<'a>)>;

/// The tensors of the state dict and the entry it stands under.
///
/// A state dict under one of [`WRAPPERS`] comes first: beside one, the top level may hold tensors of
/// its own. Else the top level is it: its own tensors alone if it has any (optimizer state may stand
/// beside them), else all that its dicts hold. Names of nested dicts are joined by dots.
pub(super) fn find<'a>(
    pickle: &Pickle<'a>,
) -> Result<(Option<&'static str>, Tensors<'a>), CheckpointError> {
    let top = pickle.pairs(pickle.root()).unwrap_or_default();
    for wrapper in WRAPPERS {
        if let Some(value) = pickle.get(pickle.root(), wrapper) {
            let tensors = Walk::new(pickle, true).run(value)?;
            if !tensors.is_empty() {
                return Ok((Some(wrapper), tensors));
            }
        }
    }
    for nested in [false, true] {
        let tensors = Walk::new(pickle, nested).run(pickle.root())?;
        if !tensors.is_empty() {
            return Ok((None, tensors));
        }
    }
    let keys = top.iter().filter_map(|(key, _)| match key {
        Value::Str(text) => Some(shown(text)),
        _ => None,
    });
    Err(CheckpointError::NoTensors(keys.take(12).collect()))
}

struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    nested: bool,
    entries: usize,
    bytes: usize,
    found: Tensors<'a>,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(pickle: &'p Pickle<'a>, nested: bool) -> Self {
        Self { pickle, nested, entries: 0, bytes: 0, found: Vec::new() }
    }

    fn run(mut self, root: Value<'a>) -> Result<Tensors<'a>, CheckpointError> {
        self.dict(root, "")?;
        Ok(self.found)
    }

    /// Recursion is as deep as the pickle's limit on nesting at most.
    fn dict(&mut self, value: Value<'a>, prefix: &str) -> Result<(), CheckpointError> {
        let pickle = self.pickle;
        for (key, value) in pickle.pairs(value).unwrap_or_default() {
            self.entries += 1;
            within("entries", self.entries, MOST_ENTRIES)?;
            let tensor = describe(pickle, *value);
            let is_dict = pickle.pairs(*value).is_some();
            if tensor.is_none() && !(is_dict && self.nested) {
                continue;
            }
            let number;
            let last = match key {
                Value::Str(text) => text,
                Value::Int(value) => {
                    number = value.to_string();
                    number.as_str()
                }
                other => {
                    let before = self.found.len();
                    self.dict(*value, "")?;
                    if tensor.is_some() || self.found.len() > before {
                        return Err(CheckpointError::Key(pickle.kind(*other)));
                    }
                    continue;
                }
            };
            let dimensions = match &tensor {
                Some(Ok(tensor)) => size_of_val(tensor) + 2 * size_of_val(&*tensor.shape),
                _ => 0,
            };
            self.bytes += prefix.len() + last.len() + dimensions;
            within("bytes of names and shapes", self.bytes, MOST_BYTES)?;
            let name = format!("{prefix}{last}");
            match tensor {
                None => self.dict(*value, &format!("{name}."))?,
                Some(Ok(tensor)) => self.found.push((name, tensor)),
                Some(Err(fault)) => {
                    return Err(CheckpointError::Tensor { name: shown(&name), fault });
                }
            }
        }
        Ok(())
    }
}

fn within(what: &'static str, needed: usize, limit: usize) -> Result<(), CheckpointError> {
    if needed > limit { Err(CheckpointError::TooMuch { what, limit }) } else { Ok(()) }
}
