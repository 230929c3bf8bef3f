//! A stream on made-up data: encoder, heads and validation as runs have them, for `bench`.

use std::fs;
use std::path::Path;

use candle_core::{DType, Tensor};
use heads::dense::{Probe, Targets};
use ndarray::Array3;
use rayon::prelude::*;
use schema::{BackboneRecord, DataRecord, DenseProtocol};
use tasks::data::{Dataset, Registry};
use tasks::dense::{LabelForm, PairedSet, TargetForm, normalise_into};
use tasks::files::Files;
use tasks::sample::SampleError;

use super::Opened;
use super::evaluate::Validator;
use super::features::{Encoder, Taps, taps_of};
use super::kept::{Kept, KeptKey};
use super::protocol;
use super::windows::Windows;
use crate::backbone::{Backbone, BackboneError, Placement};
use crate::device;
use crate::progress::{Reporter, Verbosity};
use crate::resolve::Resolved;
use crate::run::memory::{BatchSize, EncoderSize, ProbeSize};
use crate::run::{RunError, Settings, calibrate};
use crate::upload::{Intake, Pixels, Uploader};

/// Bytes of kept tokens that a trial may write to its own folder.
const KEPT: u64 = 8_000_000_000;

/// An encoder where it computes.
pub(crate) struct Placed<'a> {
    pub(crate) resolved: &'a Resolved,
    pub(crate) record: &'a BackboneRecord,
    pub(crate) backbone: &'a dyn Backbone,
    pub(crate) uploader: &'a Uploader,
    pub(crate) dtype: DType,
}

/// Heads of one data set on one stream, with a batch that never changes.
pub(crate) struct Trial<'a> {
    encoder: Encoder<'a>,
    dataset: Dataset,
    identity: &'a schema::Fingerprint,
    dtype: DType,
    heads: Vec<(DenseProtocol, Probe)>,
    uploader: &'a Uploader,
    intake: Intake<'a>,
    /// Of each sample of the batch.
    pixels: Vec<Pixels>,
    targets: Targets,
    taps: Taps,
}

/// A generated validation split of a data set's real size of image, in a folder that goes with it.
pub(crate) struct Scenes {
    folder: tempfile::TempDir,
    data: Opened,
    windows: Windows,
}

impl<'a> Trial<'a> {
    /// The named heads of a data set under the protocol of that name.
    pub(crate) fn new(
        placed: &Placed<'a>,
        (dataset, heads): (&str, &[&str]),
        protocol: &str,
        batch_size: BatchSize,
    ) -> Result<Self, RunError> {
        let Placed { resolved, record, backbone, uploader, dtype } = *placed;
        let device = uploader.device();
        let dataset = named(dataset)?;
        let dimensions = resolved.dimensions();
        let changes = Settings { protocol: protocol.to_owned(), ..Settings::default() };
        let of = |head: &str| {
            let asked = protocol::Asked {
                dataset: &dataset,
                head,
                backbone: record,
                dimensions: &dimensions,
                preparation: &resolved.preparation,
                recipe: &resolved.recipe,
                dtype: dtype.as_str(),
                limit: None,
            };
            Ok::<_, RunError>(protocol::protocol(&asked, &changes)?.1)
        };
        let micro_batch = match batch_size {
            BatchSize::Images(images) => images,
            BatchSize::Auto => {
                // What is kept for allocations to come does not count as free.
                uploader.release().map_err(BackboneError::Candle)?;
                let side = resolved.preparation.resolution;
                let encoder = EncoderSize::of(record, &dimensions, side, dtype);
                ProbeSize::of(&of("dpt")?, record, &encoder, (dtype, device))
                    .images(&encoder, device::free_memory(device) / 10 * 9)
            }
        };
        let placement = Placement { device: device.clone(), dtype };
        let probe = |&head: &&str| {
            let protocol = of(head)?;
            let probe = calibrate::probe(&protocol, record.width, &placement, micro_batch)?;
            Ok((protocol, probe))
        };
        let heads = heads.iter().map(probe).collect::<Result<Vec<_>, RunError>>()?;
        let protocols = heads.iter().map(|(protocol, _)| protocol);
        let encoder = Encoder::of(backbone, dtype, micro_batch, protocols);
        let Some((protocol, _)) = heads.first() else {
            return Err(RunError::Stream("no head to try".to_owned()));
        };
        let batch = protocol.training.groups * protocol.training.group_size;
        let sample = protocol.sample.clone();
        let form = match dataset.depth {
            Some(depth) => TargetForm::Depth { steps_per_metre: depth.steps_per_metre },
            None => TargetForm::Labels {
                form: LabelForm::Shifted,
                classes: dataset.classes.unwrap_or(1),
            },
        };
        let intake = Intake::new(uploader, move |image, out: &mut [f32]| {
            normalise_into(image, form, &sample, out);
        });
        let intake = intake.map_err(BackboneError::Candle)?;
        let pixels: Vec<Pixels> =
            (0..batch).map(|at| intake.pixels(noise(at, encoder.side))).collect();
        let targets = calibrate::targets(protocol, device)?;
        let taps = encoder.encode(&pixels, &intake)?;
        let identity = &record.identity;
        Ok(Self {
            encoder,
            dataset,
            identity,
            dtype,
            heads,
            uploader,
            intake,
            pixels,
            targets,
            taps,
        })
    }

