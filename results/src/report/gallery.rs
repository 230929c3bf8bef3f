//! Pictures that runs left, small enough for a page.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;

use crate::plot::Run;
use crate::table::escape_html;
use crate::text::shown_backbone;

/// Bytes of the page that pictures may take together.
const BUDGET: usize = 8 << 20;
/// Widest picture, pixels.
const WIDEST: usize = 1000;
/// JPEG quality.
const QUALITY: u8 = 82;
/// Pictures that are read together before the budget is looked at.
const TOGETHER: usize = 32;
/// Largest side of a picture that is read.
const LARGEST: u32 = 10_000;

/// The gallery: the first picture of every run, then the second, until the budget is spent.
pub(super) fn gallery(runs: &[Run<'_>]) -> String {
    let by_run: Vec<Vec<PathBuf>> = runs.par_iter().map(|run| pictures(run.folder)).collect();
    let most = by_run.iter().map(Vec::len).max().unwrap_or(0);
    let queue: Vec<(usize, &PathBuf)> = (0..most)
        .flat_map(|n| {
            by_run.iter().enumerate().filter_map(move |(run, all)| Some((run, all.get(n)?)))
        })
        .collect();
    if queue.is_empty() {
        return "<p>These runs left no pictures.</p>\n".to_owned();
    }
    let (mut shown, mut unreadable, mut spent, mut left_out) = (Vec::new(), Vec::new(), 0, 0);
    for part in queue.chunks(TOGETHER) {
        if spent >= BUDGET {
            left_out += part.len();
            continue;
        }
        let read: Vec<_> = part.par_iter().map(|(run, path)| (*run, *path, small(path))).collect();
        for (run, path, picture) in read {
            match picture {
                Err(error) => unreadable.push(format!("{}: {error}", path.display())),
                Ok(picture) if spent + picture.0.len() > BUDGET => left_out += 1,
                Ok(picture) => {
                    spent += picture.0.len();
                    shown.push((run, path, picture));
                }
            }
        }
    }
    shown.sort_by_key(|(run, path, _)| (*run, *path));
    let mut out = String::from(
        "<p class=\"soft\">Input, truth, prediction and error. A click opens a picture.</p>\n<ul class=\"gallery\">\n",
    );
    for (place, path, (picture, width, height)) in shown {
        let Some(run) = runs.get(place) else { continue };
        let plan = &run.record.plan;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let sample = if plan.data.sample { ", sample data" } else { "" };
        let told = escape_html(&format!(
            "{}{sample}, {}: {name}",
            plan.task,
            shown_backbone(&plan.backbone)
        ));
        out += &format!(
            "<li data-run=\"{place}\"><button type=\"button\"><img src=\"data:image/jpeg;base64,{picture}\" \
             width=\"{width}\" height=\"{height}\" loading=\"lazy\" alt=\"Input, truth, prediction and error\"> {told}</button></li>\n"
        );
    }
    out += "</ul>\n";
    if left_out > 0 {
        out += &format!(
            "<p class=\"soft\">{left_out} more pictures are in the run folders: the page would be too large.</p>\n"
        );
    }
    for why in unreadable {
        out += &format!("<p class=\"soft\">not shown: {}</p>\n", escape_html(&why));
    }
    out
}

/// The PNG files of a run's `pictures` folder, sorted.
fn pictures(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("pictures")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "png") && path.is_file())
        .collect();
    paths.sort();
    paths
}

/// A picture as base64 of a JPEG at most [`WIDEST`] wide, with its width and height.
fn small(path: &Path) -> Result<(String, usize, usize), String> {
    let (pixels, width, height) = read(path).map_err(|error| error.to_string())?;
    let times = width.div_ceil(WIDEST).max(1);
    let (wide, high) = (width / times, height / times);
    if wide == 0 || high == 0 {
        return Err("it has no pixels".to_owned());
    }
    let mut reduced = Vec::with_capacity(wide * high * 3);
    for y in 0..high {
        for x in 0..wide {
            for channel in 0..3 {
                let of = |dx: usize, dy: usize| {
                    let at = ((y * times + dy) * width + x * times + dx) * 3 + channel;
                    pixels.get(at).copied().map_or(0, usize::from)
                };
                let sum: usize =
                    (0..times).flat_map(|dy| (0..times).map(move |dx| of(dx, dy))).sum();
                reduced.push((sum / (times * times)) as u8);
            }
        }
    }
    let mut jpeg = Vec::new();
    jpeg_encoder::Encoder::new(&mut jpeg, QUALITY)
        .encode(&reduced, wide as u16, high as u16, jpeg_encoder::ColorType::Rgb)
        .map_err(|error| error.to_string())?;
    Ok((STANDARD.encode(jpeg), wide, high))
}

/// A PNG as RGB.
fn read(path: &Path) -> Result<(Vec<u8>, usize, usize), png::DecodingError> {
    let mut decoder = png::Decoder::new(io::BufReader::new(fs::File::open(path)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width, reader.info().height);
    if width > LARGEST || height > LARGEST {
        return Err(io::Error::other(format!("{width}x{height} is too large for a page")).into());
    }
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut pixels)?;
    pixels.truncate(info.buffer_size());
    let channels = info.color_type.samples();
    let rgb = match channels {
        3 => pixels,
        n => pixels
            .chunks_exact(n)
            .flat_map(|pixel| if n > 2 { [0, 1, 2] } else { [0, 0, 0] }.map(|c: usize| pixel[c]))
            .collect(),
    };
    Ok((rgb, width as usize, height as usize))
}
