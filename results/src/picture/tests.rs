use ndarray::{Array2, Array3, s};

use super::depth::{MISSING, NOT_FINITE};
use super::layout::{Layout, Rect};
use super::scale::{magma, viridis};
use super::segmentation::{IGNORED, WRONG};
use super::*;

/// A decoded picture.
struct Seen {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Seen {
    fn of(bytes: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Self { width: info.width as usize, height: info.height as usize, pixels }
    }

    fn at(&self, x: usize, y: usize) -> Rgb {
        let start = (y * self.width + x) * 3;
        [0, 1, 2].map(|channel| self.pixels[start + channel])
    }

    /// The pixel of a panel that shows the image's at `row` and `column` of `height` x `width`.
    fn in_panel(&self, panel: Rect, at: (usize, usize), (height, width): (usize, usize)) -> Rgb {
        let x = panel.x + (2 * at.1 + 1) * panel.width / (2 * width);
        let y = panel.y + (2 * at.0 + 1) * panel.height / (2 * height);
        self.at(x, y)
    }

    /// Whether anything but white is in a rectangle.
    fn inked(&self, place: Rect) -> bool {
        let rows = place.y..place.y + place.height;
        rows.into_iter()
            .any(|y| (place.x..place.x + place.width).any(|x| self.at(x, y) != [255; 3]))
    }
}

fn image(height: usize, width: usize) -> Array3<u8> {
    Array3::from_shape_fn((height, width, 3), |(y, x, c)| ((7 * y + 11 * x + 60 * c) % 256) as u8)
}

fn shown_depth(truth: &Array2<f32>, prediction: &Array2<f32>) -> Seen {
    let (height, width) = truth.dim();
    let rgb = image(height, width);
    let picture = DepthPicture {
        title: "title",
        caption: "",
        image: rgb.view(),
        truth: truth.view(),
        prediction: prediction.view(),
        range: (0.001, 10.0),
    };
    let bytes = depth(&picture).unwrap();
    assert_eq!(bytes, depth(&picture).unwrap(), "the same bytes again");
    Seen::of(&bytes)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

fn shown_labels(truth: &Array2<u8>, prediction: &Array2<u8>, classes: usize) -> Seen {
    let (height, width) = truth.dim();
    let rgb = image(height, width);
    let classes = names(classes);
    let picture = SegmentationPicture {
        title: "title",
        caption: "caption",
        image: rgb.view(),
        truth: truth.view(),
        prediction: prediction.view(),
        ignore: 255,
        classes: &classes,
    };
    let bytes = segmentation(&picture).unwrap();
    assert_eq!(bytes, segmentation(&picture).unwrap(), "the same bytes again");
    Seen::of(&bytes)
}

#[test]
fn depth_panels_show_what_they_are_named_for() {
    let size = (40, 50);
    // Truth from 0 to 4 m, so its scale ends there too.
    let truth = Array2::from_shape_fn(size, |(y, x)| match (y, x) {
        (0, 0) => 0.0,
        (0, 1) => 4.0,
        (0, 2) => f32::NAN,
        (0, 3) => 12.0,
        (0, 4) => 0.01,
        _ => 2.0,
    });
    let mut prediction = truth.mapv(|depth| if depth > 0.0 { depth } else { 2.0 });
    prediction[[0, 3]] = 12.0;
    prediction[[10, 10]] = 3.0;
    prediction[[10, 11]] = f32::INFINITY;
    prediction[[0, 2]] = 1.0;
    prediction.slice_mut(s![20.., ..]).fill(2.5);
    let seen = shown_depth(&truth, &prediction);
    let layout = Layout::of(40, 50);
    let [input, first, second, error] = layout.panels;
    let at = |panel, y, x| seen.in_panel(panel, (y, x), size);

    for (y, x) in [(0, 0), (39, 49), (20, 10)] {
        let source = image(40, 50);
        assert_eq!(at(input, y, x), [0, 1, 2].map(|c| source[[y, x, c]]));
    }
    for (x, colour) in
        [(0, MISSING), (1, viridis(1.0)), (2, MISSING), (3, MISSING), (5, viridis(0.5))]
    {
        assert_eq!(at(first, 0, x), colour, "truth at {x}");
    }
    assert_eq!(at(second, 0, 2), viridis(0.25));
    assert_eq!(at(second, 0, 3), viridis(1.0), "beyond the scale");
    assert_eq!(at(second, 10, 10), viridis(0.75));
    assert_eq!(at(second, 10, 11), NOT_FINITE);
    // Half of the errors are 0.5 m, one is 1 m: the 99th percentile is 0.5.
    assert_eq!(at(error, 5, 5), magma(0.0));
    assert_eq!(at(error, 30, 5), magma(1.0));
    assert_eq!(at(error, 10, 10), magma(1.0));
    assert_eq!(at(error, 10, 11), NOT_FINITE);
    assert_eq!(at(error, 0, 0), MISSING);
    assert_eq!(at(error, 0, 2), MISSING);

    for (bar, colours) in
        [(layout.depth_bar(), viridis as fn(f64) -> Rgb), (layout.error_bar(), magma)]
    {
        let y = bar.y + bar.height / 2;
        assert_eq!(seen.at(bar.x, y), colours(0.0));
        assert_eq!(seen.at(bar.x + bar.width - 1, y), colours(1.0));
        let below = Rect { y: bar.y + bar.height + 5, height: layout.ems(1.0), ..bar };
        assert!(seen.inked(Rect { width: layout.ems(1.0), ..below }), "a tick at the left end");
        let right = below.x + below.width - layout.ems(1.0);
        assert!(seen.inked(Rect { x: right, width: layout.ems(1.0), ..below }), "and at the right");
    }
    assert_eq!((seen.width, seen.height), (layout.width, layout.depth_height(2)));
}

#[test]
fn keys_stand_only_for_what_occurs() {
    let truth = Array2::from_elem((30, 40), 2.0_f32);
    let layout = Layout::of(30, 40);
    let (x, y) = layout.depth_keys();
    let keys = Rect { x, y, width: layout.cell, height: layout.ems(2.5) };
    assert!(!shown_depth(&truth, &truth).inked(keys));
    let mut holed = truth.clone();
    holed[[7, 7]] = 0.0;
    assert_eq!(shown_depth(&holed, &truth).at(x + 3, y + 3), MISSING);
    holed[[7, 7]] = f32::NAN;
    assert_eq!(shown_depth(&truth, &holed).at(x + 3, y + 3), NOT_FINITE);
}

#[test]
fn truth_without_a_measurement_is_grey_and_so_is_its_error() {
    let prediction = Array2::from_shape_fn((30, 40), |(_, x)| 1.0 + x as f32 / 39.0);
    let seen = shown_depth(&Array2::zeros((30, 40)), &prediction);
    let [_, truth, predicted, error] = Layout::of(30, 40).panels;
    for (y, x) in [(0, 0), (15, 20), (29, 39)] {
        assert_eq!(seen.in_panel(truth, (y, x), (30, 40)), MISSING);
        assert_eq!(seen.in_panel(error, (y, x), (30, 40)), MISSING);
    }
    assert_eq!(seen.in_panel(predicted, (3, 0), (30, 40)), viridis(0.0));
    assert_eq!(seen.in_panel(predicted, (3, 39), (30, 40)), viridis(1.0));
}

#[test]
fn constant_depth_lies_inside_the_scale_and_has_no_error() {
    let depth = Array2::from_elem((30, 40), 3.0_f32);
    let seen = shown_depth(&depth, &depth);
    let [_, truth, predicted, error] = Layout::of(30, 40).panels;
    assert_eq!(seen.in_panel(truth, (9, 9), (30, 40)), viridis(0.5));
    assert_eq!(seen.in_panel(predicted, (9, 9), (30, 40)), viridis(0.5));
    assert_eq!(seen.in_panel(error, (9, 9), (30, 40)), magma(0.0));
}

#[test]
fn predictions_that_are_all_nan_are_shown_as_such() {
    let truth = Array2::from_elem((30, 40), 3.0_f32);
    let seen = shown_depth(&truth, &Array2::from_elem((30, 40), f32::NAN));
    let [_, _, predicted, error] = Layout::of(30, 40).panels;
    assert_eq!(seen.in_panel(predicted, (9, 9), (30, 40)), NOT_FINITE);
    assert_eq!(seen.in_panel(error, (9, 9), (30, 40)), NOT_FINITE);
}

#[test]
fn any_size_is_shown() {
    for (height, width) in [(1, 1), (1, 900), (900, 1), (375, 1242), (700, 500)] {
        let truth = Array2::from_shape_fn((height, width), |(y, x)| 1.0 + ((y + x) % 5) as f32);
        let seen = shown_depth(&truth, &truth);
        let layout = Layout::of(height, width);
        assert_eq!((seen.width, seen.height), (layout.width, layout.depth_height(0)));
        let labels = truth.mapv(|depth| depth as u8);
        let seen = shown_labels(&labels, &labels, 9);
        assert_eq!(seen.width, layout.width);
        let [.., error] = layout.panels;
        assert!(
            seen.at(error.x, error.y) != [255; 3]
                && !seen.inked(Rect { x: 0, y: 0, width: seen.width, height: 3 })
        );
    }
}

#[test]
fn sparse_truth_stays_visible_when_shrunk() {
    // One measured pixel in sixteen, shrunk to a quarter: every shown pixel has one.
    let truth =
        Array2::from_shape_fn(
            (1024, 1920),
            |(y, x)| {
                if y % 4 == 1 && x % 4 == 2 { 5.0_f32 } else { 0.0 }
            },
        );
    let seen = shown_depth(&truth, &Array2::from_elem((1024, 1920), 5.0));
    let [_, panel, ..] = Layout::of(1024, 1920).panels;
    assert_eq!(panel.width, 480);
    let middle = |y, x| seen.at(panel.x + x, panel.y + y);
    assert!((0..panel.height).all(|y| (0..panel.width).all(|x| middle(y, x) == viridis(0.5))));
}

#[test]
fn segmentation_panels_show_labels_and_mistakes() {
    let size = (40, 50);
    let truth = Array2::from_shape_fn(size, |(y, x)| if y < 3 { 255 } else { u8::from(x >= 25) });
    let mut prediction = truth.mapv(|label| if label == 255 { 2 } else { label });
    prediction[[30, 40]] = 0;
    let seen = shown_labels(&truth, &prediction, 3);
    let [input, first, second, error] = Layout::of(40, 50).panels;
    let at = |panel, y, x| seen.in_panel(panel, (y, x), size);
    assert_eq!(at(first, 1, 1), IGNORED);
    assert_eq!((at(first, 10, 1), at(first, 10, 49)), (class_colour(0), class_colour(1)));
    assert_eq!(at(second, 1, 1), class_colour(2));
    assert_eq!(at(second, 30, 40), class_colour(0));
    assert_eq!(at(error, 1, 1), IGNORED);
    assert_eq!(at(error, 30, 40), WRONG);
    let dimmed = at(input, 20, 20).map(|value| (u16::from(value) * 2 / 5) as u8);
    assert_eq!(at(error, 20, 20), dimmed);
}

#[test]
fn legends_have_the_colours_of_the_classes_that_occur() {
    let labels = Array2::from_shape_fn((40, 50), |(y, _)| (y / 2) as u8);
    let seen = shown_labels(&labels, &labels, 30);
    let layout = Layout::of(40, 50);
    let legend = |class| {
        let rows = layout.below..seen.height;
        rows.into_iter().any(|y| (0..seen.width).any(|x| seen.at(x, y) == class_colour(class)))
    };
    let listed: Vec<u8> = (0..30).filter(|&class| legend(class)).collect();
    assert_eq!(listed, (0..12).collect::<Vec<u8>>());
    let few = shown_labels(&Array2::zeros((40, 50)), &Array2::zeros((40, 50)), 30);
    assert!(few.height < seen.height, "one line of classes, not three");
}

#[test]
fn long_titles_and_names_stay_inside() {
    let labels = Array2::from_shape_fn((40, 50), |(y, _)| (y / 4) as u8);
    let long = vec!["a very long class name, and then some more of it".to_owned(); 10];
    let title = "folder/".repeat(80);
    let rgb = image(40, 50);
    let picture = SegmentationPicture {
        title: &title,
        caption: &title,
        image: rgb.view(),
        truth: labels.view(),
        prediction: labels.view(),
        ignore: 255,
        classes: &long,
    };
    let seen = Seen::of(&segmentation(&picture).unwrap());
    let margin = Layout::of(40, 50).margin;
    let right = Rect { x: seen.width - margin + 2, y: 0, width: margin - 2, height: seen.height };
    assert!(!seen.inked(right));
}

#[test]
fn wrong_input_is_named() {
    let (rgb, map, labels) = (image(4, 6), Array2::zeros((4, 6)), Array2::<u8>::zeros((4, 6)));
    let good = DepthPicture {
        title: "",
        caption: "",
        image: rgb.view(),
        truth: map.view(),
        prediction: map.view(),
        range: (0.0, 10.0),
    };
    assert!(depth(&good).is_ok());
    let message = |picture| depth(&picture).unwrap_err().to_string();
    let other = Array2::zeros((3, 6));
    assert_eq!(
        message(DepthPicture { prediction: other.view(), ..good }),
        "the prediction is 6x3, its image 6x4"
    );
    assert_eq!(
        message(DepthPicture { range: (2.0, f64::NAN), ..good }),
        "the range of depths 2..=NaN m is empty"
    );
    let none = Array2::zeros((0, 6));
    let empty = DepthPicture { image: rgb.slice(s![..0, .., ..]), ..good };
    assert!(matches!(
        depth(&DepthPicture { truth: none.view(), prediction: none.view(), ..empty }),
        Err(PictureError::Empty { height: 0, width: 6 })
    ));
    let grey = DepthPicture { image: rgb.slice(s![.., .., ..1]), ..good };
    assert!(matches!(depth(&grey), Err(PictureError::Channels(1))));

    let mut odd = labels.clone();
    odd[[2, 5]] = 255;
    let classes = names(2);
    let picture = SegmentationPicture {
        title: "",
        caption: "",
        image: rgb.view(),
        truth: odd.view(),
        prediction: labels.view(),
        ignore: 255,
        classes: &classes,
    };
    assert!(segmentation(&picture).is_ok());
    assert_eq!(
        segmentation(&SegmentationPicture { prediction: odd.view(), ..picture })
            .unwrap_err()
            .to_string(),
        "the prediction has label 255 at row 2, column 5, of 2 classes"
    );
    assert!(segmentation(&SegmentationPicture { ignore: 0, ..picture }).is_err());
}
