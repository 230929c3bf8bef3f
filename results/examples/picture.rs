//! Writes pictures of made-up scenes to a folder: `cargo run --release -p pixio-eval-results
//! --example picture -- FOLDER`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use ndarray::{Array2, Array3};
use pixio_eval_results::picture::{self, DepthPicture, SegmentationPicture};

/// What is at a point of a scene: class, depth in metres, colour.
type Point = (u8, f32, [f32; 3]);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("which folder?")?);
    fs::create_dir_all(&folder)?;
    let room = Scene::of(426, 560, room_at);
    let road = Scene::of(375, 1242, road_at);
    let small = Scene::of(72, 96, room_at);
    fs::write(folder.join("room-depth.png"), room.depth("nyuv2/dpt · pixio-l", (0.001, 10.0), 1)?)?;
    fs::write(
        folder.join("road-depth.png"),
        road.depth("kitti/linear · pixio-b", (0.001, 80.0), 3)?,
    )?;
    fs::write(
        folder.join("small-depth.png"),
        small.depth("nyuv2/dpt · pixels", (0.001, 10.0), 1)?,
    )?;
    fs::write(folder.join("room-labels.png"), room.labels("ade20k/dpt · pixio-l")?)?;
    fs::write(folder.join("road-labels.png"), road.labels("voc2012/linear · pixio-b")?)?;
    Ok(())
}

struct Scene {
    height: usize,
    width: usize,
    point: fn(f32, f32) -> Point,
}

impl Scene {
    fn of(height: usize, width: usize, point: fn(f32, f32) -> Point) -> Self {
        Self { height, width, point }
    }

    fn map<T>(&self, value: impl Fn(Point, usize, usize) -> T) -> Array2<T> {
        Array2::from_shape_fn((self.height, self.width), |(y, x)| {
            value((self.point)(y as f32 / self.height as f32, x as f32 / self.width as f32), y, x)
        })
    }

    fn image(&self) -> Array3<u8> {
        let colours = self.map(|(_, depth, colour), y, x| {
            let light = 1.1 - depth.min(30.0).sqrt() / 12.0 + 0.04 * noise(y / 2, x / 2);
            colour.map(|channel| (channel * light).clamp(0.0, 255.0) as u8)
        });
        Array3::from_shape_fn((self.height, self.width, 3), |(y, x, c)| colours[[y, x]][c])
    }

    /// Every `sparse`-th row and column is measured.
    fn depth(
        &self,
        run: &str,
        range: (f64, f64),
        sparse: usize,
    ) -> Result<Vec<u8>, Box<dyn Error>> {
        let truth = self.map(|(_, depth, _), y, x| {
            let far = f64::from(depth) > range.1;
            if far || y % sparse != 0 || x % sparse != 0 || (y / 9 + x / 7) % 23 == 0 {
                0.0
            } else {
                depth
            }
        });
        let prediction = self.map(|(_, depth, _), y, x| {
            let smooth = 1.0 + 0.08 * (y as f32 / 31.0).sin() * (x as f32 / 43.0).cos();
            (depth * smooth).min(range.1 as f32) + 0.02 * noise(y / 4, x / 4)
        });
        Ok(picture::depth(&DepthPicture {
            title: &format!("{run} · scene_0001/00042.png"),
            caption: "made-up scene; rmse 0.187 m, abs_rel 0.048",
            image: self.image().view(),
            truth: truth.view(),
            prediction: prediction.view(),
            range,
        })?)
    }

    fn labels(&self, run: &str) -> Result<Vec<u8>, Box<dyn Error>> {
        let edge = self.height / 40;
        let truth = self.map(|(class, ..), y, x| if y < edge || x < edge { 255 } else { class });
        let prediction = self.map(|_, y, x| {
            let moved =
                |at: usize, size: usize, by: f32| ((at as f32 + by) / size as f32).clamp(0.0, 1.0);
            let wave = 9.0 * (x as f32 / 60.0).sin();
            (self.point)(moved(y, self.height, wave), moved(x, self.width, -wave)).0
        });
        let classes = NAMES.map(str::to_owned);
        Ok(picture::segmentation(&SegmentationPicture {
            title: &format!("{run} · scene_0001/00042.jpg"),
            caption: "made-up scene; pixel accuracy 93.1%",
            image: self.image().view(),
            truth: truth.view(),
            prediction: prediction.view(),
            ignore: 255,
            classes: &classes,
        })?)
    }
}

