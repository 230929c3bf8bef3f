//! Times the loader: `loader_speed FOLDER [--images N] [--workers N] [--dump FILE]` reads the images of an
//! image folder, or of a folder with WebDataset shards, over and over, as a run does, and prints images a
//! second and the memory in use on the way.
//!
//! Every image goes the way of a run: read, decoded, shorter side to 256 bicubic, centre crop of 256,
//! normalised, on `--workers` threads through [`pixio_eval::stream::ordered`] and put into batches in
//! order. `--dump` writes the first 64 encoder inputs (little-endian f32, `[3, 256, 256]` each) for a
//! comparison of pixels. `harness/scripts/loader_speed.py` runs it beside PyTorch's loaders.

use std::convert::Infallible;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pixio_eval::stream::ordered;
use schema::ImageStage;
use tasks::archive::Archives;
use tasks::data::{Container, InPlace};
use tasks::image::{decode, decode_bytes, normalise_into, prepare};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CROP: usize = 256;
const BATCH: usize = 64;
const DUMPED: usize = 64;
/// Counts of images at which the memory in use is printed.
const MEMORY_AT: [usize; 5] = [1_000, 10_000, 25_000, 50_000, 100_000];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    pixio_eval::allocator::keep_freed_memory();
    let (mut folder, mut images, mut workers, mut dump) = (None, None, 2, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--images" => images = Some(value()?.parse::<usize>()?),
            "--workers" => workers = value()?.parse::<usize>()?,
            "--dump" => dump = Some(PathBuf::from(value()?)),
            _ => folder = Some(PathBuf::from(arg)),
        }
    }
    let folder =
        folder.ok_or("usage: loader_speed FOLDER [--images N] [--workers N] [--dump FILE]")?;
    let webdataset = InPlace { containers: vec![Container::Webdataset], strip: String::new() };
    let index = tempfile::tempdir()?;
    let archives = Archives::open(&folder, &webdataset, index.path(), &|_, _| true)?;
    let files = files(&folder)?;
    let there = archives.as_ref().map_or(files.len(), Archives::len);
    if there == 0 {
        return Err(
            format!("{}: neither class folders with images nor shards", folder.display()).into()
        );
    }
    let count = images.unwrap_or(there);
    let stage = ImageStage {
        revision: 1,
        resize: CROP,
        crop: CROP,
        filter: "bicubic".to_owned(),
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    let side = 3 * CROP * CROP;

    let input = |i: usize| -> Result<Vec<f32>, String> {
        let i = i % there;
        let image = match &archives {
            Some(archives) => decode_bytes(&archives.read(i).map_err(|error| error.to_string())?),
            None => decode(&files[i]),
        };
        let image = image.map_err(|error| error.to_string())?;
        let image = prepare(image.view(), &stage);
        let mut pixels = vec![0f32; side];
        normalise_into(image.view(), stage.mean, stage.std, &mut pixels);
        Ok(pixels)
    };
    if let Some(dump) = dump {
        let mut file = std::io::BufWriter::new(std::fs::File::create(dump)?);
        for i in 0..DUMPED.min(there) {
            for value in input(i)? {
                file.write_all(&value.to_le_bytes())?;
            }
        }
        file.flush()?;
    }

    let began = Instant::now();
    let mut batch = Vec::with_capacity(BATCH * side);
    let (mut sum, mut failed) = (0f64, None);
    ordered(0..count, workers, 2 * BATCH, input, |i, pixels| -> Result<(), Infallible> {
        match pixels {
            Ok(pixels) => batch.extend_from_slice(&pixels),
            Err(error) => failed = Some(error),
        }
        if batch.len() == BATCH * side || i + 1 == count {
            sum += batch.iter().step_by(997).map(|&x| f64::from(x)).sum::<f64>();
            batch.clear();
        }
        if MEMORY_AT.contains(&(i + 1)) {
            println!("after {} images: {:.1} MB", i + 1, resident("VmRSS:") / 1e3);
        }
        Ok(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("images/s {rate:.1}   peak {:.1} MB   checksum {sum:.3}", resident("VmHWM:") / 1e3);
    Ok(())
}

/// Images of the class folders, in order of their paths.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for class in std::fs::read_dir(folder)? {
        let class = class?.path();
        if class.is_dir() {
            for file in std::fs::read_dir(class)? {
                files.push(file?.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A line of what the system says of this process's memory, in kB; 0 where there is no such file.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
