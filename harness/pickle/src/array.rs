use std::borrow::Cow;

use crate::checkpoint::{ElementType, gather};
use crate::shown;
use crate::value::{Global, Object, Pickle, Value};

use ElementType as E;

/// Why a value is not an array of plain numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// A part is missing or of the wrong kind.
    #[error("{what} of an array: expected {expected}, found {found}")]
    Part {
        /// Which part.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Made by something else than NumPy's functions for arrays and scalars.
    #[error("{0} does not make an array")]
    Function(String),
    /// Elements that are not plain numbers.
    #[error("elements of type {0}; expected whole or real numbers, or truth values")]
    Type(String),
    /// Shape and bytes do not agree.
    #[error("shape {shape:?} of {element} in {found} bytes")]
    Size {
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        element: ElementType,
        /// Bytes there are.
        found: usize,
    },
}

/// A NumPy array or scalar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    /// Type of its elements.
    pub element: ElementType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements, row-major, little-endian; borrowed from the pickle where they lie so in it.
    pub bytes: Cow<'a, [u8]>,
}

/// Names of NumPy's element types, without the byte order.
const TYPES: [(&str, ElementType); 12] = [
    ("b1", E::Bool),
    ("u1", E::U8),
    ("i1", E::I8),
    ("u2", E::U16),
    ("i2", E::I16),
    ("u4", E::U32),
    ("i4", E::I32),
    ("u8", E::U64),
    ("i8", E::I64),
    ("f2", E::F16),
    ("f4", E::F32),
    ("f8", E::F64),
];

impl<'a> Array<'a> {
    /// The array or scalar that `value` stands for: NumPy 1 and 2, protocols 2 to 5, in row-major and
    /// column-major order, of either byte order.
    ///
    /// # Errors
    /// [`ArrayError`] for anything else.
    pub fn read(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Self, ArrayError> {
        let parts = Parts { pickle };
        let object = parts.object("value", value)?;
        let args = parts.tuple("arguments", Value::Node(object.args))?;
        match (object.class.module, object.class.name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                // The arguments make an empty array; its state is version, shape, type, whether
                // column-major, bytes.
                let state = parts.tuple("state", object.state.unwrap_or(Value::None))?;
                let at = |index| parts.at("state", state, index);
                let column_major = match at(3)? {
                    Value::Bool(yes) => yes,
                    other => return Err(parts.wrong("order", "a bool", other)),
                };
                parts.array(at(1)?, at(2)?, at(4)?, column_major)
            }
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => {
                let at = |index| parts.at("arguments", args, index);
                let column_major = match at(3)? {
                    Value::Str("C") => false,
                    Value::Str("F") => true,
                    other => return Err(parts.wrong("order", "C or F", other)),
                };
                parts.array(at(2)?, at(1)?, at(0)?, column_major)
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => {
                let at = |index| parts.at("arguments", args, index);
                let (element, big_endian) = parts.element(at(0)?)?;
                Parts::whole(element, big_endian, Vec::new(), parts.bytes(at(1)?)?, false)
            }
            _ => Err(ArrayError::Function(full_name(object.class))),
        }
    }
}

fn full_name(global: Global) -> String {
    shown(&format!("{}.{}", global.module, global.name))
}

struct Parts<'p, 'a> {
    pickle: &'p Pickle<'a>,
}

impl<'p, 'a> Parts<'p, 'a> {
    fn wrong(&self, what: &'static str, expected: &'static str, found: Value<'a>) -> ArrayError {
        ArrayError::Part { what, expected, found: self.pickle.kind(found) }
    }

    fn object(&self, what: &'static str, value: Value<'a>) -> Result<&'p Object<'a>, ArrayError> {
        self.pickle.object(value).ok_or_else(|| self.wrong(what, "an object", value))
    }

    fn tuple(&self, what: &'static str, value: Value<'a>) -> Result<&'p [Value<'a>], ArrayError> {
        self.pickle.tuple(value).ok_or_else(|| self.wrong(what, "a tuple", value))
    }

