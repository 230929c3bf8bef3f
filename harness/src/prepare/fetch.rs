//! Fetching what is not here, into the folder of downloads: each file under its own name once it is whole
//! and right.

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Url;
use tasks::data::{HubFiles, SourceFile};

use super::archive::Format;
use super::gather::{Choice, Here, Item, Rest};
use super::rules::matches;
use super::work::remove;
use super::{PrepareError, Request, room};
use crate::download::{Difference, Digest, Download, DownloadError, Partial, Remote, shown};
use crate::http;
use crate::hub::{DataSet, HubRef};
use crate::progress::Reporter;

/// A file to make the data set from.
pub(super) struct Ready<'a> {
    pub file: &'a SourceFile,
    pub here: Here,
    /// Where it came from, for the record.
    pub source: String,
    /// What it was held against when it came.
    pub checksum: Option<String>,
}

/// Everything that a choice has or fetches, in the order of the table.
pub(super) fn fetch<'a>(
    request: &Request<'a>,
    choice: &Choice<'a>,
    downloads: &Path,
    reporter: &Reporter,
) -> Result<Vec<Ready<'a>>, PrepareError> {
    if request.offline && choice.items.iter().any(|item| item.rest == Rest::Fetch) {
        let dataset = request.dataset.name.clone();
        return Err(PrepareError::Offline { dataset, names: choice.to_fetch() });
    }
    let fetching = choice.items.iter().filter(|item| item.rest == Rest::Fetch);
    let known = fetching
        .filter(|item| item.here.is_empty())
        .filter_map(|item| Some(missing(&downloads.join(&item.file.name), item.file.bytes?)));
    room("fetching", downloads, known.sum())?;
    let mut ready = Vec::new();
    for item in &choice.items {
        let file = item.file;
        let source = |here: &Here| match (&file.url, here.fetched) {
            (Some(url), true) => url.clone(),
            (None, true) => file.hub.as_ref().map_or(String::new(), |hub| hub.repository.clone()),
            _ => "given".to_owned(),
        };
        if let (Rest::Fetch, Some(hub)) = (&item.rest, &file.hub) {
            ready.extend(of_hub(item, hub, downloads, reporter)?);
            continue;
        }
        let here = item.here.iter().cloned();
        let known = |here: Here| Ready { file, source: source(&here), here, checksum: None };
        ready.extend(here.map(known));
        if let (Rest::Fetch, Some(url)) = (&item.rest, &file.url) {
            let mirror = request.mirror.as_deref();
            let path = over_http(file, url, mirror, downloads, reporter)?;
            let here = Here { name: file.name.clone(), path, fetched: true };
            let checksum = file.checksum.as_ref().map(ToString::to_string);
            ready.push(Ready { file, here, source: url.clone(), checksum });
        }
    }
    Ok(ready)
}

/// Bytes of a file of this size that are not here yet.
fn missing(place: &Path, size: u64) -> u64 {
    size.saturating_sub(fs::metadata(part(place)).map_or(0, |found| found.len()))
}

