//! Pictures of one validation image: input, truth, prediction and error side by side, as PNG; of policies'
//! episodes, animations and a sheet ([`rollout`]).
//!
//! Images up to twice as wide as high stand in one row, wider ones in two rows of two. A panel is
//! at most 480 pixels a side in a row and 640 in two rows: larger images are averaged over the area
//! of each shown pixel (of depth, over its pixels that have a value; labels take the nearest pixel),
//! images of less than 160 pixels a side are enlarged by a whole factor. The same input gives the
//! same bytes.

pub(crate) mod animation;
mod canvas;
mod depth;
mod layout;
mod legend;
mod palette;
pub mod rollout;
mod sample;
mod scale;
mod segmentation;

#[cfg(test)]
mod tests;

use ndarray::ArrayView3;

pub use depth::{DepthPicture, depth};
pub use palette::class_colour;
pub use segmentation::{SegmentationPicture, segmentation};

/// Red, green and blue, sRGB.
pub type Rgb = [u8; 3];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// Nothing to show.
    #[error("a picture needs an image of at least one pixel, this one is {width}x{height}")]
    Empty {
        /// Height of the image.
        height: usize,
        /// Width of the image.
        width: usize,
    },
    /// An image that is not RGB.
    #[error("a picture needs an RGB image [H, W, 3], this one has {0} channels")]
    Channels(usize),
    /// A map of another size than the image.
    #[error("the {what} is {}x{}, its image {}x{}", found.1, found.0, expected.1, expected.0)]
    Shape {
        /// Truth or prediction.
        what: &'static str,
        /// Its height and width.
        found: (usize, usize),
        /// The image's.
        expected: (usize, usize),
    },
    /// An episode of which nothing was seen.
    #[error("an episode without frames has no picture")]
    NoFrames,
    /// A frame of another size than it should have.
    #[error("frame {at} has {found} bytes, expected {} of {width}x{height} RGB", height * width * 3)]
    Frame {
        /// Its index.
        at: usize,
        /// Its bytes.
        found: usize,
        /// Height of the frames.
        height: usize,
        /// Width of the frames.
        width: usize,
    },
    /// Depths that count, from a larger to a smaller one.
    #[error("the range of depths {low}..={high} m is empty")]
    Range {
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
    },
    /// A label that is neither a class nor ignored.
    #[error("the {what} has label {label} at row {row}, column {column}, of {classes} classes")]
    Label {
        /// Truth or prediction.
        what: &'static str,
        /// The label.
        label: u8,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// How many classes have a name.
        classes: usize,
    },
    /// The font that is part of the program cannot be read.
    #[error("the built-in font cannot be read")]
    Font(#[from] ab_glyph::InvalidFont),
    /// The PNG cannot be written.
    #[error("writing the PNG")]
    Encode(#[from] png::EncodingError),
}

/// Height and width of an RGB image and of the maps that go with it.
fn common_size(
    image: &ArrayView3<'_, u8>,
    maps: [(&'static str, (usize, usize)); 2],
) -> Result<(usize, usize), PictureError> {
    let (height, width, channels) = image.dim();
    if channels != 3 {
        return Err(PictureError::Channels(channels));
    }
    if height == 0 || width == 0 {
        return Err(PictureError::Empty { height, width });
    }
    let expected = (height, width);
    for (what, found) in maps {
        if found != expected {
            return Err(PictureError::Shape { what, found, expected });
        }
    }
    Ok(expected)
}
