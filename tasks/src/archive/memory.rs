//! Archives and indexes in memory: what fuzzing reads.

use std::path::{Path, PathBuf};

use super::error::ArchiveError;
use super::index::Index;
use super::list::{Listed, Stamp};
use super::{build, read};
use crate::data::Container;

/// The canonical paths and contents of all members of one archive, in the order of paths. `name` is the archive's
/// file name, which decides on the split of labelled images.
///
/// # Errors
///
/// [`ArchiveError`], whatever the bytes are: never a panic, and nothing is allocated that is not in proportion to
/// them, but for members that unpack to more (1 GiB each at most, see [`Archives`](super::Archives)).
pub fn members(
    container: Container,
    name: &str,
    bytes: &[u8],
) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let stamp = Stamp { size: bytes.len() as u64, modified: 0 };
    let listed = Listed { name: name.to_owned(), stamp };
    let archives = [(PathBuf::from(name), &listed)];
    let opened = |_: &Path| Ok(bytes);
    let found = build::list(container, "", &archives, stamp.size, &|_, _| true, &opened)?;
    let order = build::sort(&found, &archives)?;
    let content = |&(_, item): &(u32, u32)| {
        let item = &found[0].items[item as usize];
        let path = found[0].name(item).to_owned();
        let content = read::member(&bytes, &item.place, None);
        let content = content.map_err(|fault| fault.of(&path).at(Path::new(name)))?;
        Ok((path, content))
    };
    order.iter().map(content).collect()
}

/// The paths in an index, if the bytes are one.
pub fn index_paths(bytes: &[u8]) -> Option<Vec<String>> {
    let index = Index::parse(bytes)?;
    Some((0..index.len()).map(|i| index.path(i).to_owned()).collect())
}
