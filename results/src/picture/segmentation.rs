//! Pictures of segmentation.

use ndarray::{Array3, ArrayView2, ArrayView3};

use super::canvas::{Align, Canvas};
use super::layout::Layout;
use super::legend::legend;
use super::{PictureError, Rgb, class_colour, common_size, sample};
use crate::font::Face;

/// Pixels whose truth is ignored.
pub(super) const IGNORED: Rgb = [160, 160, 160];
/// Pixels of another class than the truth.
pub(super) const WRONG: Rgb = [230, 40, 45];
const TEXT: Rgb = [90, 90, 90];

/// One image and its labels.
#[derive(Clone, Copy, Debug)]
pub struct SegmentationPicture<'a> {
    /// First line, bold; shortened in its middle where it is wider than the picture.
    pub title: &'a str,
    /// Second line, such as this image's pixel accuracy; may be empty.
    pub caption: &'a str,
    /// The image `[H, W, 3]`, sRGB.
    pub image: ArrayView3<'a, u8>,
    /// True labels `[H, W]`, classes or `ignore`.
    pub truth: ArrayView2<'a, u8>,
    /// Predicted labels `[H, W]`, classes only.
    pub prediction: ArrayView2<'a, u8>,
    /// The label that is not evaluated.
    pub ignore: u8,
    /// The classes' names.
    pub classes: &'a [String],
}

/// The picture as PNG.
///
/// Classes have the colours of [`class_colour`]; the legend names those that occur, the largest
/// first, at most twelve. In the error panel correct pixels are the input, dimmed, and wrong ones
/// red. Ignored pixels are grey in truth and error.
///
/// # Errors
///
/// An image that is empty or not RGB, a map of another size, or a label without class.
pub fn segmentation(picture: &SegmentationPicture<'_>) -> Result<Vec<u8>, PictureError> {
    let &SegmentationPicture { image, truth, prediction, ignore, classes, .. } = picture;
    let maps = [("truth", truth.dim()), ("prediction", prediction.dim())];
    let (height, width) = common_size(&image, maps)?;
    check("truth", truth, classes.len(), Some(ignore))?;
    check("prediction", prediction, classes.len(), None)?;

    let layout = Layout::of(height, width);
    let found = legend(truth, prediction, ignore);
    let mut names: Vec<(Option<Rgb>, String)> = found
        .classes
        .iter()
        .filter_map(|&class| {
            Some((Some(class_colour(class)), classes.get(usize::from(class))?.clone()))
        })
        .collect();
    if found.more > 0 {
        names.push((None, format!("and {} more", found.more)));
    }
    let mut marks = vec![(Some(WRONG), "wrong".to_owned())];
    if found.ignored {
        marks.push((Some(IGNORED), "ignored".to_owned()));
    }
    marks.push((None, "correct: the input, dimmed".to_owned()));

    let line = layout.ems(1.6);
    // Entries stand under the left edges of the panels and evenly between, as wide as the widest.
    let face = Face::regular()?;
    let widest = names.iter().map(|(_, name)| face.width(name, layout.em)).fold(0.0, f32::max);
    let need = Canvas::key_indent(layout.em) + widest.ceil() as usize + layout.ems(0.8);
    let pitch = layout.panels[1].x - layout.panels[0].x;
    let each = (pitch / need.max(layout.ems(10.0))).max(1);
    let columns = each * if layout.one_row { 4 } else { 2 };
    let legend_lines = names.len().div_ceil(columns);
    let marks_top = layout.below + legend_lines * line + layout.ems(0.4);
    let height = marks_top + layout.ems(1.0) + layout.margin;
    let mut canvas = Canvas::with_head(&layout, height, picture.title, picture.caption)?;

    let [input, first, second, third] = layout.panels;
    let size = (input.height, input.width);
    let pixels = sample::image(image, size);
    let truth = sample::nearest(truth, size);
    let prediction = sample::nearest(prediction, size);
    let painted = |colour: &dyn Fn(usize, usize) -> Rgb| {
        Array3::from_shape_fn((size.0, size.1, 3), |(y, x, channel)| colour(y, x)[channel])
    };
    let of_class = |label| if label == ignore { IGNORED } else { class_colour(label) };
    canvas.panel(input, pixels.view());
    canvas.panel(first, painted(&|y, x| of_class(truth[[y, x]])).view());
    canvas.panel(second, painted(&|y, x| class_colour(prediction[[y, x]])).view());
    let error = painted(&|y, x| {
        if truth[[y, x]] == ignore {
            IGNORED
        } else if truth[[y, x]] != prediction[[y, x]] {
            WRONG
        } else {
            // Dark enough that no correct pixel has the grey of an ignored one.
            [0, 1, 2].map(|channel| (u16::from(pixels[[y, x, channel]]) * 2 / 5) as u8)
        }
    });
    canvas.panel(third, error.view());

    for (index, (colour, name)) in names.into_iter().enumerate() {
        let x = layout.margin + index % columns * pitch / each;
        let at = (x, layout.below + index / columns * line);
        entry(&mut canvas, &layout, at, pitch / each, colour, &name);
    }
    let mut x = layout.margin;
    let room = layout.margin + layout.inner();
    for (colour, meaning) in marks {
        entry(&mut canvas, &layout, (x, marks_top), room.saturating_sub(x), colour, &meaning);
        let indent = colour.map_or(0, |_| Canvas::key_indent(layout.em));
        x += indent + canvas.text_width(&meaning) + layout.ems(1.5);
    }
    canvas.png()
}

/// One entry of a legend, at most `width` wide, with or without a colour.
fn entry(
    canvas: &mut Canvas,
    layout: &Layout,
    (x, top): (usize, usize),
    width: usize,
    colour: Option<Rgb>,
    words: &str,
) {
    let indent = Canvas::key_indent(layout.em);
    let words = canvas.fit(words, width.saturating_sub(indent + layout.ems(0.8)));
    match colour {
        Some(colour) => canvas.key((x, top), colour, &words),
        None => canvas.text(&words, (x, top + layout.ems(0.75)), Align::Left, TEXT),
    }
}

fn check(
    what: &'static str,
    labels: ArrayView2<'_, u8>,
    classes: usize,
    ignore: Option<u8>,
) -> Result<(), PictureError> {
    let is_other = |&label: &u8| usize::from(label) >= classes && Some(label) != ignore;
    match labels.indexed_iter().find(|(_, label)| is_other(label)) {
        Some(((row, column), &label)) => {
            Err(PictureError::Label { what, label, row, column, classes })
        }
        None => Ok(()),
    }
}
