//! Folders of dense data for tests.
#![allow(clippy::unwrap_used)]

use std::fs;

use pixio_eval_tasks::data::{Dataset, Registry};
use pixio_eval_tasks::dense::PairedSet;
use tempfile::TempDir;

pub fn dataset(name: &str) -> Dataset {
    Registry::builtin().unwrap().get(name).unwrap().clone()
}

pub fn write(root: &TempDir, file: &str, content: &str) {
    let path = root.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub fn clean(root: &TempDir, message: impl std::fmt::Display) -> String {
    message.to_string().replace(&root.path().display().to_string(), "DATA")
}

pub fn images(set: &PairedSet) -> [Vec<&str>; 2] {
    [&set.train, &set.val].map(|split| split.pairs().iter().map(|pair| &*pair.image).collect())
}
