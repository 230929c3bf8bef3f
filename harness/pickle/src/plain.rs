use crate::AllowList;

/// Python's and NumPy's types of plain data, of Python 2 and 3 and NumPy 1 and 2: what
/// [`Array`](crate::Array) and [`Pickle::pairs`](crate::Pickle::pairs) understand.
pub const PLAIN_DATA: AllowList<'static> = &[
    ("collections", &["OrderedDict", "defaultdict", "Counter"]),
    ("builtins", BUILTINS),
    ("__builtin__", BUILTINS),
    ("_codecs", &["encode"]),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
];

/// Builtin types of plain data.
const BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
    "xrange",
];
