//! Pictures of a few validation images in a run's folder.

use std::fs;
use std::path::Path;

use ndarray::ArrayView3;
use results::picture::{DepthPicture, PictureError, SegmentationPicture, depth, segmentation};
use results::write_whole;
use schema::{DenseProtocol, DepthMetrics, Objective, SampleRows};
use tasks::dense::{DenseError, Target, load};

use super::Opened;

/// Why an image is not pictured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Data(#[from] DenseError),
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Places in a split of `images` of the `count` that are pictured, evenly spread.
pub(super) fn places(count: usize, images: usize) -> Vec<usize> {
    let count = count.min(images);
    (0..count).map(|i| (2 * i + 1) * images / (2 * count)).collect()
}

/// Writes `pictures/PLACE-NAME.png` in a run's folder: input, truth, what was predicted, error.
pub(super) fn write(
    folder: &Path,
    run: &str,
    data: &Opened,
    protocol: &DenseProtocol,
    (place, predicted): (usize, &Target),
    rows: &SampleRows,
) -> Result<(), Problem> {
    let val = &data.set.val;
    let Some(pair) = val.pairs().get(place) else { return Ok(()) };
    let (image, truth) = load(val.files(), pair, protocol.sample.border, data.form)?;
    let title = format!("{run}: {}", pair.image);
    let caption = caption(rows, place);
    let png = draw(&title, &caption, image.view(), data, protocol, (&truth, predicted))?;
    let Some(png) = png else { return Ok(()) };
    let folder = folder.join("pictures");
    fs::create_dir_all(&folder)?;
    let stem = Path::new(&*pair.image).file_stem().unwrap_or_default().to_string_lossy();
    Ok(write_whole(&folder.join(format!("{place:05}-{stem}.png")), &png)?)
}

fn draw(
    title: &str,
    caption: &str,
    image: ArrayView3<'_, u8>,
    data: &Opened,
    protocol: &DenseProtocol,
    maps: (&Target, &Target),
) -> Result<Option<Vec<u8>>, PictureError> {
    Ok(match (maps, &protocol.objective) {
        ((Target::Depth(truth), Target::Depth(prediction)), &Objective::Depth { min, max }) => {
            let (truth, prediction) = (truth.view(), prediction.view());
            let range = (min, max);
            Some(depth(&DepthPicture { title, caption, image, truth, prediction, range })?)
        }
        (
            (Target::Labels(truth), Target::Labels(prediction)),
            &Objective::Segmentation { ignore, .. },
        ) => {
            let classes = data.dataset.labels.as_ref().map_or(&[][..], |labels| &labels.names);
            let (truth, prediction) = (truth.view(), prediction.view());
            Some(segmentation(&SegmentationPicture {
                title,
                caption,
                image,
                truth,
                prediction,
                ignore,
                classes,
            })?)
        }
        _ => None,
    })
}

/// This image's metrics in a line.
fn caption(rows: &SampleRows, place: usize) -> String {
    match rows {
        SampleRows::Depth(rows) => match rows.get(place).and_then(|row| row.metrics) {
            Some(DepthMetrics { rmse, abs_rel, delta1, .. }) => {
                format!("rmse {rmse:.3} m, abs_rel {abs_rel:.3}, delta1 {:.1}%", 100.0 * delta1)
            }
            None => "too few valid pixels to count".to_owned(),
        },
        SampleRows::Segmentation(rows) => rows.get(place).map_or_else(String::new, |row| {
            let (right, all) =
                (row.intersection.iter().sum::<u64>(), row.target.iter().sum::<u64>());
            match all {
                0 => "no labelled pixel".to_owned(),
                _ => format!("pixel accuracy {:.1}%", 100.0 * right as f64 / all as f64),
            }
        }),
        SampleRows::Knn(_) | SampleRows::Policy(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictured_images_are_spread_over_the_split() {
        assert_eq!(places(4, 654), [81, 245, 408, 572]);
        assert_eq!((places(4, 2), places(0, 9), places(3, 0)), (vec![0, 1], vec![], vec![]));
    }
}