    /// Samples of a training batch.
    pub(crate) fn batch(&self) -> usize {
        self.pixels.len()
    }

    /// Images in one pass of the encoder, and samples that go through a head at a time.
    pub(crate) fn micro_batch(&self) -> usize {
        self.encoder.micro_batch
    }

    /// Encodes the batch for every head.
    pub(crate) fn encode(&self) -> Result<(), RunError> {
        self.encoder.encode(&self.pixels, &self.intake).map(drop)
    }

    /// One training step of the head at that place, on the batch as it was encoded before.
    pub(crate) fn step(&mut self, head: usize) -> Result<(), RunError> {
        let (protocol, probe) = &mut self.heads[head];
        take(probe, &taps_of(&self.taps, &protocol.feature), &self.targets, self.uploader)
    }

    /// What validation windows ask of the head at that place, for as many windows as the batch has
    /// samples.
    pub(crate) fn predict(&self, head: usize) -> Result<(), RunError> {
        let (protocol, probe) = &self.heads[head];
        let taps = taps_of(&self.taps, &protocol.feature);
        let side = protocol.evaluation.window;
        for start in (0..self.batch()).step_by(self.micro_batch()) {
            let images = self.micro_batch().min(self.batch() - start);
            let part = |tap: &Tensor| tap.narrow(0, start, images);
            let taps = taps.iter().map(part).collect::<candle_core::Result<Vec<_>>>();
            probe.predict(&taps.map_err(BackboneError::Candle)?, (side, side))?;
        }
        Ok(())
    }

    /// Encodes the batch and takes one step of every head on it, as a stream does.
    pub(crate) fn shared(&mut self) -> Result<(), RunError> {
        let taps = self.encoder.encode(&self.pixels, &self.intake)?;
        for (protocol, probe) in &mut self.heads {
            let taps = taps_of(&taps, &protocol.feature);
            take(probe, &taps, &self.targets, self.uploader)?;
        }
        Ok(())
    }

    /// Generates so many validation images.
    pub(crate) fn scenes(&self, images: usize) -> Result<Scenes, RunError> {
        let folder = tempfile::tempdir()
            .map_err(|source| failed("create folder", Path::new("."), source))?;
        let (protocol, _) = &self.heads[0];
        write(&self.dataset, folder.path(), images)?;
        let set = PairedSet::open(&self.dataset, Files::folder(folder.path()))?;
        let form = set.target_form(&self.dataset, Some(LabelForm::Shifted))?;
        let record = DataRecord {
            name: self.dataset.name.clone(),
            root: folder.path().display().to_string(),
            fingerprint: set.fingerprint(),
            splits: set.records(&self.dataset),
            classes: self.dataset.classes.unwrap_or(0),
            labels: None,
            sample: true,
            container: None,
            accepted: Vec::new(),
        };
        let (dataset, limit, notes) = (self.dataset.clone(), None, Vec::new());
        let data = Opened { dataset, set, limit, form, record, notes, stream_seed: 0 };
        let micro_batch = self.encoder.micro_batch;
        let windows = Windows::of(&data, &protocol.sample, &protocol.evaluation, micro_batch)?;
        Ok(Scenes { folder, data, windows })
    }

    /// Validates every head on the scenes. With `kept`, tokens are kept beside the scenes, and read from
    /// there where they are, as in every epoch but a run's first.
    pub(crate) fn validate(&self, scenes: &Scenes, kept: bool) -> Result<(), RunError> {
        let reporter = Reporter::new(Verbosity::Quiet);
        let (protocol, _) = &self.heads[0];
        let key = KeptKey {
            backbone: self.identity,
            dtype: self.dtype.as_str(),
            device: device::kind(self.uploader.device()),
            version: env!("CARGO_PKG_VERSION"),
            micro_batch: self.encoder.micro_batch,
            feature_revision: protocol.feature.revision,
            sample: &protocol.sample,
            windows: (protocol.evaluation.window, protocol.evaluation.stride),
            data: &scenes.data.record.fingerprint,
            part: None,
        };
        let kept = match kept {
            true => Some(Kept::open(
                &scenes.folder.path().join("kept"),
                (&key, "a trial"),
                (KEPT, true),
                &reporter,
            )?),
            false => None,
        };
        let validator = Validator {
            data: &scenes.data,
            windows: &scenes.windows,
            kept: kept.as_ref(),
            pictured: &[],
            workers: device::threads(),
            uploader: self.uploader,
            reporter: &reporter,
        };
        let heads: Vec<_> = self.heads.iter().map(|(protocol, probe)| (probe, protocol)).collect();
        for validation in validator.validate(&self.encoder, &heads)? {
            validation?;
        }
        Ok(())
    }
}

