//! What the cache has without the hub.

use std::path::PathBuf;

use hf_hub::HFError;
use hf_hub::cache::{CachedRepoInfo, CachedRevisionInfo};

use super::layout::Layout;
use super::{CONFIG, HubError, SINGLE, Session, Snapshot};
use crate::download::{Difference, Digest};

/// Repositories that a message names at most.
const NAMED: usize = 5;

impl Session<'_> {
    /// The revision as the cache knows it, with every file hashed; `None` unless all of it is there.
    pub(super) fn cached(&self) -> Result<Option<Snapshot>, HubError> {
        let Some(commit) = self.layout.commit(&self.reference.revision) else { return Ok(None) };
        let Ok(files) = self.files(&commit)? else { return Ok(None) };
        for file in files {
            let path = self.layout.pointer(&commit, &file);
            // A name that says nothing of the bytes was checked when they came.
            let Some(digest) = Layout::etag(&path).and_then(|etag| Digest::new(&etag, None)) else {
                continue;
            };
            let difference = digest.difference(&path, None).map_err(HubError::io(&path))?;
            if let Some(Difference { expected, found }) = difference {
                return Err(HubError::Damaged { path, expected, found });
            }
        }
        Ok(Some(Snapshot { folder: self.layout.snapshot(&commit), commit }))
    }

    /// The files that make a backbone, or the first of them that is not there.
    fn files(&self, commit: &str) -> Result<Result<Vec<String>, String>, HubError> {
        let there = |file: &str| -> Option<PathBuf> {
            Some(self.layout.pointer(commit, file)).filter(|path| path.is_file())
        };
        let mut files = Vec::new();
        match there(CONFIG) {
            None if self.with_config => return Ok(Err(CONFIG.to_owned())),
            None => {}
            Some(_) => files.push(CONFIG.to_owned()),
        }
        match self.shards(|file| Ok(there(file)))? {
            None => return Ok(Err(SINGLE.to_owned())),
            Some(shards) if shards.is_empty() => {
                let single = if there(SINGLE).is_some() { SINGLE } else { super::PICKLED };
                files.push(single.to_owned());
            }
            Some(shards) => {
                files.push(super::INDEX.to_owned());
                files.extend(shards);
            }
        }
        let missing = files.iter().find(|file| there(file).is_none()).cloned();
        Ok(missing.map_or(Ok(files), Err))
    }

    /// In words, what is cached of the repository, else which repositories are.
    pub(super) fn in_cache(&self) -> String {
        let scanned =
            self.listing.client().scan_cache().send().map_err(|error: HFError| error.to_string());
        let repositories = match scanned {
            Ok(scanned) => scanned.repos,
            Err(why) => return format!("the cache cannot be listed: {why}"),
        };
        let name = &self.reference.repository;
        let models = repositories.iter().filter(|found| found.repo_type == "model");
        let (this, others): (Vec<_>, Vec<_>) = models
            .filter(|found| !found.revisions.is_empty())
            .partition(|found| found.repo_id == *name);
        match this.first() {
            Some(found) => format!("of {name} the cache has {}", self.revisions(found)),
            None => match listed(others.iter().map(|found| found.repo_id.clone()).collect()) {
                Some(names) => format!("the cache has nothing of it, but {names}"),
                None => "the cache has no models".to_owned(),
            },
        }
    }

    fn revisions(&self, found: &CachedRepoInfo) -> String {
        let one = |revision: &CachedRevisionInfo| {
            let commit = &revision.commit_hash;
            let mut refs = revision.refs.clone();
            refs.sort();
            let refs =
                if refs.is_empty() { String::new() } else { format!(" ({})", refs.join(", ")) };
            match self.files(commit) {
                Ok(Ok(_)) => format!("commit {commit}{refs}"),
                Ok(Err(missing)) => format!("commit {commit}{refs} without {missing}"),
                Err(_) => format!("commit {commit}{refs} with an unusable index"),
            }
        };
        listed(found.revisions.iter().map(one).collect()).unwrap_or_default()
    }
}

/// Sorted and shortened; `None` of nothing.
fn listed(mut names: Vec<String>) -> Option<String> {
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}
