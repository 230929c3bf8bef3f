//! Pictures that runs left, small enough for a page.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;

use crate::headline::is_policy;
use crate::picture::animation::{animated, evenly};
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
/// Widest animation, pixels, and the most of its frames.
const MOVING: usize = 128;
const STEPS: usize = 24;
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
                Ok(picture) if spent + picture.data.len() > BUDGET => left_out += 1,
                Ok(picture) => {
                    spent += picture.data.len();
                    shown.push((run, path, picture));
                }
            }
        }
    }
    shown.sort_by_key(|(run, path, _)| (*run, *path));
    let policies = |place: usize| runs.get(place).is_some_and(|run| is_policy(&run.record.plan));
    let mut told = Vec::new();
    if shown.iter().any(|(run, ..)| !policies(*run)) {
        told.push("Input, truth, prediction and error.");
    }
    if shown.iter().any(|(run, ..)| policies(*run)) {
        told.push("Of policies: episodes of the last evaluation.");
    }
    told.push(match shown.iter().any(|(.., picture)| picture.moves()) {
        true => "A click opens a picture and plays an animation again.",
        false => "A click opens a picture.",
    });
    let mut out = format!("<p class=\"soft\">{}</p>\n<ul class=\"gallery\">\n", told.join(" "));
    for (place, path, picture) in shown {
        let Some(run) = runs.get(place) else { continue };
        let plan = &run.record.plan;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let sample = if plan.data.sample { ", sample data" } else { "" };
        let told = escape_html(&format!(
            "{}{sample}, {}: {name}",
            plan.task,
            shown_backbone(&plan.backbone)
        ));
        let (alt, class) = match (is_policy(plan), picture.moves()) {
            (_, true) => ("An episode, animated", " class=\"moving\""),
            (true, false) => ("Frames of episodes", ""),
            (false, false) => ("Input, truth, prediction and error", ""),
        };
        let Small { kind, data, width, height } = picture;
        out += &format!(
            "<li data-run=\"{place}\"><button type=\"button\"><img src=\"data:{kind};base64,{data}\"{class} \
             width=\"{width}\" height=\"{height}\" loading=\"lazy\" alt=\"{alt}\"> {told}</button></li>\n"
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

/// A picture that fits a page.
struct Small {
    /// `image/jpeg` or, of an animation, `image/png`.
    kind: &'static str,
    /// Base64.
    data: String,
    width: usize,
    height: usize,
}

impl Small {
    fn moves(&self) -> bool {
        self.kind == "image/png"
    }
}

/// A picture as JPEG at most [`WIDEST`] wide, or a small animation.
fn small(path: &Path) -> Result<Small, String> {
    let picture = read(path).map_err(|error| error.to_string())?;
    let (kind, bytes, width, height) = match picture {
        Read::Still(pixels, width, height) => {
            let (pixels, width, height) = reduced(&pixels, (height, width), WIDEST)?;
            let mut jpeg = Vec::new();
            jpeg_encoder::Encoder::new(&mut jpeg, QUALITY)
                .encode(&pixels, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
                .map_err(|error| error.to_string())?;
            ("image/jpeg", jpeg, width, height)
        }
        Read::Moving { frames, width, height, of } => {
            // As long as the whole, once: what moves for more than five seconds must have a stop.
            let delay = (1000 * of / 25 / frames.len().max(1)).clamp(20, 200) as u16;
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let png = animated((height, width), &frames, (delay, 1000), 1)
                .map_err(|error| error.to_string())?;
            ("image/png", png, width, height)
        }
    };
    Ok(Small { kind, data: STANDARD.encode(bytes), width, height })
}

/// RGB pixels averaged to at most `widest`, by a whole factor; their width and height.
fn reduced(
    pixels: &[u8],
    (height, width): (usize, usize),
    widest: usize,
) -> Result<(Vec<u8>, usize, usize), String> {
    let times = width.div_ceil(widest).max(1);
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
    Ok((reduced, wide, high))
}

/// A PNG as RGB.
enum Read {
    /// Pixels, width and height.
    Still(Vec<u8>, usize, usize),
    /// Some frames of `of`, reduced to [`MOVING`].
    Moving { frames: Vec<Vec<u8>>, width: usize, height: usize, of: usize },
}

fn read(path: &Path) -> Result<Read, png::DecodingError> {
    let mut decoder = png::Decoder::new(io::BufReader::new(fs::File::open(path)?));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width, reader.info().height);
    if width > LARGEST || height > LARGEST {
        return Err(io::Error::other(format!("{width}x{height} is too large for a page")).into());
    }
    let frames = reader.info().animation_control().map_or(0, |control| control.num_frames);
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut pixels)?;
    pixels.truncate(info.buffer_size());
    let channels = info.color_type.samples();
    let (wide, high) = (width as usize, height as usize);
    if channels == 3 && frames > 1 {
        return moving(&mut reader, pixels, (high, wide), frames as usize);
    }
    let rgb = match channels {
        3 => pixels,
        n => pixels
            .chunks_exact(n)
            .flat_map(|pixel| if n > 2 { [0, 1, 2] } else { [0, 0, 0] }.map(|c: usize| pixel[c]))
            .collect(),
    };
    Ok(Read::Still(rgb, wide, high))
}

/// The frames of an RGB animation whose frames stay where they are drawn, as those of runs do.
fn moving(
    reader: &mut png::Reader<io::BufReader<fs::File>>,
    mut canvas: Vec<u8>,
    (height, width): (usize, usize),
    of: usize,
) -> Result<Read, png::DecodingError> {
    let refused = |why: String| png::DecodingError::from(io::Error::other(why));
    let shown = evenly(of, STEPS);
    let (mut frames, mut size) = (Vec::new(), (0, 0));
    for at in 0..of {
        if at > 0 {
            let mut part = vec![0; reader.output_buffer_size().unwrap_or(0)];
            let info = reader.next_frame(&mut part)?;
            let Some(place) = reader.info().frame_control().copied() else { break };
            if place.dispose_op != png::DisposeOp::None {
                return Err(refused("its frames vanish, which a run's do not".to_owned()));
            }
            let row = info.width as usize * 3;
            for (y, part) in part[..info.buffer_size()].chunks_exact(row.max(1)).enumerate() {
                let from = ((place.y_offset as usize + y) * width + place.x_offset as usize) * 3;
                if let Some(to) = canvas.get_mut(from..from + row) {
                    to.copy_from_slice(part);
                }
            }
        }
        if shown.contains(&at) {
            let (frame, wide, high) = reduced(&canvas, (height, width), MOVING).map_err(refused)?;
            frames.push(frame);
            size = (wide, high);
        }
    }
    let (width, height) = size;
    Ok(Read::Moving { frames, width, height, of })
}