const NAMES: [&str; 18] = [
    "wall",
    "floor",
    "ceiling",
    "window",
    "bed",
    "cabinet",
    "picture frame",
    "lamp",
    "road",
    "sky",
    "pavement",
    "tree",
    "car",
    "traffic sign",
    "building",
    "grass",
    "person",
    "chest of drawers",
];

fn room_at(y: f32, x: f32) -> Point {
    let inside = |top: f32, left: f32, bottom: f32, right: f32| {
        (top..bottom).contains(&y) && (left..right).contains(&x)
    };
    if inside(0.55, 0.3, 0.9, 0.7) {
        (4, 2.6 - 1.2 * (y - 0.55), [178.0, 82.0, 96.0])
    } else if inside(0.35, 0.75, 0.8, 0.93) {
        let drawer = ((y - 0.35) / 0.15) as u8;
        (if drawer == 1 { 17 } else { 5 }, 2.9, [140.0, 102.0, 66.0])
    } else if inside(0.2, 0.12, 0.45, 0.3) {
        (3, 4.1, [190.0, 214.0, 240.0])
    } else if inside(0.22, 0.45, 0.4, 0.6) {
        (6, 3.9, [90.0, 120.0, 90.0])
    } else if inside(0.42, 0.62, 0.55, 0.66) || (y - 0.4).hypot(x - 0.64) < 0.06 {
        (7, 3.2, [250.0, 224.0, 130.0])
    } else if y > 0.68 {
        (1, 1.3 / (y - 0.36), [150.0, 120.0, 90.0])
    } else if y < 0.1 {
        (2, 1.3 / (0.42 - y), [235.0, 235.0, 228.0])
    } else {
        (0, 4.05 + 0.3 * x, [206.0, 200.0, 186.0])
    }
}

fn road_at(y: f32, x: f32) -> Point {
    let far = (x - 0.5).abs();
    let ground = 1.6 / (y - 0.45).max(0.001);
    let car = |left: f32, bottom: f32, size: f32| {
        (left..left + size).contains(&x) && (bottom - size..bottom).contains(&y)
    };
    if car(0.28, 0.75, 0.12) {
        (12, 5.3, [170.0, 30.0, 36.0])
    } else if car(0.58, 0.6, 0.05) {
        (12, 10.7, [40.0, 60.0, 140.0])
    } else if (0.74..0.75).contains(&x) && (0.25..0.65).contains(&y) {
        (13, 8.0, [120.0, 120.0, 124.0])
    } else if (0.805..0.82).contains(&x) && (0.5..0.68).contains(&y) {
        (16, 7.0, [220.0, 180.0, 150.0])
    } else if y > 0.52 && far < (y - 0.42) * 0.8 {
        (8, ground, [98.0, 98.0, 104.0])
    } else if y > 0.52 && far < (y - 0.40) * 0.95 {
        (10, ground, [150.0, 146.0, 140.0])
    } else if y > 0.55 {
        (15, ground, [92.0, 140.0, 62.0])
    } else if far > 0.28 && y > 0.6 - far * 1.1 {
        (if x < 0.5 { 14 } else { 11 }, 26.0 - 30.0 * (far - 0.28), [110.0, 96.0, 80.0])
    } else {
        (9, 200.0, [170.0, 200.0, 235.0])
    }
}

/// In -1..=1, the same for the same place.
fn noise(y: usize, x: usize) -> f32 {
    let mixed = (y as u32).wrapping_mul(0x9E37_79B1) ^ (x as u32).wrapping_mul(0x85EB_CA77);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2C1B_3C6D);
    (mixed >> 16) as f32 / 32_767.5 - 1.0
}
