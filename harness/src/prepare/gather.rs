//! Which files a data set is made from, which of them are here, and how the others come.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use results::remove_unfinished;
use tasks::data::{Build, Dataset, SourceFile};

use super::error::ByHand;
use super::rules::{matches, stars};
use super::{PrepareError, Request};

/// Folders below a given one that are looked through.
const DEPTH: usize = 3;

/// The files that were given, by the last part of their path; and each of them.
#[derive(Default)]
pub(super) struct Given {
    by_name: BTreeMap<String, PathBuf>,
}

/// A set of files, and how each comes.
pub(super) struct Choice<'a> {
    pub set: Option<&'a str>,
    pub items: Vec<Item<'a>>,
}

/// A file of the table, or the files that its pattern stands for.
pub(super) struct Item<'a> {
    pub file: &'a SourceFile,
    /// Those that are here.
    pub here: Vec<Here>,
    pub rest: Rest,
}

/// A file that is here.
#[derive(Clone, Debug)]
pub(super) struct Here {
    /// As published, with its folder in a repository.
    pub name: String,
    pub path: PathBuf,
    /// Whether this command fetched it.
    pub fetched: bool,
}

/// What is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    /// It can be fetched.
    Fetch,
    /// A person must fetch it.
    ByHand(Vec<String>),
}

impl Given {
    /// Looks at what was given with `--from`; what comes first wins.
    pub fn look(request: &Request<'_>) -> Result<Self, PrepareError> {
        let mut given = Self::default();
        let files = &request.dataset.source.files;
        for path in &request.from {
            let found = fs::metadata(path)
                .map_err(|source| PrepareError::Given { path: path.clone(), source })?;
            if found.is_dir() {
                given.walk(path, DEPTH)?;
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !files.iter().any(|file| is_of(file, &name)) {
                let dataset = request.dataset.name.clone();
                let names = files.iter().map(|file| file.name.clone()).collect();
                return Err(PrepareError::Unused { path: path.clone(), dataset, names });
            }
            given.by_name.entry(name).or_insert_with(|| path.clone());
        }
        Ok(given)
    }

    fn walk(&mut self, folder: &Path, depth: usize) -> Result<(), PrepareError> {
        let read = || fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>();
        let mut entries = read().map_err(PrepareError::io("read", folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // A link to nowhere, or what may not be looked at, is no file to be found.
            let Ok(found) = fs::metadata(&path) else { continue };
            if found.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                self.by_name.entry(name).or_insert(path);
            } else if found.is_dir() && depth > 1 {
                // Nor is a folder that is closed.
                let _ = self.walk(&path, depth - 1);
            }
        }
        Ok(())
    }

    /// The files that a name of the table stands for.
    fn of(&self, file: &SourceFile) -> Vec<Here> {
        let named = self.by_name.iter().filter(|(name, _)| is_of(file, name));
        let here = |(name, path): (&String, &PathBuf)| Here {
            name: format!("{}{name}", folder_of(&file.name)),
            path: path.clone(),
            fetched: false,
        };
        named.map(here).collect()
    }
}

/// The folder of a published name, with its slash.
fn folder_of(name: &str) -> &str {
    name.rfind('/').map_or("", |at| &name[..=at])
}

fn is_of(file: &SourceFile, name: &str) -> bool {
    matches(&file.name[folder_of(&file.name).len()..], name)
}

/// Chooses the set of files that is asked for, else the one that is nearest to being here: of those that
/// something was given of, else of all, one that can be had without a person; of several the one with the
/// most files given, else the first.
///
/// `drives` names the files that a pattern stands for, where lists decide it.
pub(super) fn choose<'a>(
    request: &Request<'a>,
    given: &Given,
    downloads: &Path,
    drives: &[String],
) -> Result<Choice<'a>, PrepareError> {
    let dataset: &'a Dataset = request.dataset;
    let files = &dataset.source.files;
    if files.is_empty() {
        return Err(PrepareError::NoSource(dataset.name.clone()));
    }
    let mut sets: Vec<Option<&'a str>> = Vec::new();
    for set in files.iter().filter_map(|file| file.set.as_deref()) {
        if !sets.contains(&Some(set)) {
            sets.push(Some(set));
        }
    }
    if let Some(asked) = request.set.as_deref() {
        sets.retain(|set| *set == Some(asked));
        if sets.is_empty() {
            let mut sets: Vec<String> = files.iter().filter_map(|file| file.set.clone()).collect();
            sets.dedup();
            let (dataset, found) = (dataset.name.clone(), asked.to_owned());
            return Err(PrepareError::Set { dataset, found, sets });
        }
    } else if sets.is_empty() {
        sets.push(None);
    }
    let of_set = |set: Option<&'a str>| {
        let files = files.iter().filter(|file| file.set.is_none() || file.set.as_deref() == set);
        let items = files.map(|file| item(file, given, downloads, drives)).collect();
        Choice { set, items }
    };
    let rank = |choice: &Choice<'_>| {
        let by_hand = choice.items.iter().any(|item| matches!(item.rest, Rest::ByHand(_)));
        let of_set = choice.items.iter().filter(|item| item.file.set.is_some());
        let here = of_set.filter(|item| !item.here.is_empty()).count();
        (here > 0, !by_hand, here)
    };
    let mut choices = sets.into_iter().map(of_set);
    // There is one at least.
    let first = choices.next().unwrap_or(Choice { set: None, items: Vec::new() });
    Ok(choices.fold(first, |best, next| if rank(&next) > rank(&best) { next } else { best }))
}

