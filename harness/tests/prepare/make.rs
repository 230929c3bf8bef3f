//! Archives as publishers make them, and as nobody should.

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use tar::{EntryType, Header};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub type Members<'a> = [(&'a str, Vec<u8>)];

pub fn zip(members: &Members<'_>) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        match name.strip_suffix('/') {
            Some(folder) => writer.add_directory(folder, SimpleFileOptions::default()).unwrap(),
            None => {
                let best = SimpleFileOptions::default().compression_level(Some(9));
                writer.start_file(*name, best).unwrap();
                writer.write_all(bytes).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

pub fn zip_with_link(name: &str, to: &str) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink(name, to, SimpleFileOptions::default()).unwrap();
    writer.finish().unwrap().into_inner()
}

/// A member with whatever name and type, and with a size that may be a lie.
pub fn entry(tar: &mut Vec<u8>, name: &[u8], kind: EntryType, bytes: &[u8], size: u64) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    if kind.is_symlink() || kind.is_hard_link() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(bytes);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

pub fn tar(members: &Members<'_>) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, bytes) in members {
        let kind = if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
        entry(&mut tar, name.as_bytes(), kind, bytes, bytes.len() as u64);
    }
    closed(tar)
}

pub fn closed(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 1024, 0);
    tar
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

// MATLAB files, of format 5 and little-endian.

fn element(kind: u32, bytes: &[u8]) -> Vec<u8> {
    let mut element = [kind.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
    element.extend(bytes);
    element.resize(element.len().next_multiple_of(8), 0);
    element
}

fn matrix(class: u32, dims: [u32; 2], name: &str, content: &[u8]) -> Vec<u8> {
    let flags = element(6, &[class.to_le_bytes(), [0; 4]].concat());
    let dims = element(5, &dims.map(u32::to_le_bytes).concat());
    let name = element(1, name.as_bytes());
    element(14, &[flags, dims, name, content.to_vec()].concat())
}

fn structs(name: &str, count: usize, fields: &[&str], values: &[Vec<u8>]) -> Vec<u8> {
    let mut names = Vec::new();
    for field in fields {
        names.extend(field.as_bytes());
        names.resize(names.len().next_multiple_of(32), 0);
    }
    let width = element(5, &32_u32.to_le_bytes());
    let content = [width, element(1, &names), values.concat()].concat();
    matrix(2, [count as u32, 1], name, &content)
}

fn number(value: f64) -> Vec<u8> {
    matrix(6, [1, 1], "", &element(9, &value.to_le_bytes()))
}

fn text(value: &str) -> Vec<u8> {
    matrix(4, [1, value.len() as u32], "", &element(16, value.as_bytes()))
}

fn file(array: &[u8]) -> Vec<u8> {
    let mut file = vec![b' '; 116];
    file.resize(124, 0);
    file.extend([0, 1, b'I', b'M']);
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(array).unwrap();
    let packed = packed.finish().unwrap();
    file.extend([15_u32.to_le_bytes(), (packed.len() as u32).to_le_bytes()].concat());
    file.extend(packed);
    file
}

/// `GTcls` of a mask of rows of labels.
pub fn boundary_mask(labels: &[u8], width: usize) -> Vec<u8> {
    let height = labels.len() / width;
    let columns: Vec<u8> =
        (0..width * height).map(|at| labels[(at % height) * width + at / height]).collect();
    let mask = matrix(9, [height as u32, width as u32], "", &element(2, &columns));
    // Sparse arrays stand beside it in the real files; only their class is looked at.
    let sparse = matrix(5, [1, 1], "", &[]);
    file(&structs("GTcls", 1, &["Boundaries", "Segmentation"], &[sparse, mask]))
}

/// `synsets` with these classes, numbered from 1.
pub fn synsets(classes: &[&str]) -> Vec<u8> {
    let values: Vec<Vec<u8>> =
        (1..).zip(classes).flat_map(|(id, class)| [number(f64::from(id)), text(class)]).collect();
    file(&structs("synsets", classes.len(), &["ILSVRC2012_ID", "WNID"], &values))
}
