use std::path::PathBuf;

use crate::data::{DataError, PairProblem};
use crate::image::ImageError;

/// Why a dense data set, one of its pairs or a training crop cannot be used: what was expected,
/// what was found, and where.
#[derive(Debug, thiserror::Error)]
pub enum DenseError {
    /// The folder or a name in it cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image, a depth map or a mask cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// One of the folder's own split lists is missing, unreadable, malformed or empty.
    #[error("{}: {problem}", root.display())]
    List {
        /// The data folder.
        root: PathBuf,
        /// What is wrong with which list, and on which line.
        problem: PairProblem,
    },
    /// A list names a file outside the data folder.
    #[error("{}, line {line}: expected a path relative to the list's folder, found {found:?}", list.display())]
    NotRelative {
        /// The list.
        list: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The path.
        found: String,
    },
    /// A list of names has something else on a line.
    #[error("{}, line {line}: expected one name such as 2007_000032, found {found:?}", list.display())]
    Name {
        /// The list.
        list: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// The data set has no images with targets.
    #[error(
        "{dataset} has no depth maps or masks: expected one of nyuv2, kitti, ade20k, voc2012, loveda"
    )]
    NotPaired {
        /// Its name.
        dataset: String,
    },
    /// The splits cannot be told from the folder's content.
    #[error(
        "{} does not say which pairs of {dataset} belong to which split: expected there {files}, each line \
         `image target` with one space, relative to that folder. {notes}",
        root.display()
    )]
    ListsNeeded {
        /// Name of the data set.
        dataset: String,
        /// The data folder.
        root: PathBuf,
        /// The lists and their published numbers of lines.
        files: String,
        /// Which lists these are.
        notes: String,
    },
    /// A folder or list of the layout is missing.
    #[error("{} is missing; expected in the folder of {dataset}:\n{layout}", path.display())]
    Missing {
        /// Name of the data set.
        dataset: String,
        /// The folder or list.
        path: PathBuf,
        /// The layout of the data set on disk.
        layout: String,
    },
    /// The masks of the augmented training list were not added to the official ones.
    #[error(
        "{}: {missing} of the {listed} masks of the augmented training list are missing, the first {first}: expected \
         the masks of the Semantic Boundaries Dataset in SegmentationClass, beside the official ones, or all of \
         them in SegmentationClassAug",
        root.display()
    )]
    AugmentedMasks {
        /// The data folder.
        root: PathBuf,
        /// Number of masks that the list names.
        listed: usize,
        /// How many are not there.
        missing: usize,
        /// The first of them.
        first: String,
    },
    /// A folder without images.
    #[error("{} has no .{extension} images", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// What was looked for.
        extension: &'static str,
    },
    /// One of the two files of a pair is not there.
    #[error("{}: image {image} and target {target} are a pair by {named_by}, but there is no such {missing}", root.display())]
    PairIncomplete {
        /// The data folder.
        root: PathBuf,
        /// What says so: a list with its line, or the other file's folder.
        named_by: String,
        /// The image, relative to the data folder.
        image: Box<str>,
        /// Its depth map or mask.
        target: Box<str>,
        /// `image` or `target`.
        missing: &'static str,
    },
    /// Image and target do not show the same pixels.
    #[error(
        "{}: expected {}x{} pixels, the size of its image {}, found {}x{}",
        target.display(), expected.1, expected.0, image.display(), found.1, found.0
    )]
    SizesDiffer {
        /// The image.
        image: PathBuf,
        /// The depth map or mask.
        target: PathBuf,
        /// Height and width of the image.
        expected: (usize, usize),
        /// Height and width of the target.
        found: (usize, usize),
    },
    /// The border that the protocol cuts off does not lie in the image.
    #[error(
        "{}: rows {}..{} and columns {}..{} are kept of every image, which has {}x{} pixels",
        file.display(), border[0], border[1], border[2], border[3], size.1, size.0
    )]
    Border {
        /// The image.
        file: PathBuf,
        /// `[top, bottom, left, right]`, ends exclusive.
        border: [usize; 4],
        /// Height and width of the image.
        size: (usize, usize),
    },
    /// A mask holds a value that is no class.
    #[error("{}, row {row}, column {column}: expected {expected}, found label {label}", file.display())]
    Label {
        /// The mask.
        file: PathBuf,
        /// Counted from 0, in the file.
        row: usize,
        /// Counted from 0, in the file.
        column: usize,
        /// The label as stored.
        label: u8,
        /// The labels that this form of the mask may hold.
        expected: String,
    },
    /// Masks of both forms in one data set.
    #[error(
        "the masks of {dataset} contradict each other: {} holds {ignore}, which only the shifted form has, and {} \
         holds {last}, which only the original form has",
        shifted.display(), original.display()
    )]
    LabelsMixed {
        /// Name of the data set.
        dataset: String,
        /// A mask with the label for unlabelled pixels.
        shifted: PathBuf,
        /// The label.
        ignore: u8,
        /// A mask with a label equal to the number of classes.
        original: PathBuf,
        /// The number.
        last: usize,
    },
    /// No mask shows which form the labels have.
    #[error(
        "none of the {masks} masks of {dataset} holds {ignore} or {last}, so they may be in the original or in the \
         shifted form: say which with --labels original or --labels shifted"
    )]
    LabelsUnclear {
        /// Name of the data set.
        dataset: String,
        /// Number of masks looked at.
        masks: usize,
        /// What a shifted mask would hold.
        ignore: u8,
        /// What an original one would hold.
        last: usize,
    },
    /// The original form was asked for, but is the same as the shifted one.
    #[error("{dataset} is published with labels from 0 on: it has no original form to be shifted")]
    NoOriginalForm {
        /// Name of the data set.
        dataset: String,
    },
    /// A crop does not fit, and depth is not padded.
    #[error("{}: expected at least {crop}x{crop} pixels to crop, found {width}x{height}", file.display())]
    TooSmall {
        /// The image.
        file: PathBuf,
        /// Its height, after the border.
        height: usize,
        /// Its width.
        width: usize,
        /// Side of the crop.
        crop: usize,
    },
    /// A crop drawn for another image or another protocol.
    #[error(
        "{}: a crop of {crop}x{crop} at row {top}, column {left} reaches outside its {width}x{height} pixels",
        file.display()
    )]
    CropOutside {
        /// The image.
        file: PathBuf,
        /// Its height, rescaled and padded.
        height: usize,
        /// Its width.
        width: usize,
        /// Side of the crop.
        crop: usize,
        /// First row.
        top: usize,
        /// First column.
        left: usize,
    },
}
