//! Files of a data set repository. They are kept by whoever asks for them, not in the cache of models.

use std::path::Path;

use super::listing::{Listed, Listing};
use super::transfer::Wanted;
use super::{HubError, HubRef};
use crate::download::{Difference, Partial};
use crate::progress::Reporter;

/// A data set repository at a commit.
pub(crate) struct DataSet<'a> {
    listing: Listing<'a>,
    /// The commit that the revision stands for.
    pub commit: String,
    /// Its files, by path.
    pub files: Vec<Listed>,
}

impl<'a> DataSet<'a> {
    /// Asks the hub what the repository has.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn open(reference: &'a HubRef, reporter: &'a Reporter) -> Result<Self, HubError> {
        let listing = Listing::of_data_set(reference, reporter)?;
        let commit = listing.commit()?;
        let mut files = listing.files(&commit)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { listing, commit, files })
    }

    /// Where a file is sent from; the same for the same commit.
    pub fn address(&self, file: &Listed) -> String {
        self.listing.address(&self.commit, &file.path).to_string()
    }

    /// What a file hashes to, as `ALGORITHM:DIGITS`, and how the one that is here differs.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn compare(
        &self,
        file: &Listed,
        here: &Path,
    ) -> Result<(String, Option<Difference>), HubError> {
        let wanted = Wanted { commit: &self.commit, file: &file.path, size: file.size };
        let (_, digest) = self.listing.digest(wanted, file.git.as_deref())?;
        let found = digest.difference(here, Some(file.size)).map_err(HubError::io(here))?;
        Ok((digest.to_string(), found))
    }

    /// Fetches a file to `place` by way of `partial`, which a later attempt continues; returns what it hashes
    /// to, as `ALGORITHM:DIGITS`.
    ///
    /// # Errors
    /// [`HubError`]; nothing is then at `place`.
    pub fn fetch(&self, file: &Listed, partial: &Path, place: &Path) -> Result<String, HubError> {
        let wanted = Wanted { commit: &self.commit, file: &file.path, size: file.size };
        let opened = Partial::noted(partial, &self.address(file)).map_err(HubError::io(partial))?;
        let (_, digest) = self.listing.digest(wanted, file.git.as_deref())?;
        self.listing.fetch(wanted, &digest, opened, place)?;
        Ok(digest.to_string())
    }
}