fn part(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn over_http(
    file: &SourceFile,
    published: &str,
    mirror: Option<&str>,
    downloads: &Path,
    reporter: &Reporter,
) -> Result<PathBuf, PrepareError> {
    let name = &file.name;
    let address = http::mirrored(published, mirror);
    let failed = |url: &str, why: String| PrepareError::Download {
        name: name.clone(),
        url: url.to_owned(),
        why,
    };
    let url = Url::parse(&address).map_err(|error| failed(&address, error.to_string()))?;
    let place = downloads.join(name);
    let part = part(&place);
    let broken = |error: reqwest::Error| failed(&shown(&url), http::cause(&error));
    let download = Download::new(&url, reporter).map_err(broken)?;
    let partial = Partial::noted(&part, &address).map_err(PrepareError::io("use", &part))?;
    reporter.say(format!("{name}: fetching {}", shown(&url)));
    let remote = Remote {
        name,
        url: url.clone(),
        size: file.bytes,
        secret: None,
        hashed: file.checksum.is_some(),
        against: "what was published",
    };
    let digest = file.checksum.as_ref().map(Digest::published);
    let check = |path: &Path| match &digest {
        Some(digest) => digest.difference(path, file.bytes),
        None => Ok(Format::flaw(path)?
            .map(|found| Difference { expected: "a zip or tar archive".to_owned(), found })),
    };
    let partial = download.fetch(&remote, partial, check).map_err(|error| match error {
        DownloadError::Interrupted => PrepareError::Interrupted,
        DownloadError::Io { path, source } => PrepareError::io("use", &path)(source),
        error => {
            let (url, why) = (shown(&url), error.to_string());
            let why = why.strip_prefix(&format!("{url} ")).unwrap_or(&why);
            failed(&url, why.to_owned())
        }
    })?;
    partial.finish(&place).map_err(PrepareError::io("write", &place))?;
    Ok(place)
}

fn of_hub<'a>(
    item: &Item<'a>,
    hub: &HubFiles,
    downloads: &Path,
    reporter: &Reporter,
) -> Result<Vec<Ready<'a>>, PrepareError> {
    let reference = HubRef { repository: hub.repository.clone(), revision: hub.revision.clone() };
    let set = DataSet::open(&reference, reporter)?;
    let files: Vec<_> =
        set.files.iter().filter(|listed| matches(&item.file.name, &listed.path)).collect();
    let expected = item.file.count;
    if files.is_empty() || expected.is_some_and(|count| count != files.len()) {
        return Err(PrepareError::Listing {
            repository: hub.repository.clone(),
            name: item.file.name.clone(),
            expected: expected.map_or("some".to_owned(), |count| count.to_string()),
            found: files.len(),
        });
    }
    let source = format!("{}@{}", hub.repository, set.commit);
    let (mut ready, mut wanted) = (Vec::new(), Vec::new());
    if !item.here.is_empty() {
        let count = item.here.len();
        reporter.say(format!("{}: comparing {count} files with {source}", item.file.name));
    }
    for listed in files {
        let Some(here) = item.here.iter().find(|here| here.name == listed.path) else {
            wanted.push(listed);
            continue;
        };
        match set.compare(listed, &here.path)? {
            (checksum, None) => {
                let source = if here.fetched { source.clone() } else { "given".to_owned() };
                let (here, checksum) = (here.clone(), Some(checksum));
                ready.push(Ready { file: item.file, here, source, checksum });
            }
            // Of another commit.
            (_, Some(_)) if here.fetched => {
                remove(&here.path).map_err(PrepareError::io("remove", &here.path))?;
                wanted.push(listed);
            }
            (_, Some(Difference { expected, found })) => {
                let expected = format!("{expected}, as in {}", hub.repository);
                return Err(PrepareError::Mismatch { path: here.path.clone(), expected, found });
            }
        }
    }
    let sizes = wanted.iter().map(|listed| missing(&downloads.join(&listed.path), listed.size));
    room("fetching", downloads, sizes.sum())?;
    let count = wanted.len();
    reporter.say(format!("{}: fetching {count} files of {source}", item.file.name));
    for listed in wanted {
        let place = downloads.join(&listed.path);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(PrepareError::io("make", folder))?;
        }
        let checksum = Some(set.fetch(listed, &part(&place), &place)?);
        let here = Here { name: listed.path.clone(), path: place, fetched: true };
        ready.push(Ready { file: item.file, here, source: source.clone(), checksum });
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_needed_for_what_is_not_here() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.zip");
        assert_eq!(missing(&place, 10), 10);
        fs::write(part(&place), "1234567").unwrap();
        assert_eq!(missing(&place, 10), 3);
        assert_eq!(missing(&place, 5), 0);
    }
}