    fn at(
        &self,
        what: &'static str,
        tuple: &[Value<'a>],
        index: usize,
    ) -> Result<Value<'a>, ArrayError> {
        let expected = "more parts";
        let short = ArrayError::Part { what, expected, found: "the end" };
        tuple.get(index).copied().ok_or(short)
    }

    fn array(
        &self,
        shape: Value<'a>,
        element: Value<'a>,
        bytes: Value<'a>,
        column_major: bool,
    ) -> Result<Array<'a>, ArrayError> {
        let size = |size: &Value<'a>| match size {
            Value::Int(size) if *size >= 0 => Ok(*size as usize),
            other => Err(self.wrong("shape", "sizes", *other)),
        };
        let shape = self.tuple("shape", shape)?.iter().map(size).collect::<Result<_, _>>()?;
        let (element, big_endian) = self.element(element)?;
        Self::whole(element, big_endian, shape, self.bytes(bytes)?, column_major)
    }

    /// A type, and whether it is big-endian.
    fn element(&self, value: Value<'a>) -> Result<(ElementType, bool), ArrayError> {
        let object = self.object("type", value)?;
        if (object.class.module, object.class.name) != ("numpy", "dtype") {
            return Err(ArrayError::Type(full_name(object.class)));
        }
        let args = self.tuple("type", Value::Node(object.args))?;
        let name = match self.at("type", args, 0)? {
            Value::Str(name) => name,
            other => return Err(self.wrong("type", "its name", other)),
        };
        let unknown = || ArrayError::Type(shown(name));
        let found = TYPES.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
        // Its state is version, byte order, and what structures need.
        let big_endian = match object.state {
            None => false,
            Some(state) => match self.at("type", self.tuple("type", state)?, 1)? {
                Value::Str("<" | "|" | "=") => false,
                Value::Str(">") => true,
                other => return Err(self.wrong("byte order", "<, | or >", other)),
            },
        };
        Ok((found.1, big_endian))
    }

    /// Bytes, also as protocol 2 has them: text to be encoded as Latin-1.
    fn bytes(&self, value: Value<'a>) -> Result<Cow<'a, [u8]>, ArrayError> {
        let wrong = || self.wrong("bytes", "bytes", value);
        match value {
            Value::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            // A string of Python 2.
            Value::Str(text) => return Ok(Cow::Borrowed(text.as_bytes())),
            _ => {}
        }
        let object = self.pickle.object(value).ok_or_else(wrong)?;
        let args = self.tuple("bytes", Value::Node(object.args))?;
        match (object.class.module, object.class.name, args) {
            ("builtins" | "__builtin__", "bytes" | "bytearray", []) => Ok(Cow::Borrowed(&[])),
            ("builtins" | "__builtin__", "bytearray", [Value::Bytes(bytes)]) => {
                Ok(Cow::Borrowed(bytes))
            }
            ("_codecs", "encode", [Value::Str(text), Value::Str("latin1")])
            | (
                "builtins" | "__builtin__",
                "bytearray",
                [Value::Str(text), Value::Str("latin-1")],
            ) => {
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)).ok());
                Ok(Cow::Owned(bytes.collect::<Option<_>>().ok_or_else(wrong)?))
            }
            _ => Err(wrong()),
        }
    }

    fn whole(
        element: ElementType,
        big_endian: bool,
        shape: Vec<usize>,
        bytes: Cow<'a, [u8]>,
        column_major: bool,
    ) -> Result<Array<'a>, ArrayError> {
        let size = element.size();
        let needed = shape.iter().try_fold(size, |n, size| n.checked_mul(*size));
        if needed != Some(bytes.len()) {
            return Err(ArrayError::Size { shape, element, found: bytes.len() });
        }
        let mut bytes = bytes;
        if column_major && !bytes.is_empty() {
            let mut strides = vec![1; shape.len()];
            for i in 1..shape.len() {
                strides[i] = strides[i - 1] * shape[i - 1];
            }
            let lost = || ArrayError::Size { shape: shape.clone(), element, found: bytes.len() };
            let gathered = gather(&bytes, size, &shape, &strides, 0).ok_or_else(lost)?;
            bytes = Cow::Owned(gathered.into_owned());
        }
        if big_endian && size > 1 {
            bytes.to_mut().chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(Array { element, shape, bytes })
    }
}
