//! What loading a large checkpoint takes: its size once converted, and little more.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../pickle/tests/forge/mod.rs"]
mod forge;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use common::{World, golden, values};
use forge::{Assembler, Record};
use pixio_eval::backbone::families::family;
use pixio_eval::weights::Expected;

const MIB: usize = 1 << 20;
/// The runtime and one forward pass of few tokens.
const BESIDE: usize = 200 * MIB;

fn config() -> serde_json::Value {
    serde_json::json!({
        "model_type": "pixio", "hidden_size": 2048, "num_attention_heads": 16,
        "num_hidden_layers": 16, "image_size": 256, "patch_size": 16,
    })
}

fn size(tensor: &Expected) -> usize {
    4 * tensor.shape.iter().product::<usize>()
}

/// First elements of a tensor; the others are holes in the file, which read as zeros.
fn head(index: usize, tensor: &Expected) -> Vec<u8> {
    let count = (size(tensor) / 4).min(4096);
    let value = |i: usize| ((i * 37 + index * 11) % 101) as f32 / 101.0 - 0.4;
    (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
}

fn write_at(file: &mut File, at: usize, bytes: &[u8]) {
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Names in files of transformers, where q, k and v are tensors of their own.
fn parts(name: &str) -> Vec<String> {
    let Some((block, leaf)) = name.split_once(".attn.qkv.") else { return vec![name.to_owned()] };
    let layer = block.replace("blocks.", "layers.");
    ["q", "k", "v"].map(|part| format!("{layer}.attention.{part}_proj.{leaf}")).to_vec()
}

fn write_safetensors(path: &Path, tensors: &[Expected]) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for tensor in tensors {
        let (names, mut shape) = (parts(&tensor.name), tensor.shape.clone());
        shape[0] /= names.len();
        for name in &names {
            let offsets = [end, end + size(tensor) / names.len()];
            let info =
                serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
            header.insert(name.clone(), info);
            end = offsets[1];
        }
    }
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = File::create(path).unwrap();
    file.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&text).unwrap();
    let mut at = 8 + text.len();
    for (index, tensor) in tensors.iter().enumerate() {
        write_at(&mut file, at, &head(index, tensor));
        at += size(tensor);
    }
    file.set_len(at as u64).unwrap();
}

/// As `torch.save` lays it out, with checksums.
fn write_pth(path: &Path, tensors: &[Expected]) {
    let mut pickle = Assembler::new();
    pickle.byte(b'}').text("model").byte(b'}').byte(b'(');
    for (index, tensor) in tensors.iter().enumerate() {
        let shape: Vec<i64> = tensor.shape.iter().map(|size| *size as i64).collect();
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        let count = size(tensor) as i64 / 4;
        pickle.text(&tensor.name);
        pickle.tensor("FloatStorage", &index.to_string(), count, 0, &shape, &strides);
    }
    let pickle = pickle.byte(b'u').byte(b's').stop();
    let mut file = File::create(path).unwrap();
    let mut records = Vec::new();
    let mut at = 0;
    let zeros = vec![0; MIB];
    let mut entry = |name: String, data: &[u8], length: usize| {
        let mut crc = crc32fast::Hasher::new();
        crc.update(data);
        let mut left = length - data.len();
        while left > 0 {
            let part = left.min(zeros.len());
            crc.update(&zeros[..part]);
            left -= part;
        }
        let start = forge::local(&name, data);
        write_at(&mut file, at, &start);
        let (size, place, crc) = (length as u32, at as u32, crc.finalize());
        at += start.len() - data.len() + length;
        records.push(Record { name, size, place, crc, method: 0, flags: 0, extra: Vec::new() });
    };
    entry("x/data.pkl".to_owned(), &pickle, pickle.len());
    for (index, tensor) in tensors.iter().enumerate() {
        entry(format!("x/data/{index}"), &head(index, tensor), size(tensor));
    }
    write_at(&mut file, at, &forge::directory(&records, at as u32));
}

/// Runs the program to its end; returns the most anonymous memory it was seen to hold, in bytes.
fn peak(world: &World, args: &[&str]) -> usize {
    let mut child = world.command(args).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let held = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let held = held.map(|held| held.trim().trim_end_matches(" kB").parse::<usize>().unwrap());
        peak = peak.max(held.unwrap_or(0) << 10);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success());
    peak
}

/// Free bytes where `folder` is, as `df` says.
fn free(folder: &Path) -> Option<u64> {
    let output = std::process::Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().last()?.split_whitespace().nth(3)?.parse::<u64>().ok()? << 10)
}

/// Bytes of memory that can be had, as the kernel says.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

#[test]
fn three_gib_load_in_their_converted_size() {
    let world = World::new();
    if free(world.folder.path()).is_some_and(|free| free < 8 << 30) {
        println!("skipped: less than 8 GiB free in {}", world.folder.path().display());
        return;
    }
    if available().is_some_and(|free| free < 5 << 30) {
        println!("skipped: less than 5 GiB of memory to be had");
        return;
    }
    let make = (family("pixio").unwrap().from_config)(&config()).unwrap();
    let tensors = make.expected();
    let whole: usize = tensors.iter().map(size).sum();
    let largest = tensors.iter().map(size).max().unwrap();
    assert!(whole >= 3 << 30, "{whole} bytes");
    std::fs::write(world.path("arch.json"), config().to_string()).unwrap();
    let image = golden().join("imagenet/val/n00000003/n00000003_1.JPEG");

    let mut features = Vec::new();
    for (file, write) in [
        ("large.safetensors", write_safetensors as fn(&Path, &[Expected])),
        ("large.pth", write_pth),
    ] {
        let path = world.path(file);
        write(&path, &tensors);
        for (dtype, bytes) in [("f32", 4), ("bf16", 2)] {
            let (path, image) = (path.to_str().unwrap(), image.to_str().unwrap());
            let out = format!("{file}.{dtype}.safetensors");
            let args =
                ["features", image, "--backbone", path, "--arch", "arch.json", "--dtype", dtype];
            let held =
                peak(&world, &[&args[..], &["--size", "32x32", "--out", &out, "-q"]].concat());
            let bound = whole / 4 * bytes + largest + BESIDE;
            println!("{file} in {dtype}: {} MiB, bound {} MiB", held / MIB, bound / MIB);
            assert!(held <= bound && held > whole / 4 * bytes, "{} MiB", held / MIB);
            features.push(values(&world.path(&out), "block15.patch_tokens"));
        }
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(features[0], features[2]);
    assert_eq!(features[1], features[3]);
    assert_ne!(features[0], features[1]);
    assert!(features[0].iter().all(|value| value.is_finite()));
}
