//! Listing the members of archives, in parallel, into an index.
//!
//! Held at once: for a member its path and 40 bytes, for an image of shards its name and 48 bytes more until it
//! has a path, and the buffers of one archive a thread.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::{ArchiveError, Fault};
use super::found::{Found, Images, Item, Progress};
use super::index::{self, Key};
use super::list::{self, Listed, Set};
use super::names::Classes;
use super::source::{Bytes, Opened};
use super::{parquet, tar, webdataset, zip};
use crate::data::Container;

/// Archives that are listed at once, at least.
const THREADS: usize = 8;

/// Lists all members and writes their index.
pub(super) fn build(
    set: &Set,
    strip: &str,
    path: &Path,
    key: &Key,
    told: &(dyn Fn(u64, u64) -> bool + Sync),
) -> Result<(), ArchiveError> {
    let archives: Vec<(PathBuf, &Listed)> =
        set.archives.iter().map(|listed| (set.base.join(&listed.name), listed)).collect();
    let opened = |place: &Path| {
        let fail = |source| ArchiveError::Io { path: place.to_owned(), source };
        let file = File::open(place).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        Ok::<_, ArchiveError>(Opened { file, len })
    };
    let total = set.archives.iter().map(|listed| listed.stamp.size).sum();
    let found = list(set.container, strip, &archives, total, told, &opened)?;
    let order = sort(&found, &archives)?;
    let members = order.len() as u64;
    let bytes_of_names = found.iter().map(Found::bytes_of_names).sum();
    let (Ok(count), Ok(names)) = (u32::try_from(members), u32::try_from(bytes_of_names)) else {
        return Err(ArchiveError::TooMany { members, names: bytes_of_names });
    };
    let sorted = || -> Box<index::Members<'_>> {
        Box::new(order.iter().map(|&(archive, item)| {
            let (found, item) = look_up(&found, archive, item);
            (found.name(item), archive, item.place)
        }))
    };
    index::write(path, key, set, count, names, &sorted)
        .map_err(|source| ArchiveError::Write { path: path.to_owned(), source })
}

fn look_up(found: &[Found], archive: u32, item: u32) -> (&Found, &Item) {
    let found = &found[archive as usize];
    (found, &found.items[item as usize])
}

/// The members of each archive, with canonical paths. Generic over where archives are, for those in memory.
pub(super) fn list<B: Bytes>(
    container: Container,
    strip: &str,
    archives: &[(PathBuf, &Listed)],
    total: u64,
    told: &(dyn Fn(u64, u64) -> bool + Sync),
    opened: &(dyn Fn(&Path) -> Result<B, ArchiveError> + Sync),
) -> Result<Vec<Found>, ArchiveError> {
    let progress = Progress::new(total, told);
    match container {
        Container::Zip => each(archives, opened, |b, _| zip::scan(b, strip, &progress)),
        Container::Tar => each(archives, opened, |b, _| tar::scan(b, strip, &progress)),
        Container::Webdataset | Container::Parquet => {
            let images = each(archives, opened, |bytes, listed| {
                list::split(&listed.name)?;
                match container {
                    Container::Parquet => parquet::scan(bytes, &progress),
                    _ => webdataset::scan(bytes, &progress),
                }
            })?;
            place_by_class(images, archives)
        }
    }
}

fn each<B: Bytes, T: Send>(
    archives: &[(PathBuf, &Listed)],
    opened: &(dyn Fn(&Path) -> Result<B, ArchiveError> + Sync),
    scan: impl Fn(&dyn Bytes, &Listed) -> Result<T, Fault> + Sync,
) -> Result<Vec<T>, ArchiveError> {
    // One at a time a thread: archives differ much in size.
    let scan = |(path, listed): &(PathBuf, &Listed)| {
        scan(&opened(path)?, listed).map_err(|fault| fault.at(path))
    };
    let run = || archives.par_iter().with_max_len(1).map(scan).collect();
    // Reading headers is waiting for a disk: more threads than cores, and none for one archive.
    let threads = THREADS.max(rayon::current_num_threads());
    let pool = (archives.len() > 1)
        .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok())
        .flatten();
    match pool {
        Some(pool) => pool.install(run),
        None => run(),
    }
}

/// Paths `SPLIT/CLASS/NAME` of labelled images.
fn place_by_class(
    images: Vec<Images>,
    archives: &[(PathBuf, &Listed)],
) -> Result<Vec<Found>, ArchiveError> {
    let all = images.iter().flat_map(|images| &images.images);
    let classes = Classes::new(all.map(|image| (image.class, image.identifier)))?;
    // Images without a name are numbered through the archives of their split.
    let mut before: HashMap<&str, usize> = HashMap::new();
    let mut parts = Vec::with_capacity(images.len());
    for (images, (path, listed)) in images.into_iter().zip(archives) {
        let split = list::split(&listed.name).map_err(|problem| Fault::from(problem).at(path))?;
        let first = before.entry(split).or_default();
        parts.push((*first, images, split, path));
        if let Some((_, images, _, _)) = parts.last() {
            *first += images.images.len();
        }
    }
    let place = |(first, images, split, path): (usize, Images, &str, &PathBuf)| {
        let mut found = Found::default();
        let mut name = String::new();
        for (i, image) in images.images.iter().enumerate() {
            name.clear();
            for part in [split, "/", &classes.folder(image.class), "/"] {
                name.push_str(part);
            }
            match images.stem(image) {
                "" => name.push_str(&format!("{:08}", first + i)),
                stem => name.push_str(stem),
            }
            name.push_str(if image.png { ".png" } else { ".JPEG" });
            found.push(&name, image.place).map_err(|fault| fault.at(path))?;
        }
        Ok(found)
    };
    parts.into_par_iter().map(place).collect()
}

/// Archive and item of every member in the order of paths, each of which is there once.
pub(super) fn sort(
    found: &[Found],
    archives: &[(PathBuf, &Listed)],
) -> Result<Vec<(u32, u32)>, ArchiveError> {
    let items = found.iter().zip(0_u32..);
    let mut order: Vec<(u32, u32)> = items
        .flat_map(|(found, archive)| (0..found.items.len() as u32).map(move |i| (archive, i)))
        .collect();
    let name = |&(archive, item): &(u32, u32)| {
        let (found, item) = look_up(found, archive, item);
        found.name(item)
    };
    order.par_sort_unstable_by(|a, b| name(a).cmp(name(b)).then(a.cmp(b)));
    let twice = order.windows(2).find(|pair| name(&pair[0]) == name(&pair[1]));
    match twice {
        None => Ok(order),
        Some(pair) => Err(ArchiveError::Duplicate {
            path: name(&pair[0]).to_owned(),
            first: archives[pair[0].0 as usize].0.clone(),
            second: archives[pair[1].0 as usize].0.clone(),
        }),
    }
}
