//! Pictures of evaluation episodes: an animation of each, and a sheet of all of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ndarray::ArrayView3;
use schema::EpisodeRow;

use super::animation::{animated, evenly};
use super::canvas::{Align, Canvas, INK};
use super::layout::Rect;
use super::{PictureError, sample};
use crate::store::{folder_name, write_whole};

/// Frames of an animation, at most.
const FRAMES: usize = 100;
/// Frames of an animation in a second.
const A_SECOND: u16 = 25;
/// Frames of a row of the sheet, at most, and their longest side: eight fill a page's 1000 pixels.
const IN_A_ROW: usize = 8;
const SIDE: usize = 118;
/// Size of the sheet's text, its border, and the gap between frames, in pixels.
const EM: f32 = 14.0;
const MARGIN: usize = 14;
const GAP: usize = 4;
/// From the top of a row to its text's baseline and to its frames, and below these.
const BASELINE: usize = 14;
const ABOVE: usize = 20;
const BELOW: usize = 12;

/// One episode as it was seen.
#[derive(Clone, Copy, Debug)]
pub struct Episode<'a> {
    /// What became of it.
    pub row: &'a EpisodeRow,
    /// Height and width of the frames, in pixels.
    pub size: (usize, usize),
    /// Frames `[height, width, 3]`, sRGB, in order, evenly spread over the episode; at least one.
    pub frames: &'a [Vec<u8>],
}

/// Why episodes are not pictured.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The frames show nothing, or cannot be encoded.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The system refused to write.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Writes into `pictures/` of a run's folder the sheet `episodes.png` and, for every episode,
/// `rollout-TASK-sSEED-eEPOCH-EPISODE.png`; nothing without episodes. No file is ever there in part.
///
/// # Errors
/// [`RolloutError`]; what was written before stays.
pub fn write(folder: &Path, episodes: &[Episode<'_>]) -> Result<(), RolloutError> {
    if episodes.is_empty() {
        return Ok(());
    }
    let folder = folder.join("pictures");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RolloutError::Io { path, source }
    };
    fs::create_dir_all(&folder).map_err(io(&folder))?;
    let put = |name: &str, png: &[u8]| {
        let path = folder.join(name);
        write_whole(&path, png).map_err(io(&path))
    };
    put("episodes.png", &sheet(episodes)?)?;
    for episode in episodes {
        let EpisodeRow { task, seed, epoch, episode: number, .. } = episode.row;
        let name = format!("rollout-{}-s{seed}-e{epoch:04}-{number:03}.png", folder_name(task));
        put(&name, &animation(episode)?)?;
    }
    Ok(())
}

/// An episode as an animated PNG of its own size: at most 100 frames, evenly spread, 25 in a second, the
/// last for a second, played without end.
///
/// # Errors
/// No frames, an empty one, or one that is not RGB of the size given.
pub fn animation(episode: &Episode<'_>) -> Result<Vec<u8>, PictureError> {
    let frames = frames(episode, FRAMES)?;
    Ok(animated(episode.size, &frames, (1, A_SECOND), 0)?)
}

/// Episodes as a PNG, one a row: what it is and how it ended, over at most eight frames evenly spread,
/// the first and the last among them, at most 118 pixels a side.
///
/// # Errors
/// As [`animation`].
pub fn sheet(episodes: &[Episode<'_>]) -> Result<Vec<u8>, PictureError> {
    let places: Vec<(usize, usize)> =
        episodes.iter().map(|episode| shown_size(episode.size)).collect();
    let width = 2 * MARGIN + IN_A_ROW * SIDE + (IN_A_ROW - 1) * GAP;
    let rows = places.iter().map(|(high, _)| ABOVE + high + BELOW).sum::<usize>();
    let mut canvas = Canvas::blank((MARGIN + rows, width), EM)?;
    let mut top = MARGIN;
    for (episode, (high, wide)) in episodes.iter().zip(places) {
        let told = canvas.fit(&told(episode.row), width - 2 * MARGIN);
        canvas.text(&told, (MARGIN, top + BASELINE), Align::Left, INK);
        for (at, frame) in frames(episode, IN_A_ROW)?.into_iter().enumerate() {
            let (height, width) = episode.size;
            let Ok(image) = ArrayView3::from_shape((height, width, 3), frame) else { continue };
            let x = MARGIN + at * (SIDE + GAP);
            let place = Rect { x, y: top + ABOVE, width: wide, height: high };
            canvas.panel(place, sample::image(image, (high, wide)).view());
        }
        top += ABOVE + high + BELOW;
    }
    canvas.png()
}

/// Task, policy and outcome in a line.
fn told(row: &EpisodeRow) -> String {
    let solved = match row.success {
        Some(true) => ", solved",
        Some(false) => ", not solved",
        None => "",
    };
    format!(
        "{}, seed {}, epoch {}, episode {}: score {:.1}{solved}, {} steps",
        row.task, row.seed, row.epoch, row.episode, row.score, row.steps
    )
}

/// At most `most` frames of the size given.
fn frames<'a>(episode: &Episode<'a>, most: usize) -> Result<Vec<&'a [u8]>, PictureError> {
    let (height, width) = episode.size;
    if height == 0 || width == 0 {
        return Err(PictureError::Empty { height, width });
    }
    if episode.frames.is_empty() {
        return Err(PictureError::NoFrames);
    }
    let expected = height * width * 3;
    let frame = |at: usize| match episode.frames.get(at).map_or(&[][..], Vec::as_slice) {
        frame if frame.len() == expected => Ok(frame),
        frame => Err(PictureError::Frame { at, found: frame.len(), height, width }),
    };
    evenly(episode.frames.len(), most).into_iter().map(frame).collect()
}