impl Scenes {
    /// Windows of one image.
    pub(crate) fn windows(&self) -> usize {
        self.windows.at(0).len()
    }

    /// Height and width of an image, as it is validated.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.windows.size(0)
    }
}

fn named(name: &str) -> Result<Dataset, RunError> {
    let registry = Registry::builtin()?;
    let dense = |set: &&Dataset| set.depth.is_some() || set.labels.is_some();
    let known = || registry.names().filter_map(|name| registry.get(name)).filter(dense);
    registry.get(name).filter(dense).cloned().ok_or_else(|| {
        let names: Vec<&str> = known().map(|set| set.name.as_str()).collect();
        let near = crate::registry::nearest(name, names.iter().copied());
        RunError::Unknown { what: "data set", name: name.to_owned(), near, known: names.join(", ") }
    })
}

/// A step as a run takes it: where the device computes beside the host, its loss is not waited for.
fn take(
    probe: &mut Probe,
    taps: &[Tensor],
    targets: &Targets,
    uploader: &Uploader,
) -> Result<(), RunError> {
    match uploader.read_every() {
        1 => probe.train_step(taps, targets).map(drop)?,
        _ => probe.train_step_deferred(taps, targets).map(drop)?,
    }
    Ok(())
}

/// A square image without a pattern that a cache or a product could profit from.
fn noise(seed: usize, side: usize) -> Array3<u8> {
    let stream = schema::random::Stream::tagged(seed as u64, "trial");
    let count = 3 * side * side;
    let words = (0..count.div_ceil(16) as u32).flat_map(|at| stream.at([at, 0, 0, 0]));
    let mut bytes = words.flat_map(u32::to_le_bytes);
    Array3::from_shape_fn((side, side, 3), |_| bytes.next().unwrap_or_default())
}

/// Height and width of a typical file of a data set.
fn typical(name: &str) -> (usize, usize) {
    match name {
        "nyuv2" => (480, 640),
        "kitti" => (375, 1242),
        "ade20k" => (512, 683),
        "loveda" => (1024, 1024),
        _ => (375, 500),
    }
}

/// Writes images with targets, and lists of them, which are both splits.
fn write(dataset: &Dataset, folder: &Path, images: usize) -> Result<(), RunError> {
    let (height, width) = typical(&dataset.name);
    let classes = dataset.classes.unwrap_or(1).max(1);
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|source| failed("write", &path, source))
    };
    let names: Vec<_> =
        (0..images.max(1)).map(|at| (format!("{at}.png"), format!("{at}-target.png"))).collect();
    names.par_iter().enumerate().try_for_each(|(at, (image, target))| {
        let places = || (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let ramp = |x: usize| (x % 510).abs_diff(255) as u8;
        let rgb = places().flat_map(|(y, x)| [x + y, 2 * x + 40 * at, 3 * y + x].map(ramp));
        put(image, &png(image, (height, width), png::ColorType::Rgb, &rgb.collect::<Vec<_>>())?)?;
        let bytes = match dataset.depth {
            Some(depth) => {
                let steps = f64::from(depth.steps_per_metre) * depth.max_metres;
                let value = |(y, x)| (steps * (1 + (x + y + at) % 60) as f64 / 62.0) as u16;
                let bytes: Vec<u8> =
                    places().flat_map(|place| value(place).to_be_bytes()).collect();
                png(target, (height, width), png::ColorType::Grayscale, &bytes)?
            }
            None => {
                let label = |(y, x)| ((y / 32 + 5 * (x / 32) + at) % classes) as u8;
                let bytes: Vec<u8> = places().map(label).collect();
                png(target, (height, width), png::ColorType::Grayscale, &bytes)?
            }
        };
        put(target, &bytes)
    })?;
    let list: String = names.iter().map(|(image, target)| format!("{image} {target}\n")).collect();
    put("train.txt", list.as_bytes())?;
    put("val.txt", list.as_bytes())
}

/// A PNG of bytes, or of 16-bit words where there are two bytes for each sample.
fn png(
    name: &str,
    (height, width): (usize, usize),
    colour: png::ColorType,
    bytes: &[u8],
) -> Result<Vec<u8>, RunError> {
    let samples = height * width * colour.samples();
    let mut encoded = Vec::new();
    let mut encode = || {
        let mut encoder = png::Encoder::new(&mut encoded, width as u32, height as u32);
        encoder.set_color(colour);
        encoder.set_depth(match bytes.len() > samples {
            true => png::BitDepth::Sixteen,
            false => png::BitDepth::Eight,
        });
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        writer.finish()
    };
    match encode() {
        Ok(()) => Ok(encoded),
        Err(error) => {
            let (path, reason) = (name.to_owned(), error.to_string());
            Err(SampleError::Encode { path, reason }.into())
        }
    }
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> RunError {
    SampleError::Io { action, path: path.to_owned(), source }.into()
}
