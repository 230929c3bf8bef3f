/// The element types of dense PyTorch tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is PyTorch's type of that name")]
pub enum ElementType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F8E4M3,
    F8E5M2,
    F16,
    BF16,
    F32,
    F64,
    Complex64,
    Complex128,
}

use ElementType as E;

/// Type, name in `torch`, storage class in `torch` (none: only in untyped storages), bytes.
const TYPES: [(ElementType, &str, &str, usize); 17] = [
    (E::Bool, "bool", "BoolStorage", 1),
    (E::U8, "uint8", "ByteStorage", 1),
    (E::I8, "int8", "CharStorage", 1),
    (E::U16, "uint16", "", 2),
    (E::I16, "int16", "ShortStorage", 2),
    (E::U32, "uint32", "", 4),
    (E::I32, "int32", "IntStorage", 4),
    (E::U64, "uint64", "", 8),
    (E::I64, "int64", "LongStorage", 8),
    (E::F8E4M3, "float8_e4m3fn", "", 1),
    (E::F8E5M2, "float8_e5m2", "", 1),
    (E::F16, "float16", "HalfStorage", 2),
    (E::BF16, "bfloat16", "BFloat16Storage", 2),
    (E::F32, "float32", "FloatStorage", 4),
    (E::F64, "float64", "DoubleStorage", 8),
    (E::Complex64, "complex64", "ComplexFloatStorage", 8),
    (E::Complex128, "complex128", "ComplexDoubleStorage", 16),
];

impl ElementType {
    fn row(self) -> &'static (ElementType, &'static str, &'static str, usize) {
        // The table has every type, in the order of their declaration.
        &TYPES[self as usize]
    }

    /// PyTorch's name, without `torch.`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.row().3
    }

    /// Bytes that are reversed together in the other byte order.
    pub(super) fn word(self) -> usize {
        match self {
            Self::Complex64 | Self::Complex128 => self.size() / 2,
            _ => self.size(),
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    pub(super) fn from_storage(class: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.2 == class && !class.is_empty()).map(|row| row.0)
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_types() {
        for (index, row) in TYPES.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(ElementType::from_name(row.1), Some(row.0));
        }
        assert_eq!(ElementType::from_storage(""), None);
    }
}
