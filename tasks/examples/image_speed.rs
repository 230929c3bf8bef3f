//! Times decoding, resizing and the whole preparation of one image, on one thread.
//!
//! ```text
//! cargo run --release -p pixio-eval-tasks --example image_speed -- IMAGE [REPEATS]
//! ```

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use pixio_eval_tasks::image;
use schema::{IMAGENET_MEAN, IMAGENET_STD, ImageStage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("usage: image_speed IMAGE [REPEATS]")?);
    let repeats = arguments.next().map_or(Ok(100), |n| n.parse::<usize>())?;
    let stage = ImageStage {
        revision: 1,
        resize: 256,
        crop: 256,
        filter: "pillow-bicubic".to_owned(),
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    };

    let bytes = std::fs::read(&path)?;
    let pixels = image::decode_bytes(&bytes)?;
    let (h, w, _) = pixels.dim();
    let (height, width) = image::shorter_side(h, w, stage.resize);
    let prepared = image::prepare(pixels.view(), &stage);
    let mut input = vec![0.0; prepared.len()];

    println!("{} ({w}x{h}), milliseconds, {repeats} repeats: least, median", path.display());
    time("decode", repeats, || black_box(image::decode_bytes(black_box(&bytes))).is_ok());
    time(&format!("resize to {width}x{height}"), repeats, || {
        black_box(image::resize(black_box(pixels.view()), height, width)).is_empty()
    });
    time("resize to 1000x750", repeats, || {
        black_box(image::resize(black_box(pixels.view()), 750, 1000)).is_empty()
    });
    time("resize and crop", repeats, || {
        black_box(image::prepare(black_box(pixels.view()), &stage)).is_empty()
    });
    time("normalise", repeats, || {
        image::normalise_into(black_box(prepared.view()), stage.mean, stage.std, &mut input);
        black_box(&input).is_empty()
    });
    Ok(())
}

fn time(what: &str, repeats: usize, mut work: impl FnMut() -> bool) {
    let mut times: Vec<f64> = (0..repeats.max(1))
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("  {what:<22} {:8.3} {:8.3}", times[0], times[times.len() / 2]);
}
