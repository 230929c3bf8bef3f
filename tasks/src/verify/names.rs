//! Wrong preparations, told from the names of files and folders and from why a folder cannot be opened.

use super::{Finding, Preparation};
use crate::data::{DataError, Dataset, Layout};
use crate::dense::DenseError;
use crate::files::Files;

/// Names looked at in a folder.
const LOOKED_AT: usize = 4096;

/// What a folder is instead of the data set's, as far as names tell: for data sets that do not open,
/// `error` says why. What lies beside a data set that opens is no part of it and says nothing. No file is
/// read.
pub fn recognise(dataset: &Dataset, files: &Files, error: Option<&DenseError>) -> Vec<Finding> {
    let finding = |preparation, evidence| Finding::new(dataset, preparation, None, evidence);
    let found = match (dataset.layout, error) {
        (Layout::Ade20k, error) => {
            let beside = error.and_then(|_| beside_full_ade20k(files));
            let evidence = beside.or_else(|| within_full_ade20k(files));
            evidence.map(|evidence| (Preparation::FullAde20k, evidence))
        }
        (Layout::Voc2012, Some(DenseError::AugmentedMasks { listed, missing, .. })) => {
            let evidence = format!(
                "{missing} of the {listed} masks of the augmented training list are missing"
            );
            Some((Preparation::NotAugmented, evidence))
        }
        _ => None,
    };
    found.map(|(preparation, evidence)| finding(preparation, evidence)).into_iter().collect()
}

/// The same for ImageNet.
pub(super) fn unsorted(dataset: &Dataset, error: &DataError) -> Vec<Finding> {
    match error {
        DataError::Unsorted { split, images, first, .. } if split == "val" => {
            let evidence = format!("{images} images lie in val itself, the first is {first}");
            vec![Finding::new(dataset, Preparation::UnsortedVal, None, evidence)]
        }
        _ => Vec::new(),
    }
}

/// The folder or the index of a release of full ADE20K.
fn beside_full_ade20k(files: &Files) -> Option<String> {
    const RELEASES: [&str; 2] = ["ADE20K_2021_17_01", "ADE20K_2016_07_26"];
    const INDEXES: [&str; 3] = ["index_ade20k.pkl", "index_ade20k.mat", "index_ade20k_2016.mat"];
    if let Some(release) = RELEASES.into_iter().find(|folder| files.is_dir(folder)) {
        return Some(format!("there is a folder {release}"));
    }
    let index = INDEXES.into_iter().find(|file| files.is_file(file))?;
    Some(format!("there is an index {index}"))
}

/// Its folders within `images` (by places, since 2021 within `images/ADE`), or its masks beside the images.
fn within_full_ade20k(files: &Files) -> Option<String> {
    const FOLDERS: [&str; 2] = ["images/ADE/training", "images/ADE/validation"];
    if let Some(folder) = FOLDERS.into_iter().find(|folder| files.is_dir(folder)) {
        return Some(format!("there is a folder {folder}"));
    }
    for folder in ["images/training", "images/validation"] {
        let Ok(entries) = files.entries(folder) else { continue };
        let mask = entries.files.iter().take(LOOKED_AT).find(|name| name.ends_with("_seg.png"));
        if let Some(mask) = mask {
            return Some(format!("{folder} has masks beside its images, the first is {mask}"));
        }
        let places = entries.folders.iter().filter(|name| name.len() == 1).count();
        if places > 1 && !entries.files.iter().any(|name| name.ends_with(".jpg")) {
            return Some(format!("{folder} has {places} folders of places, such as a and b"));
        }
    }
    None
}
