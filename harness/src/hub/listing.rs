//! What a repository has, as hf-hub tells it.

use std::time::Duration;

use hf_hub::repository::{RepoTreeEntry, RepoTypeDataset, RepoTypeModel};
use hf_hub::{HFClientBuilder, HFClientSync, HFError, HFRepositorySync, split_id};
use reqwest::Url;

use super::layout::is_commit;
use super::token::Token;
use super::{HubError, HubRef};
use crate::download::{Download, LONGEST_PAUSE, shown};
use crate::http;
use crate::progress::Reporter;

/// Waits of 0.2, 0.4 and 0.8 s at most, when the hub is busy or cannot be reached.
const RETRIES: usize = 3;
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often a hub that says when to come back is listened to.
const RATE_WAITS: usize = 3;

/// A repository, and the way to it.
pub(super) struct Listing<'a> {
    client: HFClientSync,
    repository: Repository,
    pub endpoint: Url,
    pub token: Option<Token>,
    pub reference: &'a HubRef,
    pub download: Download<'a>,
    reporter: &'a Reporter,
}

enum Repository {
    Model(HFRepositorySync<RepoTypeModel>),
    DataSet(HFRepositorySync<RepoTypeDataset>),
}

/// What the repository says of one of its files.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub path: String,
    pub size: u64,
    /// Name of the git object, of a file that git itself holds.
    pub git: Option<String>,
}

impl<'a> Listing<'a> {
    pub fn of_model(reference: &'a HubRef, reporter: &'a Reporter) -> Result<Self, HubError> {
        Self::open(reference, reporter, |client, owner, name| {
            Repository::Model(client.model(owner, name))
        })
    }

    pub fn of_data_set(reference: &'a HubRef, reporter: &'a Reporter) -> Result<Self, HubError> {
        Self::open(reference, reporter, |client, owner, name| {
            Repository::DataSet(client.dataset(owner, name))
        })
    }

    fn open(
        reference: &'a HubRef,
        reporter: &'a Reporter,
        repository: impl FnOnce(&HFClientSync, &str, &str) -> Repository,
    ) -> Result<Self, HubError> {
        let other = |why| HubError::Other { reference: reference.clone(), why };
        let address = std::env::var("HF_ENDPOINT").ok().filter(|set| !set.is_empty());
        let address = address.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = Url::parse(&address).ok();
        let endpoint = endpoint.filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = endpoint.ok_or_else(|| {
            other("HF_ENDPOINT is no address: expected http:// or https:// and a host".to_owned())
        })?;
        let token = Token::from_env();
        let broken = |error: reqwest::Error| other(http::cause(&error));
        let built = http::client(endpoint.as_str()).build().map_err(broken)?;
        let download = Download::new(&endpoint, reporter).map_err(broken)?;
        let mut builder = HFClientBuilder::new()
            .endpoint(endpoint.as_str())
            .client(built)
            .cache_dir(hf_hub::resolve_cache_dir())
            .retry_max_attempts(RETRIES)
            .retry_base_delay(RETRY_DELAY);
        if let Some(token) = &token {
            builder = builder.token(token.reveal());
        }
        let client = builder.build_sync().map_err(|error| other(error.to_string()))?;
        let (owner, name) = split_id(&reference.repository);
        let repository = repository(&client, owner, name);
        Ok(Self { client, repository, endpoint, token, reference, download, reporter })
    }

    pub fn client(&self) -> &HFClientSync {
        &self.client
    }

    /// The commit that the revision stands for today.
    pub fn commit(&self) -> Result<String, HubError> {
        let revision = &self.reference.revision;
        if is_commit(revision) {
            return Ok(revision.clone());
        }
        self.asked(|| {
            let only = vec!["sha".to_owned()];
            let sha = match &self.repository {
                Repository::Model(model) => {
                    model.info().revision(revision).expand(only).send()?.sha
                }
                Repository::DataSet(set) => set.info().revision(revision).expand(only).send()?.sha,
            };
            let commit = sha.filter(|sha| is_commit(sha));
            commit.ok_or_else(|| HFError::malformed_response(format!("the commit of {revision}")))
        })
    }