fn item<'a>(file: &'a SourceFile, given: &Given, downloads: &Path, drives: &[String]) -> Item<'a> {
    let is_drives = file.build == Some(Build::Drives) && !drives.is_empty();
    let mut here = given.of(file);
    here.retain(|here| !is_drives || drives.contains(&here.name));
    // What a person put there is given by saying so.
    let can_fetch = file.url.is_some() || file.hub.is_some();
    for fetched in if can_fetch { downloaded(file, downloads) } else { Vec::new() } {
        if !here.iter().any(|known| known.name == fetched.name) {
            here.push(fetched);
        }
    }
    retain_numbered(&mut here, file);
    let wanted = |name: &String| !here.iter().any(|known| known.name == *name);
    let missing: Vec<String> = if !file.is_several() {
        Some(file.name.clone()).filter(wanted).into_iter().collect()
    } else if is_drives {
        drives.iter().filter(|name| wanted(name)).cloned().collect()
    } else if file.count.is_none_or(|count| here.len() < count || (can_fetch && here.len() > count))
    {
        vec![file.name.clone()]
    } else {
        Vec::new()
    };
    let rest = match missing {
        missing if missing.is_empty() => Rest::Nothing,
        _ if can_fetch => Rest::Fetch,
        missing => Rest::ByHand(missing),
    };
    Item { file, here, rest }
}

/// Of the files that a pattern stands for on the hub, leaves those that can be some of as many as the table
/// says: numbered below that, and where names say of how many, with `-of-00294`. Other data sets have shards
/// of nearly the same names.
fn retain_numbered(here: &mut Vec<Here>, file: &SourceFile) {
    let Some(count) = file.count.filter(|_| file.hub.is_some()) else { return };
    let digits = |text: &str| {
        let all = text.bytes().all(|c| c.is_ascii_digit());
        text.parse::<usize>().ok().filter(|_| all)
    };
    // Whether the name says of how many.
    let says = |here: &Here| {
        let [star] = stars(&file.name, &here.name)?[..] else { return None };
        let (number, of) = match star.split_once("-of-") {
            Some((number, of)) => (number, Some(of)),
            None => (star, None),
        };
        let right = digits(number)? < count && of.is_none_or(|of| digits(of) == Some(count));
        right.then_some(of.is_some())
    };
    here.retain(|here| says(here).is_some());
    if here.iter().any(|here| says(here) == Some(true)) {
        here.retain(|here| says(here) == Some(true));
    }
}

