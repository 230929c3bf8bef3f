//! `pixio-eval backbones check`: loads a backbone, runs it, and says what it is.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde_json::json;

use super::args::CheckArgs;
use super::backbones::lines;
use super::{CliError, print, print_json};
use crate::backbone::{Backbone, BackboneError, Placement, Tap, Wanted};
use crate::device;
use crate::interrupt;
use crate::progress::Reporter;
use crate::resolve::{Preparation, Resolver};

/// Sums of features that are printed beside the hash.
const SUMS: usize = 4;

pub(super) fn check(args: &CheckArgs, reporter: &Reporter) -> Result<(), CliError> {
    let device = device::open(args.compute.device, reporter)?;
    let dtype = device::dtype(args.compute.dtype, &device);
    let resolved = Resolver::new(args.source.options(), reporter)?.resolve(&args.backbone)?;
    let record = resolved.record()?;
    let backbone = resolved.load(&Placement { device: device.clone(), dtype })?;
    let side = resolved.preparation.resolution;
    let flops = resolved.flops(side, side)?;
    let dimensions = resolved.dimensions();
    let last = dimensions.blocks - 1;

    let image = picture(&resolved.preparation, &device)?;
    let tap = backbone.forward(&image, &[last], Wanted::ALL)?.into_iter().next();
    let features = features(tap)?;
    let rate = rate(&*backbone, &image, last, args)?;

    let layout = layout(&features, side, dimensions.patch);
    if args.json {
        let features: Vec<_> = features
            .iter()
            .map(|f| json!({ "tokens": f.name, "shape": f.shape, "hash": f.hash, "sums": f.sums }))
            .collect();
        return print_json(&json!({
            "name": record.name,
            "source": record.source,
            "family": record.family,
            "identity": record.identity,
            "trained": resolved.trained(),
            "parameters": record.parameters,
            "flops_per_image": flops,
            "resolution": side,
            "blocks": dimensions.blocks,
            "width": dimensions.width,
            "patch": dimensions.patch,
            "device": device::name(&device),
            "dtype": dtype.as_str(),
            "batch_size": args.batch_size,
            "images_per_second": rate,
            "features": features,
        }));
    }
    let flops =
        flops.map_or_else(|| "not counted".to_owned(), |f| format!("{:.3} GFLOPs", f / 1e9));
    let device = format!("{}, {}", device::name(&device), dtype.as_str());
    let mut all = vec![
        ("source", record.source),
        ("family", record.family),
        ("identity", record.identity.short().to_owned()),
        ("parameters", format!("{:.3}M", record.parameters as f64 / 1e6)),
        ("per image", format!("{flops} at {side}x{side} (a multiply-add is two)")),
        ("tokens", layout),
        ("speed", format!("{rate:.2} images/s on {device}, {} at a time", args.batch_size)),
    ];
    for found in &features {
        let sums: Vec<String> = found.sums.iter().map(|sum| format!("{sum:.4}")).collect();
        all.push((found.name, format!("{}  sums {}", found.hash, sums.join(" "))));
    }
    let note = "\nTokens are of the last block for one fixed image. The same hash means the same bits; \
                another device or type\nchanges the hash and leaves the sums alike to its precision.\n";
    print((lines(&record.name, &all) + note).as_bytes())
}

/// Some tokens of the fixed image.
struct Found {
    name: &'static str,
    shape: Vec<usize>,
    /// BLAKE3 of the values, shortened.
    hash: String,
    /// Means of the values under signs that differ from sum to sum.
    sums: [f64; SUMS],
}

