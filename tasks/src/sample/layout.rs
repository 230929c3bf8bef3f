//! The files of each data set, in the layout of the real one.

use rayon::prelude::*;

use super::draw::Draw;
use super::png::{Pixels, encode as png};
use super::render::{Camera, Picture, Scene};
use super::scenes;
use super::{SEED, SampleError, jpeg};

/// One rendered sample and where it goes.
pub(super) struct Item {
    /// `train` or `val`.
    pub split: &'static str,
    /// Path of the image relative to the data folder.
    pub image: String,
    /// Path of depth map or mask; none for classification.
    pub target: Option<String>,
    kind: Kind,
    /// Tag of the draws, so that a sample does not depend on the others.
    tag: String,
    /// Width and height.
    pub size: (usize, usize),
}

enum Kind {
    Class(usize),
    /// 16-bit millimetres.
    RoomDepth,
    /// 16-bit depth x 256 where a scanning laser would have measured.
    RoadDepth,
    Ade20k {
        outdoors: bool,
    },
    Voc2012 {
        outdoors: bool,
    },
    LoveDa {
        urban: bool,
        no_data: bool,
    },
}

/// A file's path relative to the data folder, and its bytes.
pub(super) type Files = Vec<(String, Vec<u8>)>;

const TRAIN: &str = "train";
const VAL: &str = "val";
/// Images a split of the paired data sets.
const PAIRS: [(&str, usize); 2] = [(TRAIN, 8), (VAL, 4)];
const CLASS_IMAGES: [(&str, usize); 2] = [(TRAIN, 24), (VAL, 12)];

/// The samples of a data set by its name in `datasets.toml`; `None` for a name without a sample.
pub(super) fn items(dataset: &str) -> Option<Vec<Item>> {
    let item = |split: &'static str, image: String, target: String, kind: Kind, size| Item {
        split,
        tag: format!("{dataset}/{image}"),
        image,
        target: Some(target),
        kind,
        size,
    };
    let mut items = Vec::new();
    match dataset {
        "imagenet1k" => return Some(imagenet()),
        "nyuv2" => {
            for (split, count) in PAIRS {
                for i in 0..count {
                    let folder = match split {
                        TRAIN => format!("sync/room_{i:04}"),
                        _ => "official_splits/test/living_room".to_owned(),
                    };
                    items.push(item(
                        split,
                        format!("{folder}/rgb_{i:05}.jpg"),
                        format!("{folder}/sync_depth_{i:05}.png"),
                        Kind::RoomDepth,
                        (640, 480),
                    ));
                }
            }
        }
        "kitti" => {
            for (split, count) in PAIRS {
                for i in 0..count {
                    let number = if split == TRAIN { i } else { 50 + i };
                    let day = "2011_09_26";
                    let drive = format!("{day}_drive_{number:04}_sync");
                    items.push(item(
                        split,
                        format!("images/{day}/{drive}/image_02/data/{i:010}.png"),
                        format!("annotations/{drive}/proj_depth/groundtruth/image_02/{i:010}.png"),
                        Kind::RoadDepth,
                        (1242, 375),
                    ));
                }
            }
        }
        "ade20k" => {
            for (split, count) in PAIRS {
                let (folder, stem) = match split {
                    TRAIN => ("training", "ADE_train"),
                    _ => ("validation", "ADE_val"),
                };
                for i in 0..count {
                    let size = [(512, 384), (384, 512), (576, 384), (448, 448)][i % 4];
                    items.push(item(
                        split,
                        format!("images/{folder}/{stem}_{:08}.jpg", i + 1),
                        format!("annotations/{folder}/{stem}_{:08}.png", i + 1),
                        Kind::Ade20k { outdoors: i % 2 == 1 },
                        size,
                    ));
                }
            }
        }
        "voc2012" => {
            for (split, count) in PAIRS {
                for i in 0..count {
                    let name = match split {
                        TRAIN => format!("2012_{:06}", i + 1),
                        _ => format!("2012_{:06}", i + 101),
                    };
                    let size = [(500, 375), (375, 500), (500, 333), (500, 375)][i % 4];
                    items.push(item(
                        split,
                        format!("JPEGImages/{name}.jpg"),
                        format!("SegmentationClassAug/{name}.png"),
                        Kind::Voc2012 { outdoors: i % 2 == 1 },
                        size,
                    ));
                }
            }
        }
        "loveda" => {
            for (split, count) in PAIRS {
                let folder = if split == TRAIN { "Train" } else { "Val" };
                for i in 0..count {
                    let urban = 2 * i < count;
                    let scene = if urban { "Urban" } else { "Rural" };
                    let number = if split == TRAIN { i } else { 100 + i };
                    items.push(item(
                        split,
                        format!("{folder}/{scene}/images_png/{number}.png"),
                        format!("{folder}/{scene}/masks_png/{number}.png"),
                        Kind::LoveDa { urban, no_data: i == 0 },
                        (512, 512),
                    ));
                }
            }
        }
        _ => return None,
    }
    Some(items)
}