/// What an earlier command fetched: under its final name it is whole.
fn downloaded(file: &SourceFile, downloads: &Path) -> Vec<Here> {
    let folder = folder_of(&file.name);
    let entries = fs::read_dir(downloads.join(folder)).into_iter().flatten().flatten();
    let here = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let part = name.ends_with(".part") || name.ends_with(".part.json");
        let path = entry.path();
        let found = is_of(file, &name) && !part && path.is_file();
        found.then(|| Here { name: format!("{folder}{name}"), path, fetched: true })
    };
    entries.filter_map(here).collect()
}

/// Removes what was fetched, and what was begun of it; a person's own files stay.
pub(super) fn remove_fetched(dataset: &Dataset, downloads: &Path) -> io::Result<()> {
    let fetched = |file: &&SourceFile| file.url.is_some() || file.hub.is_some();
    for file in dataset.source.files.iter().filter(fetched) {
        let folder = downloads.join(folder_of(&file.name));
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let whole = name.strip_suffix(".json").unwrap_or(&name);
            let whole = whole.strip_suffix(".part").unwrap_or(whole);
            if is_of(file, whole) {
                super::work::remove(&entry.path())?;
            }
        }
        // None where the folder is gone.
        let _ = remove_unfinished(&folder);
        if folder != *downloads {
            // What else is in it keeps it.
            let _ = fs::remove_dir(&folder);
        }
    }
    let _ = fs::remove_dir(downloads);
    Ok(())
}

impl Choice<'_> {
    /// What a person must fetch, page by page.
    pub fn by_hand(&self) -> Vec<ByHand> {
        let by_hand = |item: &Item<'_>| {
            let Rest::ByHand(names) = &item.rest else { return None };
            let page = item.file.page.clone().unwrap_or_default();
            let how = item.file.how.clone().unwrap_or_default();
            let checksum = item.file.checksum.as_ref().map(ToString::to_string);
            Some(ByHand { names: names.clone(), page, how, checksum })
        };
        self.items.iter().filter_map(by_hand).collect()
    }

    /// What is to be fetched, and where from, in words.
    pub fn to_fetch(&self) -> Vec<String> {
        let fetched = self.items.iter().filter(|item| item.rest == Rest::Fetch);
        fetched.map(|item| format!("{} from {}", item.file.name, place(item.file))).collect()
    }

    /// All of it, for a dry run.
    pub fn plan(&self) -> String {
        let mut text = String::new();
        for item in &self.items {
            let several = item.here.len() > 1;
            for here in item.here.iter().take(if several { 0 } else { 1 }) {
                text.push_str(&format!("  {}: {}\n", here.name, here.path.display()));
            }
            if several {
                text.push_str(&format!("  {}: {} files here\n", item.file.name, item.here.len()));
            }
            match &item.rest {
                Rest::Nothing => {}
                Rest::Fetch => {
                    let size = item.file.bytes.map_or(String::new(), |b| format!(", {b} bytes"));
                    let line = format!("fetched from {}{size}", place(item.file));
                    text.push_str(&format!("  {}: {line}\n", item.file.name));
                }
                Rest::ByHand(names) => {
                    let page = item.file.page.as_deref().unwrap_or_default();
                    for name in names {
                        text.push_str(&format!("  {name}: to be fetched by hand from {page}\n"));
                    }
                }
            }
        }
        text
    }
}

/// Where a file is fetched from, in words.
fn place(file: &SourceFile) -> String {
    match (&file.hub, &file.url) {
        (Some(hub), _) => {
            let terms = if hub.gated { " (accept its terms on its page first)" } else { "" };
            format!("the hub's data set {}{terms}", hub.repository)
        }
        (None, Some(url)) => url.split('?').next().unwrap_or(url).to_owned(),
        (None, None) => String::new(),
    }
}
