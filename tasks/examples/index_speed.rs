//! Times the index of ImageNet's size: writes tar shards with headers and holes instead of images, lists them
//! with a cold and a warm index, and removes them.
//!
//! ```text
//! cargo run --release -p pixio-eval-tasks --example index_speed -- FOLDER [IMAGES] [BYTES_EACH] [SHARDS]
//! ```
//!
//! By default 1,300,000 images of 77,000 bytes, 100 GB in 1024 shards, each image with its class in a file of its
//! own. A header takes a block of the file system: about 5.3 GB in FOLDER.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pixio_eval_tasks::archive::Archives;
use pixio_eval_tasks::data::{Container, InPlace};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: index_speed FOLDER [IMAGES] [BYTES] [SHARDS]")?;
    let mut number = |default| arguments.next().map_or(Ok(default), |n| n.parse::<u64>());
    let (images, bytes, shards) = (number(1_300_000)?, number(77_000)?, number(1024)?.max(1));

    let root = tempfile::tempdir_in(folder)?;
    let start = Instant::now();
    for shard in 0..shards {
        let range = images * shard / shards..images * (shard + 1) / shards;
        write_shard(&root.path().join(format!("train-{shard:04}.tar")), range, bytes)?;
    }
    let (mut apparent, mut taken) = (0, 0);
    for entry in fs::read_dir(root.path())? {
        let metadata = entry?.metadata()?;
        (apparent, taken) = (apparent + metadata.len(), taken + metadata.blocks() * 512);
    }
    let size = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let written = start.elapsed().as_secs_f64();
    println!(
        "{shards} shards of {}, {} on disk, written in {written:.1} s",
        size(apparent),
        size(taken)
    );

    let cache = root.path().join("cache");
    let in_place = InPlace { containers: vec![Container::Webdataset], strip: String::new() };
    let before = memory("VmRSS");
    let done = AtomicU64::new(0);
    for what in ["index built", "index opened", "index opened", "index opened"] {
        let start = Instant::now();
        let told = |bytes, _| {
            done.fetch_max(bytes, Ordering::Relaxed);
            true
        };
        let archives = Archives::open(root.path(), &in_place, &cache, &told)?.ok_or("no shards")?;
        let seconds = start.elapsed().as_secs_f64();
        println!("{what} in {seconds:.3} s: {} members", archives.len());
        if what == "index built" {
            let (peak, rate) = (memory("VmHWM"), done.load(Ordering::Relaxed) as f64 / 1e9);
            println!("  {:.1} GB/s; memory {before} kB before, {peak} kB at most", rate / seconds);
            continue;
        }
        let start = Instant::now();
        let steps = 1_000_000;
        let found = (0..steps)
            .filter(|i| archives.find(archives.path(i * 7919 % archives.len())).is_some())
            .count();
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / steps as f64;
        println!("  {found} of {steps} found by path, {nanoseconds:.0} ns each");
    }
    let index = fs::read_dir(&cache)?.next().ok_or("no index")??.metadata()?.len();
    println!("index of {index} bytes, {:.0} a member", index as f64 / images as f64);
    println!("memory {} kB at most", memory("VmHWM"));
    Ok(())
}

/// Headers and classes; the images are holes.
fn write_shard(path: &Path, images: std::ops::Range<u64>, bytes: u64) -> Result<(), Error> {
    let file = File::create(path)?;
    let mut at = 0;
    for image in images {
        let class = image % 1000;
        let key = format!("n{:08}_{image}", 1_000_000 + class);
        let text = class.to_string();
        let mut block = header(&format!("{key}.cls"), text.len() as u64)?;
        block.extend(text.as_bytes());
        block.resize(1024, 0);
        block.extend(header(&format!("{key}.jpg"), bytes)?);
        file.write_all_at(&block, at)?;
        at += block.len() as u64 + bytes.next_multiple_of(512);
    }
    file.set_len(at + 1024)?;
    Ok(())
}

fn header(name: &str, size: u64) -> Result<Vec<u8>, Error> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

/// A line of this process's status, in kB; 0 where there is none.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|known| known.starts_with(line));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