fn imagenet() -> Vec<Item> {
    let mut items = Vec::new();
    for (split, count) in CLASS_IMAGES {
        for class in 0..scenes::CLASSES {
            for i in 0..count {
                let image = match split {
                    TRAIN => format!("train/n{class:08}/n{class:08}_{i}.JPEG"),
                    _ => {
                        let number = class * count + i + 1;
                        format!("val/n{class:08}/ILSVRC2012_val_{number:08}.JPEG")
                    }
                };
                let tag = format!("imagenet1k/{image}");
                let mut draw = Draw::new(SEED, &format!("{tag}/size"));
                let long = 224 + 8 * draw.pick(15);
                let short = long - 8 * draw.pick(1 + (long - 200) / 8);
                let size = if draw.chance(0.6) { (long, short) } else { (short, long) };
                items.push(Item {
                    split,
                    image,
                    target: None,
                    kind: Kind::Class(class),
                    tag,
                    size,
                });
            }
        }
    }
    items
}

/// Split lists, one `image target` a line, for every data set that has targets; and Pascal VOC's
/// own lists of names.
pub(super) fn lists(dataset: &str, items: &[Item]) -> Files {
    let mut files = Vec::new();
    for split in [TRAIN, VAL] {
        let of_split = || items.iter().filter(|item| item.split == split);
        let pairs: String = of_split()
            .filter_map(|item| Some(format!("{} {}\n", item.image, item.target.as_ref()?)))
            .collect();
        if !pairs.is_empty() {
            files.push((format!("{split}.txt"), pairs.into_bytes()));
        }
        if dataset == "voc2012" {
            let name = |item: &Item| {
                let file = item.image.trim_start_matches("JPEGImages/");
                format!("{}\n", file.trim_end_matches(".jpg"))
            };
            let names: String = of_split().map(name).collect();
            let list = if split == TRAIN { "trainaug" } else { VAL };
            let path = format!("ImageSets/Segmentation/{list}.txt");
            files.push((path, names.into_bytes()));
        }
    }
    files
}

impl Item {
    /// The scene as it is before any file format.
    pub fn render(&self) -> Picture {
        let (scene, camera) = self.scene();
        scene.render(&camera)
    }

    pub(super) fn scene(&self) -> (Scene, Camera) {
        let mut draw = Draw::new(SEED, &self.tag);
        let (width, height) = self.size;
        let (mut scene, camera) = match self.kind {
            Kind::Class(class) => scenes::object(&mut draw, class, self.size),
            // Focal lengths of the Kinect and of KITTI's left colour camera, in pixels.
            Kind::RoomDepth => scenes::room(&mut draw, 519.0, self.size),
            Kind::RoadDepth => scenes::road(&mut draw, 721.0, self.size),
            Kind::Ade20k { outdoors } | Kind::Voc2012 { outdoors } => {
                let focal = 0.8 * width.max(height) as f64;
                let scene = if outdoors { scenes::road } else { scenes::room };
                scene(&mut draw, focal, self.size)
            }
            Kind::LoveDa { urban, .. } => scenes::aerial(&mut draw, urban, width),
        };
        if self.image.ends_with(".png") {
            // Noise would be most of a PNG.
            scene.grain = 0.0;
        }
        (scene, camera)
    }

