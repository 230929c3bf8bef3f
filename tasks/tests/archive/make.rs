//! Small data sets in every kind of archive.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use pixio_eval_tasks::archive::{ArchiveError, Archives};
use pixio_eval_tasks::data::{Container, InPlace};

/// Paths and contents.
pub type Files = Vec<(String, Vec<u8>)>;

/// Bytes that do not compress.
pub fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The class of a file, and its WordNet identifier.
pub fn class_of(path: &str) -> (usize, &str) {
    let name = path.split('/').nth(1).unwrap();
    (CLASSES.iter().position(|&class| class == name).unwrap(), name)
}

pub const CLASSES: [&str; 3] = ["n01440764", "n01443537", "n02119789"];

/// ImageNet's folder layout, in the order of paths. Contents of many sizes: none, repetitive, noise, more than a
/// block of Snappy.
pub fn images() -> Files {
    let mut files = Vec::new();
    for (class, name) in CLASSES.iter().enumerate() {
        for i in 0..5 {
            let seed = class * 10 + i;
            let content = match i {
                0 => noise(seed as u64, 300 + class),
                1 => noise(seed as u64, 70_000 + class),
                2 => b"header".repeat(seed * 300),
                3 => [b"JFIF".repeat(100), noise(seed as u64, 200_000)].concat(),
                _ => vec![class as u8; 20_000],
            };
            files.push((format!("train/{name}/{name}_{i}.JPEG"), content));
        }
        let val = class * 7 % 5;
        let content = [noise(100 + class as u64, 900), vec![0; 900]].concat();
        files.push((format!("val/{name}/ILSVRC2012_val_0000000{val}.JPEG"), content));
    }
    files.sort();
    files
}

/// A member of a zip archive, with what may be wrong with it.
#[derive(Clone, Default)]
pub struct ZipMember {
    pub name: String,
    pub content: Vec<u8>,
    pub deflated: bool,
    pub zip64: bool,
    pub encrypted: bool,
    pub method: Option<u16>,
    pub crc: Option<u32>,
    pub size: Option<u32>,
    pub extra: usize,
    pub mode: u32,
}

impl ZipMember {
    pub fn new(name: &str, content: &[u8]) -> Self {
        Self { name: name.to_owned(), content: content.to_owned(), ..Self::default() }
    }
}

pub fn zip(members: &[ZipMember]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let packed = if member.deflated {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&member.content).unwrap();
            encoder.finish().unwrap()
        } else {
            member.content.clone()
        };
        let at = out.len() as u32;
        let method = member.method.unwrap_or(if member.deflated { 8 } else { 0 });
        let crc = member.crc.unwrap_or_else(|| crc32fast::hash(&member.content));
        let sizes = [packed.len() as u32, member.size.unwrap_or(member.content.len() as u32)];
        let flags = 1 << 11 | u16::from(member.encrypted);
        let mut common = Vec::new();
        for short in [45, flags, method, 0, 0] {
            common.extend(short.to_le_bytes());
        }
        common.extend(crc.to_le_bytes());
        for size in sizes {
            common.extend(if member.zip64 { u32::MAX } else { size }.to_le_bytes());
        }
        common.extend((member.name.len() as u16).to_le_bytes());
        let mut wide = Vec::new();
        if member.zip64 {
            wide.extend([1, 0, 16, 0]);
            for size in [sizes[1], sizes[0]] {
                wide.extend(u64::from(size).to_le_bytes());
            }
        }
        // Padding of its own in the local header, as tools add for alignment.
        let mut padding = Vec::new();
        if member.extra > 0 {
            padding.extend(0xd935_u16.to_le_bytes());
            padding.extend((member.extra as u16).to_le_bytes());
            padding.resize(4 + member.extra, 0);
        }
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(((wide.len() + padding.len()) as u16).to_le_bytes());
        for part in [member.name.as_bytes(), &wide, &padding, &packed] {
            out.extend(part);
        }
        directory.extend(b"PK\x01\x02\x2d\x03");
        directory.extend(&common);
        directory.extend((wide.len() as u16).to_le_bytes());
        directory.extend([0; 6]);
        directory.extend((member.mode << 16).to_le_bytes());
        directory.extend(at.to_le_bytes());
        directory.extend(member.name.as_bytes());
        directory.extend(wide);
    }
    let (at, size) = (out.len() as u64, directory.len() as u64);
    let count = members.len() as u64;
    out.extend(directory);
    let wide = members.iter().any(|member| member.zip64);
    if wide {
        let end = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44_u64.to_le_bytes());
        out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [count, count, size, at] {
            out.extend(number.to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        out.extend(if wide { u16::MAX } else { count as u16 }.to_le_bytes());
    }
    for number in [size, at] {
        out.extend(if wide { u32::MAX } else { number as u32 }.to_le_bytes());
    }
    out.extend([0, 0]);
    out
}

/// Zip of some files, every second one deflated.
pub fn zip_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members = files.iter().enumerate();
    let members: Vec<_> = members
        .map(|(i, (name, content))| ZipMember {
            deflated: i % 2 == 1,
            extra: i % 3 * 700,
            ..ZipMember::new(name, content)
        })
        .collect();
    zip(&members)
}

/// Tar of some files; names that are too long as GNU does it.
pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if name.contains("..") {
            // The builder refuses what a reader must refuse.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, &content[..]).unwrap();
            continue;
        }
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The key of an image in shards, as timm names them.
pub fn key(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap().split('.').next().unwrap();
    if path.starts_with("val") { format!("{name}_{}", class_of(path).1) } else { name.to_owned() }
}

/// A shard of the images of one split.
pub fn shard_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut members = Vec::new();
    for (i, (path, content)) in files.iter().enumerate() {
        let key = key(path);
        let ending = ["jpg", "jpeg", "JPEG"][i % 3];
        members.push((format!("{key}.cls"), class_of(path).0.to_string().into_bytes()));
        members.push((format!("{key}.{ending}"), content.clone()));
        members.push((format!("{key}.json"), b"{}".to_vec()));
    }
    tar_of(&members)
}

/// The files of one split.
pub fn of_split(files: &Files, split: &str) -> Files {
    files.iter().filter(|(path, _)| path.starts_with(split)).cloned().collect()
}

/// Names and contents of shards of images.
pub fn shards(files: &Files, per_shard: usize) -> Files {
    let mut shards = Vec::new();
    for (split, name) in [("train", "train"), ("val", "validation")] {
        for (i, files) in of_split(files, split).chunks(per_shard).enumerate() {
            shards.push((format!("imagenet1k-{name}-{i:04}.tar"), shard_of(files)));
        }
    }
    shards
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn in_place(container: Container, strip: &str) -> InPlace {
    InPlace { containers: vec![container], strip: strip.to_owned() }
}

/// Opens archives with an index in the folder `cache` beside them.
pub fn open(root: &Path, container: Container) -> Result<Archives, ArchiveError> {
    let cache = root.join("cache");
    let archives = Archives::open(root, &in_place(container, ""), &cache, &|_, _| true)?;
    Ok(archives.expect("archives"))
}

/// Everything in archives.
pub fn contents(archives: &Archives) -> Files {
    let member = |i| (archives.path(i).to_owned(), archives.read(i).unwrap());
    (0..archives.len()).map(member).collect()
}

/// Compares without printing contents.
pub fn assert_same(found: &Files, expected: &Files, what: &str) {
    let paths = |files: &Files| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(found), paths(expected), "{what}");
    for ((path, found), (_, expected)) in found.iter().zip(expected) {
        assert!(found == expected, "{what}: {path}: {} and {} bytes", found.len(), expected.len());
    }
}
