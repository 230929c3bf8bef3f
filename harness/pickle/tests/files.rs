//! Files that PyTorch 1 and 2 and NumPy wrote, against what they read from them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pixio_eval_pickle::{
    Array, ArrayError, Checkpoint, CheckpointError, ElementType, Limits, PLAIN_DATA, Value, read,
};
use safetensors::{Dtype, SafeTensors};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&data(name)).unwrap()
}

fn refused(name: &str) -> String {
    Checkpoint::open(&data(name)).err().unwrap().to_string()
}

fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    checkpoint.names().collect()
}

fn element(of: Dtype) -> ElementType {
    match of {
        Dtype::BOOL => ElementType::Bool,
        Dtype::U8 => ElementType::U8,
        Dtype::I8 => ElementType::I8,
        Dtype::U16 => ElementType::U16,
        Dtype::I16 => ElementType::I16,
        Dtype::I32 => ElementType::I32,
        Dtype::I64 => ElementType::I64,
        Dtype::F8_E4M3 => ElementType::F8E4M3,
        Dtype::F8_E5M2 => ElementType::F8E5M2,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::F32 => ElementType::F32,
        Dtype::F64 => ElementType::F64,
        Dtype::C64 => ElementType::Complex64,
        other => panic!("{other:?}"),
    }
}

type Expected = BTreeMap<String, (ElementType, Vec<usize>, Vec<u8>)>;

fn expected(name: &str) -> Expected {
    let bytes = std::fs::read(data(name)).unwrap();
    let one = |(name, view): (String, safetensors::tensor::TensorView)| {
        (name, (element(view.dtype()), view.shape().to_vec(), view.data().to_vec()))
    };
    SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(one).collect()
}

fn compare(checkpoint: &Checkpoint, expected: &Expected) {
    assert_eq!(names(checkpoint), expected.keys().collect::<Vec<_>>());
    for (name, (element, shape, bytes)) in expected {
        let info = checkpoint.info(name).unwrap();
        assert_eq!((info.element, &info.shape), (*element, shape), "{name}");
        assert_eq!(&*checkpoint.bytes(name).unwrap(), bytes, "{name}");
    }
}

#[test]
fn every_version_protocol_and_container_reads_as_in_torch() {
    for (torch, least) in [(1, 25), (2, 30)] {
        let all = expected(&format!("torch{torch}/expected.safetensors"));
        assert!(all.len() >= least, "{} tensors", all.len());
        let mut known = all.clone();
        // Types without a storage class, which torch itself cannot read back from an older file.
        for name in ["uint16", "float8", "float8_wide"] {
            known.remove(name);
        }
        for protocol in 2..=5 {
            let zip = open(&format!("torch{torch}/zip_p{protocol}.pth"));
            compare(&zip, &all);
            assert_eq!(zip.root(), Some("model"));
            compare(&open(&format!("torch{torch}/legacy_p{protocol}.pth")), &known);
        }
    }
}

#[test]
fn row_major_tensors_are_borrowed_from_the_file() {
    let zip = open("torch2/zip_p2.pth");
    let borrowed = |name| matches!(zip.bytes(name).unwrap(), Cow::Borrowed(_));
    assert!(borrowed("plain.weight") && borrowed("shared.rows") && borrowed("half"));
    assert!(!borrowed("transposed") && !borrowed("shared.columns") && !borrowed("expanded"));
}

#[test]
fn big_endian_files_read_the_same() {
    let big = open("torch2/big_endian.pth");
    let all = expected("torch2/expected.safetensors");
    let few: Expected = names(&big).iter().map(|n| ((*n).to_owned(), all[*n].clone())).collect();
    assert_eq!(few.len(), 6);
    compare(&big, &few);
}