    /// Encodes a rendered scene as this sample's files.
    pub fn files(&self, mut picture: Picture) -> Result<Files, SampleError> {
        let (width, height) = self.size;
        if let Kind::LoveDa { no_data: true, .. } = self.kind {
            picture.rgb.par_chunks_mut(3).enumerate().for_each(|(index, pixel)| {
                if is_outside(index, self.size) {
                    pixel.fill(0);
                }
            });
        }
        let fail =
            |path: &str, reason: String| SampleError::Encode { path: path.to_owned(), reason };
        let image = if self.image.ends_with(".png") {
            png(width, height, &Pixels::Rgb(&picture.rgb))
                .map_err(|error| fail(&self.image, error.to_string()))?
        } else {
            jpeg::encode(width, height, &picture.rgb)
                .map_err(|error| fail(&self.image, error.to_string()))?
        };
        let mut files = vec![(self.image.clone(), image)];
        if let Some(path) = &self.target {
            let target = match self.kind {
                Kind::RoomDepth | Kind::RoadDepth => {
                    png(width, height, &Pixels::Grey16(&self.depth(&picture)))
                }
                Kind::Voc2012 { .. } => {
                    png(width, height, &Pixels::VocPalette(&self.mask(&picture)))
                }
                _ => png(width, height, &Pixels::Grey(&self.mask(&picture))),
            };
            files.push((path.clone(), target.map_err(|error| fail(path, error.to_string()))?));
        }
        Ok(files)
    }

    /// Depth as stored: 0 is no measurement.
    fn depth(&self, picture: &Picture) -> Vec<u16> {
        let stored = |metres: f64, steps: f64| (metres * steps + 0.5).min(65535.0) as u16;
        match self.kind {
            Kind::RoomDepth => picture.depth.iter().map(|&metres| stored(metres, 1000.0)).collect(),
            _ => {
                let measured = |(index, &metres): (usize, &f64)| {
                    let (row, column) = (index / picture.width, index % picture.width);
                    let scanned = row >= 120 && row % 3 == 0 && (column + row / 3) % 2 == 0;
                    if scanned && metres <= 80.0 { stored(metres, 256.0) } else { 0 }
                };
                picture.depth.iter().enumerate().map(measured).collect()
            }
        }
    }

    fn mask(&self, picture: &Picture) -> Vec<u8> {
        let things = picture.things.iter();
        match self.kind {
            Kind::Voc2012 { .. } => {
                let labels: Vec<u8> = things.map(|thing| thing.voc2012()).collect();
                with_borders(&labels, self.size)
            }
            Kind::LoveDa { no_data, .. } => things
                .enumerate()
                .map(
                    |(index, thing)| {
                        if no_data && is_outside(index, self.size) { 0 } else { thing.loveda() }
                    },
                )
                .collect(),
            _ => things.map(|thing| thing.ade20k()).collect(),
        }
    }
}

/// A corner outside the mapped area.
fn is_outside(index: usize, (width, height): (usize, usize)) -> bool {
    let (row, column) = (index / width, index % width);
    row + column < (width + height) / 10
}

/// Pixels within two of another label become 255, as objects are outlined in Pascal VOC.
fn with_borders(labels: &[u8], (width, height): (usize, usize)) -> Vec<u8> {
    let mut bordered = labels.to_vec();
    for row in 0..height {
        for column in 0..width {
            let here = labels[row * width + column];
            let rows = row.saturating_sub(2)..(row + 3).min(height);
            let differs = rows.into_iter().any(|r| {
                let columns = column.saturating_sub(2)..(column + 3).min(width);
                columns.into_iter().any(|c| labels[r * width + c] != here)
            });
            if differs {
                bordered[row * width + column] = 255;
            }
        }
    }
    bordered
}
