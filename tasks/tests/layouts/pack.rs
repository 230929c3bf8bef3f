//! A folder of files as the archives in which people have it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use zip::write::SimpleFileOptions;

/// Every file below a folder, by its path in it.
pub fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A zip archive of files below `prefix`, every second one deflated.
pub fn zip<'a>(
    path: &Path,
    prefix: &str,
    members: impl Iterator<Item = (&'a String, &'a Vec<u8>)>,
) {
    let mut writer = zip::ZipWriter::new(File::create(path).unwrap());
    for (at, (name, bytes)) in members.enumerate() {
        let method = match at % 2 {
            0 => zip::CompressionMethod::Stored,
            _ => zip::CompressionMethod::Deflated,
        };
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("{prefix}{name}"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// An image of ImageNet: split, class number, key (`n00000001_7`, `ILSVRC2012_val_00000007`), bytes.
pub struct Image {
    pub split: String,
    pub class: usize,
    pub wnid: String,
    pub key: String,
    pub bytes: Vec<u8>,
}

/// The images of a folder of class folders, in an order that is not theirs, as shards are shuffled.
pub fn images(root: &Path) -> Vec<Image> {
    let mut images = Vec::new();
    for (name, bytes) in files(root) {
        let parts: Vec<&str> = name.split('/').collect();
        let [split @ ("train" | "val"), wnid, file] = parts[..] else { continue };
        images.push(Image {
            split: split.to_owned(),
            class: wnid[1..].parse().unwrap(),
            wnid: wnid.to_owned(),
            key: file.strip_suffix(".JPEG").unwrap().to_owned(),
            bytes,
        });
    }
    // Multiplying by a number prime to theirs permutes the places.
    let (count, step) = (images.len(), 7919);
    let mut order: Vec<usize> = (0..count).map(|at| at * step % count).collect();
    order.dedup();
    assert_eq!(order.iter().collect::<std::collections::BTreeSet<_>>().len(), count);
    let mut slots: Vec<Option<Image>> = images.into_iter().map(Some).collect();
    order.into_iter().map(|at| slots[at].take().unwrap()).collect()
}

/// WebDataset shards in the form of timm/imagenet-1k-wds.
pub fn webdataset(folder: &Path, images: &[Image], shards: usize) {
    fs::create_dir_all(folder).unwrap();
    for (split, name) in [("train", "train"), ("val", "validation")] {
        let of_split: Vec<&Image> = images.iter().filter(|image| image.split == split).collect();
        for (at, shard) in of_split.chunks(of_split.len().div_ceil(shards)).enumerate() {
            let path = folder.join(format!("imagenet1k-{name}-{at:04}.tar"));
            let mut tar = tar::Builder::new(File::create(path).unwrap());
            for image in shard {
                let mut put = |suffix: &str, bytes: &[u8]| {
                    let mut header = tar::Header::new_gnu();
                    header.set_size(bytes.len() as u64);
                    header.set_mode(0o644);
                    let name = format!("{}.{suffix}", image.key);
                    tar.append_data(&mut header, name, bytes).unwrap();
                };
                put("cls", image.class.to_string().as_bytes());
                put("jpg", &image.bytes);
                put("json", format!("{{\"label\": {}}}", image.class).as_bytes());
            }
            tar.finish().unwrap();
        }
    }
}