/// The fixed image, prepared as the backbone's images are: smooth waves of whole numbers, the same on
/// every machine.
fn picture(preparation: &Preparation, device: &Device) -> Result<Tensor, CliError> {
    let Preparation { resolution: side, mean, std } = *preparation;
    let triangle = |at: usize, period: usize| {
        let at = at % period * 510 / period;
        if at > 255 { 510 - at } else { at }
    };
    let mut values = Vec::with_capacity(3 * side * side);
    for channel in 0..3 {
        for y in 0..side {
            for x in 0..side {
                let (slow, fast) = (61 + 30 * channel, 17 + 6 * channel);
                let level = (triangle(x + 2 * y, slow) + triangle(3 * x + y, fast)) / 2;
                values.push((level as f32 / 255.0 - mean[channel]) / std[channel]);
            }
        }
    }
    let image = Tensor::from_vec(values, (1, 3, side, side), device);
    Ok(image.map_err(BackboneError::Candle)?)
}

fn features(tap: Option<Tap>) -> Result<Vec<Found>, CliError> {
    let Some(tap) = tap else { return Ok(Vec::new()) };
    let parts = [
        ("class tokens", tap.summary),
        ("class, norm", tap.summary_norm),
        ("patch tokens", tap.patches),
        ("patch, norm", tap.patches_norm),
        ("pooled", tap.pooled),
    ];
    let mut all = Vec::new();
    for (name, tensor) in parts.into_iter().filter_map(|(name, t)| Some((name, t?))) {
        let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>());
        let values = values.map_err(BackboneError::Candle)?;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let hash = blake3::hash(&bytes).to_hex()[..12].to_owned();
        let mut sums = [0f64; SUMS];
        for (i, &value) in values.iter().enumerate() {
            // Signs of a Walsh pattern over bits that patches, channels and neighbours differ in.
            for (j, sum) in sums.iter_mut().enumerate() {
                let mask = [0x0, 0x5, 0x36, 0x2c9][j];
                let sign = if (i & mask).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                *sum += sign * f64::from(value) / values.len() as f64;
            }
        }
        all.push(Found { name, shape: tensor.dims().to_vec(), hash, sums });
    }
    Ok(all)
}

fn layout(features: &[Found], side: usize, patch: usize) -> String {
    let count = |name: &str| features.iter().find(|f| f.name == name).map(|f| f.shape.clone());
    let mut parts = Vec::new();
    if let Some(shape) = count("class tokens") {
        parts.push(format!("{} class", shape[1]));
    }
    if let Some(shape) = count("patch tokens") {
        let grid = side / patch.max(1);
        parts.push(format!("{} patches ({grid}x{grid})", shape[1]));
    }
    let width = |f: &Found| f.shape.last().copied().unwrap_or_default();
    let all = features.first().map(width).unwrap_or_default();
    let mut text = format!("{}, of width {all}", parts.join(", "));
    if let Some(shape) = count("pooled") {
        text.push_str(&format!("; {} pooled of width {}", shape[1], shape[2]));
    }
    text
}

/// Images a second: of the median pass.
fn rate(
    backbone: &dyn Backbone,
    image: &Tensor,
    last: usize,
    args: &CheckArgs,
) -> Result<f64, CliError> {
    let batch = args.batch_size;
    let images = Tensor::cat(&vec![image; batch], 0).map_err(BackboneError::Candle)?;
    let wanted = match backbone.dimensions().summary_tokens {
        0 => Wanted { patches: true, ..Wanted::default() },
        _ => Wanted::SUMMARY,
    };
    let pass = || -> Result<Duration, CliError> {
        let began = Instant::now();
        for tap in backbone.forward(&images, &[last], wanted)? {
            // Reading something back waits for the device.
            let some = tap.summary.or(tap.patches).map(|t| t.narrow(0, 0, 1)?.sum_all()?.to_vec0());
            let _: Option<f32> = some.transpose().map_err(BackboneError::Candle)?;
        }
        Ok(began.elapsed())
    };
    pass()?;
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || began.elapsed() < Duration::from_secs(args.seconds) {
        times.push(pass()?);
        if interrupt::requested() {
            return Err(CliError::Interrupted);
        }
    }
    times.sort_unstable();
    Ok(batch as f64 / times[times.len() / 2].as_secs_f64().max(1e-9))
}
