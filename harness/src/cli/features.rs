use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use tasks::image::{self, ImageError};

use super::args::{FeaturesArgs, Size};
use super::{CliError, EXIT_DONE, write_file};
use crate::backbone::{BackboneError, Placement, Tap, Wanted};
use crate::device;
use crate::interrupt;
use crate::progress::Reporter;
use crate::resolve::{Preparation, Resolver};
use crate::run::image_stage;
use crate::stream::ordered;

pub(super) fn features(args: &FeaturesArgs, reporter: &Reporter) -> Result<u8, CliError> {
    check_out(&args.out)?;
    let device = device::open(args.compute.device, reporter)?;
    let dtype = device::dtype(args.compute.dtype, &device);
    let resolver = Resolver::new(args.source.options(), reporter)?;
    let resolved = resolver.resolve(&args.backbone)?;
    let dimensions = resolved.dimensions();
    let mut taps =
        if args.taps.is_empty() { vec![dimensions.blocks - 1] } else { args.taps.clone() };
    taps.sort_unstable();
    taps.dedup();
    if let Some(&block) = taps.iter().find(|&&block| block >= dimensions.blocks) {
        return Err(BackboneError::NoSuchBlock { block, last: dimensions.blocks - 1 }.into());
    }
    let size = args.size.unwrap_or(Size::Crop(resolved.preparation.resolution));
    let (height, width) = match size {
        Size::Crop(side) => (side, side),
        Size::Exact(height, width) => (height, width),
    };
    let patch = dimensions.patch;
    if height % patch != 0 || width % patch != 0 {
        let error = BackboneError::NotPatches { height, width, patch };
        return Err(CliError::Size(format!("{height}x{width}"), error));
    }
    let backbone = resolved.load(&Placement { device: device.clone(), dtype })?;
    let preparation = &resolved.preparation;

    let mut columns: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    let bar = reporter.items("encoding", args.images.len() as u64, "images");
    let make = |i: usize| pixels(&args.images[i], size, preparation);
    let mut batch = Vec::new();
    let workers = args.compute.workers.unwrap_or_else(device::threads);
    let ahead = 2 * args.batch_size.max(workers);
    let take = |i: usize, pixels: Result<Vec<f32>, ImageError>| -> Result<(), CliError> {
        batch.push(pixels?);
        if batch.len() < args.batch_size && i + 1 < args.images.len() {
            return Ok(());
        }
        let shape = (batch.len(), 3, height, width);
        let images = Tensor::from_vec(std::mem::take(&mut batch).concat(), shape, &device)
            .map_err(BackboneError::Candle)?;
        for tap in backbone.forward(&images, &taps, Wanted::ALL)? {
            for (name, tensor) in columns_of(tap) {
                let tensor = tensor.to_device(&candle_core::Device::Cpu);
                columns.entry(name).or_default().push(tensor.map_err(BackboneError::Candle)?);
            }
        }
        bar.set(i as u64 + 1);
        if interrupt::requested() { Err(CliError::Interrupted) } else { Ok(()) }
    };
    ordered(0..args.images.len(), workers, ahead, make, take)?;
    drop(bar);
    write(args, &columns)?;
    let (count, out) = (args.images.len(), args.out.display());
    reporter.say(format!("{out}: {} tensors of {count} images", columns.len()));
    Ok(EXIT_DONE)
}

/// Finds out before the work that the file cannot be written.
fn check_out(out: &Path) -> Result<(), CliError> {
    let fault =
        |why: &str| CliError::Output { what: out.display().to_string(), why: why.to_owned() };
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    match folder.unwrap_or(Path::new(".")).is_dir() {
        false => Err(fault("its folder does not exist")),
        true if out.is_dir() => Err(fault("it is a folder")),
        true => Ok(()),
    }
}

fn pixels(path: &Path, size: Size, preparation: &Preparation) -> Result<Vec<f32>, ImageError> {
    let Preparation { mean, std, .. } = *preparation;
    let decoded = image::decode(path)?;
    let ready = match size {
        Size::Exact(height, width) => image::resize(decoded.view(), height, width),
        Size::Crop(side) => image::prepare(decoded.view(), &image_stage(side, mean, std)),
    };
    let mut out = vec![0f32; ready.len()];
    image::normalise_into(ready.view(), mean, std, &mut out);
    Ok(out)
}

fn columns_of(tap: Tap) -> impl Iterator<Item = (String, Tensor)> {
    let parts = [
        ("patch_tokens", tap.patches),
        ("cls_tokens", tap.summary),
        ("patch_tokens_norm", tap.patches_norm),
        ("cls_tokens_norm", tap.summary_norm),
    ];
    let block = tap.block;
    parts.into_iter().filter_map(move |(name, t)| Some((format!("block{block}.{name}"), t?)))
}

/// Concatenates each column over the batches and writes them all, with the image paths as metadata.
fn write(args: &FeaturesArgs, columns: &BTreeMap<String, Vec<Tensor>>) -> Result<(), CliError> {
    let fault = |why: String| CliError::Output { what: args.out.display().to_string(), why };
    let mut whole = BTreeMap::new();
    for (name, parts) in columns {
        let tensor = Tensor::cat(parts, 0).map_err(|e| fault(e.to_string()))?;
        whole.insert(name.clone(), tensor);
    }
    let images: Vec<String> = args.images.iter().map(|p| p.display().to_string()).collect();
    let listed = serde_json::to_string(&images).map_err(|e| fault(e.to_string()))?;
    let metadata = [("images".to_owned(), listed), ("backbone".to_owned(), args.backbone.clone())];
    let bytes =
        safetensors::serialize(&whole, Some(metadata.into())).map_err(|e| fault(e.to_string()))?;
    write_file(&args.out, &bytes)
}
