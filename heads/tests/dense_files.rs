//! Heads from files: what is saved is read back, and every way a file can be wrong is named.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Device, Tensor};
use common::{RUNS, Vectors, drawn, uniform, values};
use pixio_eval_heads::dense::{
    Architecture, DenseHead, Expected, HeadKind, decode, encode, from_tensors, load,
};

const DPT: Architecture = Architecture::Dpt { channels: [3, 5, 4, 6], features: 7 };

fn tensors(head: &dyn DenseHead) -> BTreeMap<String, Tensor> {
    head.tensors().unwrap()
}

#[test]
fn a_saved_head_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for (architecture, kind) in [(Architecture::Linear, HeadKind::Linear), (DPT, HeadKind::Dpt)] {
        let head = drawn(architecture, 10, 3);
        let file = encode(&tensors(&*head)).unwrap();
        let path = folder.path().join("head.safetensors");
        std::fs::write(&path, &file).unwrap();
        let expected = Expected { kind, width: 10, outputs: 3 };
        let read = load(&path, expected, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(read.config(), head.config());
        assert_eq!(encode(&tensors(&*read)).unwrap(), file);
    }
}

#[test]
fn names_and_shapes_are_pytorchs() {
    let vectors = Vectors::read();
    for run in RUNS {
        let head =
            drawn(vectors.head(run).config().architecture, 24, vectors.expected(run).outputs);
        let shapes = |tensors: BTreeMap<String, Tensor>| -> Vec<(String, Vec<usize>)> {
            tensors.into_iter().map(|(name, t)| (name, t.dims().to_vec())).collect()
        };
        assert_eq!(shapes(tensors(&*head)), shapes(vectors.weights(run, "init")), "{run}");
    }
}

/// PyTorch's own count of batches, and other float types.
#[test]
fn files_written_by_pytorch_are_read() {
    let head = drawn(Architecture::Linear, 4, 2);
    let mut saved: BTreeMap<String, Tensor> = tensors(&*head)
        .into_iter()
        .map(|(name, t)| (name, t.to_dtype(DType::F16).unwrap()))
        .collect();
    let halves = saved["1.weight"].to_dtype(DType::F32).unwrap();
    saved.insert("0.num_batches_tracked".into(), Tensor::new(7_i64, &Device::Cpu).unwrap());
    let expected = Expected { kind: HeadKind::Linear, width: 4, outputs: 2 };
    let read = from_tensors(Path::new("saved"), saved, expected, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values(&tensors(&*read)["1.weight"]), values(&halves));
    assert!(!tensors(&*read).contains_key("0.num_batches_tracked"));
}

/// Every convolution lies within 1/sqrt(fan_in) of 0 and fills that range evenly.
#[test]
fn initialisation_is_pytorchs_default() {
    let head = drawn(Architecture::Dpt { channels: [16, 24, 32, 32], features: 16 }, 192, 150);
    let mut fan_in = 0;
    for (index, parameter) in head.parameters().iter().enumerate() {
        let (name, dims) = (&parameter.name, parameter.var.dims());
        if let &[outputs, inputs, k, _] = dims {
            let transposed = name.starts_with("resize_layers.") && !name.contains(".3.");
            // A transposed convolution's weight is [C_in, C_out, k, k], here with as many of both.
            assert!(!transposed || outputs == inputs);
            fan_in = inputs * k * k;
        }
        let bound = 1.0 / (fan_in as f64).sqrt();
        let values = values(parameter.var.as_tensor());
        for (element, &value) in values.iter().enumerate() {
            let expected = ((2.0 * uniform(index, element) - 1.0) * bound) as f32;
            assert_eq!(value, expected, "{name} {element}");
        }
        let (n, square) = (values.len() as f64, values.iter().map(|&v| f64::from(v).powi(2)));
        let variance = square.sum::<f64>() / n / (bound * bound / 3.0);
        // Five standard deviations of the mean square of a uniform.
        assert!((variance - 1.0).abs() < 5.0 * 0.9 / n.sqrt(), "{name}: {variance}");
    }
    let linear = tensors(&*drawn(Architecture::Linear, 6, 2));
    assert_eq!(values(&linear["0.weight"]), [1.0; 6]);
    assert_eq!(values(&linear["0.bias"]), [0.0; 6]);
    assert_eq!(values(&linear["0.running_mean"]), [0.0; 6]);
    assert_eq!(values(&linear["0.running_var"]), [1.0; 6]);
}