#[test]
fn the_state_dict_is_found_wherever_it_stands() {
    let flat = open("torch2/flat.pth");
    assert_eq!((flat.root(), names(&flat)), (None, vec!["a", "b"]));
    let a: Vec<u8> = (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    assert_eq!(&*flat.bytes("a").unwrap(), a);
    for (file, root) in [
        ("state_dict", Some("state_dict")),
        ("module", Some("module")),
        ("r3m", Some("r3m")),
        ("beside", None),
        ("no_checksums", None),
    ] {
        let found = open(&format!("torch2/{file}.pth"));
        assert_eq!((found.root(), names(&found)), (root, vec!["a", "b"]), "{file}");
        assert_eq!(found.bytes("a").unwrap(), flat.bytes("a").unwrap(), "{file}");
        assert_eq!(found.bytes("b").unwrap(), flat.bytes("b").unwrap(), "{file}");
    }
    let nested = open("torch2/nested.pth");
    assert_eq!(names(&nested), ["step.0", "teacher.backbone.a", "teacher.backbone.b"]);
    let error = nested.bytes("a").unwrap_err();
    assert!(matches!(error, CheckpointError::NoTensor(name) if name == "a"));
}

#[test]
fn what_is_no_dense_tensor_is_refused_by_name() {
    let text = refused("torch2/no_tensors.pth");
    assert_eq!(text, "it holds no tensors; its entries are epoch, losses");
    let text = refused("torch2/module_class.pth");
    assert!(text.contains("asks for torch.nn.modules.linear.Linear"), "{text}");
    let text = refused("torch2/sparse.pth");
    assert!(text.contains("asks for torch._utils._rebuild_sparse_tensor"), "{text}");
    let text = refused("torch2/negative.pth");
    assert_eq!(text, "tensor a: it has metadata that changes its values");
}

#[test]
fn every_flipped_bit_of_an_archive_is_noticed_or_harmless() {
    let whole = std::fs::read(data("torch2/flat.pth")).unwrap();
    let values = |bytes: &[u8]| -> Result<Vec<Vec<u8>>, CheckpointError> {
        let checkpoint = Checkpoint::new(bytes)?;
        ["a", "b"].iter().map(|name| checkpoint.bytes(name).map(Cow::into_owned)).collect()
    };
    let expected = values(&whole).unwrap();
    let mut harmless = 0;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(found) = values(&flipped) {
                assert_eq!(found, expected, "byte {at}, bit {bit}");
                harmless += 1;
            }
        }
    }
    println!("{harmless} of {} flips change nothing", 8 * whole.len());
}

#[test]
fn every_cut_is_noticed() {
    for file in ["torch2/flat.pth", "torch2/legacy_p4.pth", "torch1/zip_p2.pth"] {
        let whole = std::fs::read(data(file)).unwrap();
        for length in 0..whole.len() {
            assert!(Checkpoint::new(&whole[..length]).is_err(), "{file} cut at {length}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_empty() {
    let error = Checkpoint::open(&data("nowhere.pth")).err().unwrap();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let error = Checkpoint::open(empty.path()).err().unwrap();
    assert!(matches!(error, CheckpointError::NotACheckpoint), "{error}");
}

#[test]
fn demonstrations_of_every_protocol_hold_the_arrays() {
    let expected = expected("demonstration.safetensors");
    for protocol in 2..=5 {
        let bytes = std::fs::read(data(&format!("demonstration_p{protocol}.pkl"))).unwrap();
        let (pickle, length) = read(&bytes, &[PLAIN_DATA], &Limits::default()).unwrap();
        assert_eq!(length, bytes.len());
        let episodes = pickle.list(pickle.root()).unwrap();
        assert_eq!(episodes.len(), 2);
        for episode in episodes {
            for (name, (element, shape, bytes)) in &expected {
                let array = Array::read(&pickle, pickle.get(*episode, name).unwrap()).unwrap();
                assert_eq!((array.element, &array.shape), (*element, shape), "{name}");
                assert_eq!(&*array.bytes, bytes, "{name}, protocol {protocol}");
            }
        }
        let infos = pickle.get(episodes[0], "env_infos").unwrap();
        assert_eq!(pickle.get(infos, "name"), Some(Value::Str("reach")));
        let success = pickle.list(pickle.get(infos, "success").unwrap()).unwrap();
        assert_eq!(success, [false, false, true].map(Value::Bool));
        assert_eq!(pickle.get(episodes[1], "env_infos"), None);
        let objects = Array::read(&pickle, pickle.get(infos, "objects").unwrap());
        assert_eq!(objects, Err(ArrayError::Type("O8".to_owned())));
        let error = Array::read(&pickle, infos).unwrap_err().to_string();
        assert_eq!(error, "value of an array: expected an object, found a dict");
    }
}
