//! Reads MATLAB's file format 5, as far as data sets are published in it: numbers, text, cells and
//! structs, compressed or not, of either byte order. (MathWorks, "MAT-File Format", chapter 1.)
//!
//! The file is not trusted: every length is held against the bytes that are there before anything is
//! allocated, compressed data may grow to a bound only, and arrays may be nested to a bound only.

mod parse;
#[cfg(test)]
mod tests;

pub use parse::read;

/// An array of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Numbers or truth values, column by column.
    Numbers {
        /// Length of each dimension.
        dims: Vec<usize>,
        /// The real parts.
        values: Vec<f64>,
    },
    /// Text; several rows follow one another column by column.
    Text(String),
    /// Arrays, column by column.
    Cells(Vec<Value>),
    /// An array of structs.
    Structs {
        /// Names of the fields.
        fields: Vec<String>,
        /// The fields of the first struct in the order of their names, those of the second, ...
        values: Vec<Value>,
    },
    /// A sparse array, an object or a function, of this class: not read.
    Unread(u8),
}

impl Value {
    /// The single number of an array with one element.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Numbers { values, .. } if values.len() == 1 => values.first().copied(),
            _ => None,
        }
    }

    /// The text of an array of characters.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A field of every struct of an array of structs, in order.
    pub fn field(&self, name: &str) -> Option<impl Iterator<Item = &Self>> {
        let Self::Structs { fields, values } = self else { return None };
        let at = fields.iter().position(|field| field == name)?;
        Some(values.iter().skip(at).step_by(fields.len()))
    }
}

/// Why a file cannot be read. Positions are bytes from the beginning of the file, or of the compressed
/// element that is named with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatError {
    /// Another format.
    #[error(
        "expected a MATLAB file of format 5 (its header of 128 bytes ends in a version and IM or MI), found {found}"
    )]
    Header {
        /// What is there instead.
        found: String,
    },
    /// The file ends, or an element that holds another, before what was announced.
    #[error("at byte {at}: expected {expected} bytes of {what}, found {found}")]
    Short {
        /// Where.
        at: usize,
        /// Of what.
        what: &'static str,
        /// How many were announced.
        expected: usize,
        /// How many are left.
        found: usize,
    },
    /// An element of another type.
    #[error("at byte {at}: expected {expected}, found an element of type {found}")]
    Type {
        /// Where.
        at: usize,
        /// What belongs there.
        expected: &'static str,
        /// The type's number.
        found: u32,
    },
    /// Sizes that contradict one another.
    #[error("at byte {at}: {what} of {expected} expected by the dimensions, found {found}")]
    Count {
        /// Where.
        at: usize,
        /// Numbers, characters or arrays.
        what: &'static str,
        /// Product of the dimensions.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// Dimensions that are negative, or too many, or whose product is too large.
    #[error("at byte {at}: dimensions of no array")]
    Dimensions {
        /// Where.
        at: usize,
    },
    /// Text that is none, or names without an end.
    #[error("at byte {at}: {what} is not readable")]
    Text {
        /// Where.
        at: usize,
        /// Which text.
        what: &'static str,
    },
    /// Compressed data that are damaged.
    #[error("at byte {at}: the compressed element is damaged: {why}")]
    Compressed {
        /// Where.
        at: usize,
        /// What the decoder says.
        why: String,
    },
    /// More than a file of this kind has any use for.
    #[error("at byte {at}: more than {limit} {what}")]
    Large {
        /// Where.
        at: usize,
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}
