use crate::{AllowList, PLAIN_DATA};

/// Every name that a checkpoint may ask for.
pub(super) const ALLOWED: &[AllowList<'static>] = &[TORCH, PLAIN_DATA];

/// Names in checkpoints that hold data or say how tensors lie in storages.
///
/// Nothing on the list is ever called; it says for which names a record of the call is enough to know
/// what the file holds. The values beside the tensors (settings, counters, optimizer state) are read
/// past.
const TORCH: AllowList<'static> = &[
    (
        "torch._utils",
        &[
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
        ],
    ),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    (
        "torch",
        &[
            "BoolStorage",
            "ByteStorage",
            "CharStorage",
            "ShortStorage",
            "IntStorage",
            "LongStorage",
            "HalfStorage",
            "BFloat16Storage",
            "FloatStorage",
            "DoubleStorage",
            "ComplexFloatStorage",
            "ComplexDoubleStorage",
            "bool",
            "uint8",
            "int8",
            "uint16",
            "int16",
            "uint32",
            "int32",
            "uint64",
            "int64",
            "float8_e4m3fn",
            "float8_e5m2",
            "float16",
            "bfloat16",
            "float32",
            "float64",
            "complex64",
            "complex128",
            "Size",
            "Tensor",
            "device",
        ],
    ),
    ("torch.storage", &["UntypedStorage"]),
    ("torch.nn.parameter", &["Parameter"]),
    ("torch.serialization", &["_get_layout"]),
    ("argparse", &["Namespace"]),
    ("types", &["SimpleNamespace"]),
    ("pathlib", &["Path", "PosixPath", "PurePath", "PurePosixPath", "WindowsPath"]),
    ("datetime", &["date", "datetime", "timedelta"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_storage_and_element_type_is_listed() {
        use super::super::ElementType;
        let torch = TORCH.iter().find(|(module, _)| *module == "torch").unwrap().1;
        for class in torch.iter().filter(|name| name.ends_with("Storage")) {
            let element = ElementType::from_storage(class).unwrap();
            assert!(torch.contains(&element.name()), "{class}");
        }
        for name in torch.iter().filter(|name| name.starts_with(char::is_lowercase)) {
            assert!(*name == "device" || ElementType::from_name(name).is_some(), "{name}");
        }
    }
}