/// Height and width of a frame in the sheet; a smaller one stays as it is.
fn shown_size((height, width): (usize, usize)) -> (usize, usize) {
    let longest = height.max(width).max(1);
    let shrunk = |side: usize| match longest > SIDE {
        true => ((side * SIDE + longest / 2) / longest).max(1),
        false => side.max(1),
    };
    (shrunk(height), shrunk(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::episode_rows;

    /// A square that moves right over a gradient, one frame a step.
    fn frames(count: usize, side: usize) -> Vec<Vec<u8>> {
        let frame = |at: usize| {
            let x0 = at * (side - 8) / count.max(1);
            let pixel = |i: usize| {
                let (y, x) = (i / side, i % side);
                let inside = (x0..x0 + 8).contains(&x) && (side / 2..side / 2 + 8).contains(&y);
                if inside { [220, 40, 40] } else { [(y % 256) as u8, 120, (x % 256) as u8] }
            };
            (0..side * side).flat_map(pixel).collect()
        };
        (0..count).map(frame).collect()
    }

    fn row(task: &str, episode: u32, success: Option<bool>) -> EpisodeRow {
        let score = if success == Some(true) { 100.0 } else { 12.5 };
        EpisodeRow { task: task.to_owned(), episode, success, score, ..episode_rows(1)[0].clone() }
    }

    /// Every frame of an animation, put together, with its delay.
    fn played(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<(u16, u16)>, u32) {
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap();
        let control = *reader.info().animation_control().unwrap();
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        let mut canvas = vec![0; width * height * 3];
        let (mut all, mut delays) = (Vec::new(), Vec::new());
        for _ in 0..control.num_frames {
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            let of = *reader.info().frame_control().unwrap();
            assert_eq!((of.width, of.height), (info.width, info.height));
            for (y, row) in pixels[..info.buffer_size()].chunks(of.width as usize * 3).enumerate() {
                let from = ((of.y_offset as usize + y) * width + of.x_offset as usize) * 3;
                canvas[from..from + row.len()].copy_from_slice(row);
            }
            all.push(canvas.clone());
            delays.push((of.delay_num, of.delay_den));
        }
        (all, delays, control.num_plays)
    }

    #[test]
    fn an_animation_shows_every_frame_as_it_was() {
        let (row, frames) = (row("drawer-open", 3, Some(true)), frames(40, 64));
        let episode = Episode { row: &row, size: (64, 64), frames: &frames };
        let bytes = animation(&episode).unwrap();
        assert_eq!(animation(&episode).unwrap(), bytes, "the same bytes again");
        let (shown, delays, plays) = played(&bytes);
        assert!(shown == frames);
        assert_eq!((delays[0], delays[39], plays), ((1, 25), (1, 1), 0));
        // A still has a frame too, and a pause in the middle is a pause.
        let still = vec![frames[0].clone(), frames[0].clone(), frames[9].clone()];
        let (shown, ..) = played(&animation(&Episode { frames: &still, ..episode }).unwrap());
        assert!(shown == still);
    }

    #[test]
    fn a_long_episode_is_sampled_evenly() {
        let (row, frames) = (row("drawer-open", 0, None), frames(251, 32));
        let bytes = animation(&Episode { row: &row, size: (32, 32), frames: &frames }).unwrap();
        let (shown, ..) = played(&bytes);
        assert_eq!(shown.len(), 100);
        assert!(shown[0] == frames[0] && shown[99] == frames[250]);
    }

    #[test]
    fn a_sheet_has_a_row_an_episode() {
        let rows = [
            row("drawer-open", 0, Some(true)),
            row(
                "a task whose name is longer than all that fits into a line of a sheet, by far, and then some more of it",
                1,
                Some(false),
            ),
            row("move_cube", 2, None),
        ];
        let (long, short) = (frames(100, 256), frames(3, 270));
        let wide = vec![vec![90; 40 * 80 * 3]];
        let episodes = [
            Episode { row: &rows[0], size: (256, 256), frames: &long },
            Episode { row: &rows[1], size: (270, 270), frames: &short },
            Episode { row: &rows[2], size: (40, 80), frames: &wide },
        ];
        let bytes = sheet(&episodes).unwrap();
        if let Some(folder) = std::env::var_os("PIXIO_EVAL_PLOTS") {
            let folder = PathBuf::from(folder);
            fs::write(folder.join("episodes.png"), &bytes).unwrap();
            fs::write(folder.join("rollout.png"), animation(&episodes[0]).unwrap()).unwrap();
        }
        let mut reader = png::Decoder::new(io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let height = MARGIN + 3 * (ABOVE + BELOW) + 2 * SIDE + 40;
        assert_eq!((info.width, info.height), (1000, height as u32));
        let at = |x: usize, y: usize| {
            let from = (y * 1000 + x) * 3;
            [pixels[from], pixels[from + 1], pixels[from + 2]]
        };
        let inked = |x: std::ops::Range<usize>, y: std::ops::Range<usize>| {
            y.clone().any(|y| x.clone().any(|x| at(x, y) != [255; 3]))
        };
        let first = MARGIN + ABOVE;
        let second = first + SIDE + BELOW + ABOVE;
        let column = |n: usize| MARGIN + n * (SIDE + GAP)..MARGIN + n * (SIDE + GAP) + SIDE;
        // The square has moved to the right end of the last frame of eight.
        let red = |n: usize, part: std::ops::Range<usize>| {
            let mut places = part.flat_map(|x| (first..first + SIDE).map(move |y| (x, y)));
            let from = column(n).start;
            places.any(|(x, y)| at(from + x, y)[0] > 200 && at(from + x, y)[1] < 60)
        };
        assert!(red(0, 0..30) && !red(0, 90..118) && red(7, 90..118) && !red(7, 0..30));
        // Three frames, then none.
        assert!(
            inked(column(2), second..second + SIDE) && !inked(column(3), second..second + SIDE)
        );
        // Labels, inside the border.
        assert!(inked(0..1000, MARGIN..MARGIN + BASELINE));
        assert!(!inked(1000 - MARGIN + 2..1000, 0..height) && !inked(0..1000, 0..3));
        assert_eq!(
            told(&rows[0]),
            "drawer-open, seed 100, epoch 6, episode 0: score 100.0, solved, 500 steps"
        );
        assert!(told(&rows[1]).contains("score 12.5, not solved"));
        assert!(told(&rows[2]).ends_with("score 12.5, 500 steps"));
    }

    #[test]
    fn files_are_whole_and_named_by_policy() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [row("drawer-open", 0, Some(true)), row("../x", 12, Some(false))];
        let frames = frames(5, 32);
        let episodes = [0, 1].map(|at| Episode { row: &rows[at], size: (32, 32), frames: &frames });
        write(folder.path(), &[]).unwrap();
        assert!(!folder.path().join("pictures").exists());
        write(folder.path(), &episodes).unwrap();
        let names = || {
            let files = fs::read_dir(folder.path().join("pictures")).unwrap();
            let mut names: Vec<String> =
                files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        insta::assert_snapshot!(names().join(" "), @"episodes.png rollout-_._x-s100-e0006-012.png rollout-drawer-open-s100-e0006-000.png");
        write(folder.path(), &episodes).unwrap();
        assert_eq!(names().len(), 3);
        let blocked = folder.path().join("pictures/episodes.png");
        let error = write(&blocked, &episodes).unwrap_err();
        assert!(matches!(error, RolloutError::Io { .. }), "{error}");
    }

    #[test]
    fn frames_that_are_none_are_named() {
        let (row, mut frames) = (row("pen", 0, None), frames(3, 32));
        let message = |size, frames: &[Vec<u8>]| {
            animation(&Episode { row: &row, size, frames }).unwrap_err().to_string()
        };
        insta::assert_snapshot!(message((32, 32), &[]), @"an episode without frames has no picture");
        insta::assert_snapshot!(message((0, 32), &frames), @"a picture needs an image of at least one pixel, this one is 32x0");
        frames[2].pop();
        insta::assert_snapshot!(message((32, 32), &frames), @"frame 2 has 3071 bytes, expected 3072 of 32x32 RGB");
    }
}