    /// The files of a commit: of a model those at the top, of a data set all.
    pub fn files(&self, commit: &str) -> Result<Vec<Listed>, HubError> {
        let tree = self.asked(|| match &self.repository {
            Repository::Model(model) => model.list_tree().revision(commit).send(),
            Repository::DataSet(set) => set.list_tree().revision(commit).recursive(true).send(),
        })?;
        let file = |entry| match entry {
            RepoTreeEntry::File { oid, size, path, lfs, .. } => {
                Some(Listed { path, size, git: lfs.is_none().then_some(oid) })
            }
            RepoTreeEntry::Directory { .. } => None,
        };
        Ok(tree.into_iter().filter_map(file).collect())
    }

    /// Asks hf-hub, and waits as long as the hub wants it, within bounds.
    fn asked<T>(&self, ask: impl Fn() -> Result<T, HFError>) -> Result<T, HubError> {
        for _ in 0..RATE_WAITS {
            let wait = match ask() {
                Err(HFError::RateLimited { retry_after: Some(wait), .. }) => wait,
                answer => return answer.map_err(|error| self.classify(error)),
            };
            let wait = wait.min(LONGEST_PAUSE);
            self.reporter.say(format!("the hub asks to wait {} s", wait.as_secs()));
            let other = |error: std::io::Error| HubError::Other {
                reference: self.reference.clone(),
                why: error.to_string(),
            };
            http::block_on(async { tokio::time::sleep(wait).await })
                .map_err(other)?
                .ok_or(HubError::Interrupted)?;
        }
        ask().map_err(|error| self.classify(error))
    }

    fn classify(&self, error: HFError) -> HubError {
        let reference = self.reference.clone();
        let status = match &error {
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::RateLimited { context, .. }
            | HFError::Http { context } => context.status.as_u16(),
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => 404,
            _ => 0,
        };
        match (status, error) {
            (401 | 403, _) => self.gated(status),
            (404, _) => HubError::NotFound(reference),
            (408 | 429 | 500..=599, _) => HubError::Unreachable {
                reference,
                why: format!("it answered {status}"),
                cached: String::new(),
            },
            (_, HFError::Request { source, .. }) if !source.is_redirect() => {
                HubError::Unreachable {
                    reference,
                    why: http::cause(&source),
                    cached: String::new(),
                }
            }
            (_, error) => {
                let why = match &error {
                    HFError::Request { source, .. } => http::cause(source),
                    error => error.to_string(),
                };
                let why = self.token.as_ref().map_or(why.clone(), |token| token.hidden_in(&why));
                HubError::Other { reference, why }
            }
        }
    }

    /// What stands between the endpoint and a repository's name in addresses.
    pub fn prefix(&self) -> &'static str {
        match self.repository {
            Repository::Model(_) => "",
            Repository::DataSet(_) => "datasets/",
        }
    }

    /// The refusal of a repository that wants a token.
    pub fn gated(&self, status: u16) -> HubError {
        let repository = self.reference.repository.clone();
        let endpoint = shown(&self.endpoint);
        let page = format!("{}/{}{repository}", endpoint.trim_end_matches('/'), self.prefix());
        HubError::Gated { repository, page, status }
    }

    /// Where a file of a commit is sent from.
    pub fn address(&self, commit: &str, file: &str) -> Url {
        let mut url = self.endpoint.clone();
        // An endpoint is http or https, whose addresses have segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            let prefix = self.prefix().split('/').filter(|part| !part.is_empty());
            segments.pop_if_empty().extend(prefix);
            segments.extend(self.reference.repository.split('/'));
            segments.extend(["resolve", commit]).extend(file.split('/'));
        }
        url
    }
}
