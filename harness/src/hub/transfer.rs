//! The bytes of a model's file. One kept in Xet is fetched the same way: the hub redirects a client that
//! does not speak Xet to a bridge that sends the whole file.

use std::path::Path;

use reqwest::Url;
use reqwest::header::ETAG;

use super::HubError;
use super::listing::Listing;
use super::token::Token;
use crate::download::{Difference, Digest, DownloadError, Partial, Remote};

/// A file at a commit.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub commit: &'a str,
    pub file: &'a str,
    pub size: u64,
}

impl Listing<'_> {
    /// The ETag that names a file's blob, and what it hashes to by that or by its git object.
    pub fn digest(
        &self,
        wanted: Wanted<'_>,
        git: Option<&str>,
    ) -> Result<(String, Digest), HubError> {
        let url = self.address(wanted.commit, wanted.file);
        let headers = self.download.head(&self.remote(url, wanted), "x-linked-etag");
        let headers = headers.map_err(|error| self.refused(wanted, error))?;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let sent = text("x-linked-etag").or_else(|| text(ETAG.as_str())).unwrap_or_default();
        let etag = sent.strip_prefix("W/").unwrap_or(sent).trim_matches('"');
        // It becomes the name of a file.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let named = !etag.is_empty() && etag.len() <= 128 && etag.chars().all(plain);
        if let Some(digest) = Digest::new(etag, git).filter(|_| named) {
            return Ok((etag.to_owned(), digest));
        }
        let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
        Err(HubError::Unverifiable { reference, file, etag: etag.to_owned() })
    }

    /// Fetches a file to `place`, by way of what is there of it.
    pub fn fetch(
        &self,
        wanted: Wanted<'_>,
        digest: &Digest,
        partial: Partial,
        place: &Path,
    ) -> Result<(), HubError> {
        let url = self.address(wanted.commit, wanted.file);
        let check = |path: &Path| -> std::io::Result<Option<Difference>> {
            digest.difference(path, Some(wanted.size))
        };
        let fetched = self.download.fetch(&self.remote(url, wanted), partial, check);
        let fetched = fetched.map_err(|error| self.refused(wanted, error))?;
        fetched.finish(place).map_err(HubError::io(place))
    }

    fn remote<'b>(&self, url: Url, wanted: Wanted<'b>) -> Remote<'b> {
        Remote {
            name: wanted.file,
            url,
            size: Some(wanted.size),
            secret: self.token.as_ref().and_then(Token::header),
            hashed: true,
            against: "what the hub has",
        }
    }

    /// What a failed download is for a file of the hub.
    fn refused(&self, wanted: Wanted<'_>, error: DownloadError) -> HubError {
        let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
        match error {
            DownloadError::Interrupted => HubError::Interrupted,
            DownloadError::Io { path, source } => HubError::Io { path, source },
            DownloadError::Client(why) => HubError::Other { reference, why },
            DownloadError::Redirects { limit, url } => {
                HubError::Redirects { reference, file, limit, url }
            }
            DownloadError::Answer { status: status @ (401 | 403), own: true, .. } => {
                self.gated(status)
            }
            DownloadError::Answer { status: 404, own: true, .. } => {
                HubError::NoFile { reference, file }
            }
            DownloadError::Answer { xet: true, .. } => HubError::XetOnly { reference, file },
            DownloadError::Answer { url, status, .. } => {
                HubError::Answer { reference, file, url, found: status.to_string() }
            }
            DownloadError::Insecure { url } => {
                HubError::Answer { reference, file, url, found: "without TLS".to_owned() }
            }
            DownloadError::Corrupt { expected, found } => {
                HubError::Corrupt { reference, file, expected, found }
            }
            DownloadError::GaveUp { why, tries, at, .. } => {
                HubError::GaveUp { reference, file, why, tries, at, size: wanted.size }
            }
        }
    }
}
