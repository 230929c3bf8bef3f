//! The bytes of a file, over plain HTTP.
//!
//! Every attempt begins at the hub's `resolve` address, because what it redirects to is signed and
//! expires. A file kept in Xet is fetched the same way: the hub redirects a client that does not
//! speak Xet to a bridge that sends the whole file.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::partial::Partial;
use super::token::Token;
use super::{HubError, HubRef, gated};
use crate::http;
use crate::progress::{Bar, Reporter};

/// Attempts that gain no byte, after which it is an error.
const TRIES: u32 = 6;
/// Waits of 0.2, 0.4, 0.8, 1.6 and 3.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause that a server can ask for with Retry-After.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;

pub(super) struct Transfer<'a> {
    client: Client,
    endpoint: Url,
    token: Option<Token>,
    reference: &'a HubRef,
    reporter: &'a Reporter,
}

/// A file at a commit.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub commit: &'a str,
    pub file: &'a str,
    pub size: u64,
}

/// How an attempt failed.
enum Failure {
    /// Worth another attempt, after this pause if the server named one.
    Again(String, Option<Duration>),
    Final(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Attempts in a row that gained nothing.
struct Patience<'a> {
    transfer: &'a Transfer<'a>,
    wanted: Wanted<'a>,
    tries: u32,
    reached: u64,
}

impl Patience<'_> {
    /// Waits for the next attempt, or gives up.
    async fn pause(&mut self, failure: Failure, at: u64) -> Result<(), HubError> {
        let (why, asked) = match failure {
            Failure::Again(why, asked) => (why, asked),
            Failure::Final(error) => return Err(error),
        };
        if at > self.reached {
            (self.reached, self.tries) = (at, 0);
        }
        self.tries += 1;
        let Wanted { file, size, .. } = self.wanted;
        let Transfer { reference, reporter, .. } = self.transfer;
        if self.tries >= TRIES {
            let (reference, file) = ((*reference).clone(), file.to_owned());
            return Err(HubError::GaveUp { reference, file, why, tries: self.tries, at, size });
        }
        let pause = asked.unwrap_or(FIRST_PAUSE * 2u32.pow(self.tries - 1)).min(LONGEST_PAUSE);
        let seconds = pause.as_secs_f64();
        reporter.say(format!("{file}: {why}; on from byte {at} in {seconds:.1} s"));
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl<'a> Transfer<'a> {
    pub fn new(
        endpoint: Url,
        token: Option<Token>,
        reference: &'a HubRef,
        reporter: &'a Reporter,
    ) -> Result<Self, reqwest::Error> {
        let client = http::client(endpoint.as_str()).redirect(Policy::none()).build()?;
        Ok(Self { client, endpoint, token, reference, reporter })
    }

    /// The ETag that names a file's blob.
    pub fn etag(&self, wanted: Wanted<'_>) -> Result<String, HubError> {
        let mut patience = self.patience(wanted);
        self.run(async {
            loop {
                let failure = match self.ask(Method::HEAD, wanted, 0).await {
                    Ok(response) => return self.named(wanted, &response),
                    Err(failure) => failure,
                };
                patience.pause(failure, 0).await?;
            }
        })
    }

    /// Fetches what is missing of a file; says in how many pieces.
    pub fn fill(
        &self,
        wanted: Wanted<'_>,
        partial: &mut Partial,
        bar: &Bar,
    ) -> Result<u32, HubError> {
        let mut patience = self.patience(wanted);
        patience.reached = partial.len();
        self.run(async {
            let mut pieces = 0;
            while partial.len() < wanted.size {
                pieces += 1;
                if let Err(failure) = self.attempt(wanted, partial, bar).await {
                    patience.pause(failure, partial.len()).await?;
                }
            }
            Ok(pieces)
        })
    }

    fn patience<'b>(&'b self, wanted: Wanted<'b>) -> Patience<'b> {
        Patience { transfer: self, wanted, tries: 0, reached: 0 }
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, HubError>>) -> Result<T, HubError> {
        let (reference, io) = (self.reference.clone(), http::block_on(work));
        io.map_err(|error| HubError::Other { reference, why: error.to_string() })?
            .ok_or(HubError::Interrupted)?
    }

    fn named(&self, wanted: Wanted<'_>, response: &Response) -> Result<String, HubError> {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let sent = text("x-linked-etag").or_else(|| text(ETAG.as_str())).unwrap_or_default();
        let etag = sent.strip_prefix("W/").unwrap_or(sent).trim_matches('"');
        // It becomes the name of a file.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !etag.is_empty() && etag.len() <= 128 && etag.chars().all(plain) {
            return Ok(etag.to_owned());
        }
        let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
        Err(HubError::Unverifiable { reference, file, etag: etag.to_owned() })
    }

    async fn attempt(
        &self,
        wanted: Wanted<'_>,
        partial: &mut Partial,
        bar: &Bar,
    ) -> Result<(), Failure> {
        let path = partial.path().to_path_buf();
        let io = HubError::io(&path);
        let from = partial.len();
        let mut response = self.ask(Method::GET, wanted, from).await?;
        if from > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            partial.restart().map_err(&io)?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(Failure::Again("the server has no such range".to_owned(), None));
            }
            self.reporter.detail(format!("{}: sent from its beginning again", wanted.file));
        } else if from > 0 && !continues(response.headers(), from, wanted.size) {
            partial.restart().map_err(&io)?;
            return Err(Failure::Again("the server sent another range".to_owned(), None));
        }
        let left = wanted.size - partial.len();
        let announced = response.content_length();
        let whole = response.status() == StatusCode::OK;
        if let Some(len) = announced.filter(|len| *len > left || (whole && *len != left)) {
            return Err(self.corrupt(wanted, partial.len() + len).into());
        }
        bar.set(partial.len());
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(Failure::Again(http::cause(&error), None)),
            };
            if partial.len() + chunk.len() as u64 > wanted.size {
                return Err(self.corrupt(wanted, partial.len() + chunk.len() as u64).into());
            }
            partial.append(&chunk).map_err(&io)?;
            bar.set(partial.len());
        }
        match partial.len() {
            at if at == wanted.size => Ok(()),
            at if at > from && !whole => Ok(()),
            _ => Err(Failure::Again("the connection ended early".to_owned(), None)),
        }
    }

    /// Asks the hub for a file, from a byte on, and follows redirects. The answer has status 200,
    /// 206 or 416; or, to HEAD, it is the redirect that says what the file is.
    async fn ask(
        &self,
        method: Method,
        wanted: Wanted<'_>,
        from: u64,
    ) -> Result<Response, Failure> {
        let mut url = self.address(wanted);
        for _ in 0..=REDIRECTS {
            let mut request = self.client.request(method.clone(), url.clone());
            // A compressed body has another size.
            request = request.header(ACCEPT_ENCODING, "identity");
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let secret = self.token.as_ref().and_then(Token::header);
            if let Some(secret) = secret.filter(|_| is_hub(&self.endpoint, &url)) {
                request = request.header(AUTHORIZATION, secret);
            }
            let sent = request.send().await;
            let response = sent.map_err(|error| Failure::Again(http::cause(&error), None))?;
            let status = response.status();
            if method == Method::HEAD && response.headers().contains_key("x-linked-etag") {
                return Ok(response);
            }
            if !status.is_redirection() {
                return self.accepted(wanted, from, response);
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let next = location.and_then(|to| url.join(to).ok());
            match next.filter(|url| matches!(url.scheme(), "http" | "https")) {
                Some(next) => url = next,
                None => return Err(self.refused(wanted, &response).into()),
            }
        }
        let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
        let url = shown(&url);
        Err(HubError::Redirects { reference, file, limit: REDIRECTS, url }.into())
    }

    fn accepted(
        &self,
        wanted: Wanted<'_>,
        from: u64,
        response: Response,
    ) -> Result<Response, Failure> {
        let status = response.status().as_u16();
        let of_hub = is_hub(&self.endpoint, response.url());
        match status {
            200 => Ok(response),
            206 | 416 if from > 0 => Ok(response),
            401 | 403 if of_hub => {
                Err(gated(&self.reference.repository, &self.endpoint, status).into())
            }
            404 if of_hub => {
                let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
                Err(HubError::NoFile { reference, file }.into())
            }
            408 | 429 | 500..=599 => {
                let asked = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
                let asked = asked.and_then(|text| text.trim().parse().ok());
                let why = format!("{} answered {status}", shown(response.url()));
                Err(Failure::Again(why, asked.map(Duration::from_secs)))
            }
            _ => Err(self.refused(wanted, &response).into()),
        }
    }

    /// An answer that has neither the file nor the way to it.
    fn refused(&self, wanted: Wanted<'_>, response: &Response) -> HubError {
        let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
        if response.headers().contains_key("x-xet-hash") {
            return HubError::XetOnly { reference, file };
        }
        let found = format!("{}", response.status().as_u16());
        HubError::Answer { reference, file, url: shown(response.url()), found }
    }

    fn corrupt(&self, wanted: Wanted<'_>, found: u64) -> HubError {
        let (reference, file) = (self.reference.clone(), wanted.file.to_owned());
        let (expected, found) = (format!("{} bytes", wanted.size), format!("{found} bytes"));
        HubError::Corrupt { reference, file, expected, found }
    }

    fn address(&self, wanted: Wanted<'_>) -> Url {
        let mut url = self.endpoint.clone();
        // An endpoint is http or https, whose addresses have segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(self.reference.repository.split('/'));
            segments.extend(["resolve", wanted.commit, wanted.file]);
        }
        url
    }
}