#[test]
fn bad_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    let try_bytes = |bytes: &[u8], kind, width, outputs| {
        std::fs::write(&path, bytes).unwrap();
        let expected = Expected { kind, width, outputs };
        let error = load(&path, expected, DType::F32, &Device::Cpu).err().unwrap().to_string();
        error.replace(&path.display().to_string(), "FILE")
    };
    type Tensors = BTreeMap<String, Tensor>;
    let changed = |architecture, change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors(&*drawn(architecture, 10, 3));
        change(&mut tensors);
        encode(&tensors).unwrap()
    };
    let linear = |change: &dyn Fn(&mut Tensors)| {
        try_bytes(&changed(Architecture::Linear, change), HeadKind::Linear, 10, 3)
    };
    let dpt =
        |change: &dyn Fn(&mut Tensors)| try_bytes(&changed(DPT, change), HeadKind::Dpt, 10, 3);
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let whole = |architecture| changed(architecture, &|_| {});
    let integers = safetensors::serialize(
        [(
            "x",
            safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1], &[0]).unwrap(),
        )],
        None,
    );
    let messages = [
        try_bytes(b"not a head", HeadKind::Linear, 10, 3),
        try_bytes(&whole(DPT)[..100], HeadKind::Dpt, 10, 3),
        try_bytes(&integers.unwrap(), HeadKind::Linear, 10, 3),
        try_bytes(&whole(DPT), HeadKind::Linear, 10, 3),
        try_bytes(&whole(Architecture::Linear), HeadKind::Dpt, 10, 3),
        try_bytes(&encode(&BTreeMap::new()).unwrap(), HeadKind::Dpt, 10, 3),
        try_bytes(&whole(Architecture::Linear), HeadKind::Linear, 12, 3),
        try_bytes(&whole(Architecture::Linear), HeadKind::Linear, 10, 21),
        try_bytes(&whole(DPT), HeadKind::Dpt, 1536, 3),
        try_bytes(&whole(DPT), HeadKind::Dpt, 10, 1),
        linear(&|t| drop(t.remove("0.running_var"))),
        linear(&|t| drop(t.insert("1.weight".into(), zeros(&[3, 10])))),
        linear(&|t| drop(t.insert("0.bias".into(), zeros(&[3])))),
        linear(&|t| drop(t.insert("2.weight".into(), zeros(&[3])))),
        dpt(&|t| drop(t.remove("scratch.refinenet4.resConfUnit1.conv1.bias"))),
        dpt(&|t| drop(t.remove("projects.2.weight"))),
        dpt(&|t| drop(t.insert("scratch.layer2_rn.weight".into(), zeros(&[7, 5, 1, 1])))),
        dpt(&|t| t.extend([("decoder.b".into(), zeros(&[1])), ("decoder.a".into(), zeros(&[1]))])),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    FILE: not a safetensors file: header too large
    FILE: not a safetensors file: invalid header length
    FILE: tensor x is U8: expected F32, F16, BF16 or F64 (or I64 for a counter)
    FILE: expected a linear head (with a tensor 1.weight), found dpt
    FILE: expected a dpt head (with a tensor projects.0.weight), found linear
    FILE: expected a dpt head (with a tensor projects.0.weight), found neither kind of head
    FILE: the head takes features of width 10, expected 12
    FILE: the head has 3 outputs, expected 21
    FILE: the head takes features of width 10, expected 1536
    FILE: the head has 3 outputs, expected 1
    FILE: tensor 0.running_var is missing
    FILE: tensor 1.weight has shape [3, 10], expected [3, 10, 1, 1]
    FILE: tensor 0.bias has shape [3], expected [10]
    FILE: unexpected tensors: 2.weight
    FILE: tensor scratch.refinenet4.resConfUnit1.conv1.bias is missing
    FILE: tensor projects.2.weight is missing
    FILE: tensor scratch.layer2_rn.weight has shape [7, 5, 1, 1], expected [7, 5, 3, 3]
    FILE: unexpected tensors: decoder.a, decoder.b
    ");
    let missing = folder.path().join("none.safetensors");
    let expected = Expected { kind: HeadKind::Dpt, width: 10, outputs: 3 };
    let error = load(&missing, expected, DType::F32, &Device::Cpu).err().unwrap().to_string();
    assert!(error.starts_with(&missing.display().to_string()) && error.contains("cannot be read"));
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let tensors = tensors(&*drawn(DPT, 10, 3));
    let bytes = encode(&tensors).unwrap();
    let read = decode(&bytes).unwrap();
    assert!(read.keys().eq(tensors.keys()));
    assert_eq!(encode(&read).unwrap(), bytes);
}