/// Whether an answer to a Range request goes on where it should.
fn continues(headers: &HeaderMap, from: u64, size: u64) -> bool {
    let parsed = || {
        let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let end: u64 = end.parse().ok()?;
        let total = if total == "*" { size } else { total.parse().ok()? };
        Some(start.parse::<u64>().ok()? == from && end < size && total == size)
    };
    parsed() == Some(true)
}

/// Whether an address is the hub's own, which alone gets the token: the endpoint's host, or the same
/// host by TLS.
fn is_hub(endpoint: &Url, url: &Url) -> bool {
    let secured = endpoint.scheme() == "http" && url.scheme() == "https";
    let defaults = endpoint.port().is_none() && url.port().is_none();
    endpoint.origin() == url.origin()
        || (secured && defaults && endpoint.host_str() == url.host_str())
}

/// An address for messages: without a password, and without the query, which may be a signature.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_next_byte_continues_a_file() {
        let holds = |text: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, text.parse().unwrap())]);
            continues(&headers, 10, 100)
        };
        assert!(holds("bytes 10-99/100") && holds("bytes 10-50/100") && holds("bytes 10-99/*"));
        for bad in [
            "bytes 0-99/100",
            "bytes 11-99/100",
            "bytes 10-100/100",
            "bytes 10-99/101",
            "bytes */100",
            "10-99/100",
            "bytes 10-99",
            "",
        ] {
            assert!(!holds(bad), "{bad}");
        }
        assert!(!continues(&HeaderMap::new(), 10, 100));
    }

    #[test]
    fn the_token_is_for_the_endpoint_alone() {
        let url = |text: &str| Url::parse(text).unwrap();
        let hub = url("https://hub.example/mirror");
        assert!(is_hub(&hub, &url("https://hub.example/a?b")));
        for other in [
            "http://hub.example/a",
            "https://hub.example:8443/a",
            "https://cdn.hub.example/a",
            "https://hub.example.evil/a",
            "https://evil/hub.example",
        ] {
            assert!(!is_hub(&hub, &url(other)), "{other}");
        }
        let plain = url("http://hub.example");
        assert!(is_hub(&plain, &url("https://hub.example/a")));
        assert!(!is_hub(&plain, &url("https://hub.example:8443/a")));
        assert!(!is_hub(&url("http://hub.example:8080"), &url("https://hub.example/a")));
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let url = Url::parse("https://me:word@cdn/file?Signature=x#y").unwrap();
        assert_eq!(shown(&url), "https://cdn/file");
    }
}
