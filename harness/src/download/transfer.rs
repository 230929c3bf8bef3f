//! The bytes of a file. Every attempt begins at the address where the file is said to be, because what
//! that redirects to may be signed and expire.

use std::io;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, IF_RANGE,
    LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::partial::Origin;
use super::{Difference, DownloadError, Partial};
use crate::http;
use crate::progress::{Bar, Reporter};

/// Attempts that gain no byte, after which it is an error.
const TRIES: u32 = 6;
/// Waits of 0.2, 0.4, 0.8, 1.6 and 3.2 s.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause that a server can ask for with Retry-After.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;

/// A file on a server.
pub(crate) struct Remote<'a> {
    /// Its name in messages.
    pub name: &'a str,
    /// Where it is said to be.
    pub url: Url,
    /// Its size, where that is known.
    pub size: Option<u64>,
    /// `Authorization`, for the origin of `url` alone.
    pub secret: Option<HeaderValue>,
    /// Whether a hash tells the right bytes.
    pub hashed: bool,
    /// What the bytes are held against, for a message: `what the hub has`.
    pub against: &'a str,
}

/// Fetches files.
pub(crate) struct Download<'a> {
    client: Client,
    reporter: &'a Reporter,
}

/// How an attempt failed.
enum Failure {
    /// Worth another attempt, after this pause if the server named one.
    Again(String, Option<Duration>),
    Final(DownloadError),
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}

/// Attempts in a row that gained nothing.
struct Patience<'a> {
    reporter: &'a Reporter,
    name: &'a str,
    tries: u32,
    reached: u64,
}

impl Patience<'_> {
    /// Waits for the next attempt, or gives up.
    async fn pause(
        &mut self,
        failure: Failure,
        at: u64,
        size: Option<u64>,
    ) -> Result<(), DownloadError> {
        let (why, asked) = match failure {
            Failure::Again(why, asked) => (why, asked),
            Failure::Final(error) => return Err(error),
        };
        if at > self.reached {
            (self.reached, self.tries) = (at, 0);
        }
        self.tries += 1;
        if self.tries >= TRIES {
            return Err(DownloadError::GaveUp { why, tries: self.tries, at, size });
        }
        let pause = asked.unwrap_or(FIRST_PAUSE * 2u32.pow(self.tries - 1)).min(LONGEST_PAUSE);
        let (name, seconds) = (self.name, pause.as_secs_f64());
        self.reporter.say(format!("{name}: {why}; on from byte {at} in {seconds:.1} s"));
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl<'a> Download<'a> {
    /// A client for servers like that of `url`.
    pub fn new(url: &Url, reporter: &'a Reporter) -> Result<Self, reqwest::Error> {
        let client = http::client(url.as_str()).redirect(Policy::none()).build()?;
        Ok(Self { client, reporter })
    }

    /// The headers of the first answer to HEAD that is the file or has the header `enough`.
    pub fn head(&self, remote: &Remote<'_>, enough: &str) -> Result<HeaderMap, DownloadError> {
        let mut patience = self.patience(remote, 0);
        run(async {
            loop {
                let failure = match self.ask(Method::HEAD, remote, 0, None, enough).await {
                    Ok(response) => return Ok(response.headers().clone()),
                    Err(failure) => failure,
                };
                patience.pause(failure, 0, remote.size).await?;
            }
        })
    }

    /// Fetches what is missing of a file, until `check` finds no difference. The caller gives the file
    /// its name.
    ///
    /// # Errors
    /// [`DownloadError`]; what is there is kept for another attempt, unless it is of no use.
    pub fn fetch(
        &self,
        remote: &Remote<'_>,
        mut partial: Partial,
        check: impl Fn(&Path) -> io::Result<Option<Difference>>,
    ) -> Result<Partial, DownloadError> {
        let path = partial.path().to_path_buf();
        let io = DownloadError::io(&path);
        // What an earlier attempt left may be wrong, as may be one of several pieces.
        let mut in_pieces = partial.len() > 0;
        loop {
            match self.fill(remote, &mut partial) {
                Ok(pieces) => in_pieces |= pieces > 1,
                // Of no use to a later attempt.
                Err(error @ DownloadError::Corrupt { .. }) => {
                    partial.discard().map_err(&io)?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            partial.sync().map_err(&io)?;
            let Some(Difference { expected, found }) = check(&path).map_err(&io)? else {
                return Ok(partial);
            };
            if !in_pieces {
                partial.discard().map_err(&io)?;
                return Err(DownloadError::Corrupt { expected, found });
            }
            let Remote { name, against, .. } = remote;
            self.reporter.warn(format!("{name} in pieces is not {against}: fetching it whole"));
            partial.restart().map_err(&io)?;
            in_pieces = false;
        }
    }

    /// Fetches what is missing of a file; says in how many pieces.
    fn fill(&self, remote: &Remote<'_>, partial: &mut Partial) -> Result<u32, DownloadError> {
        let mut patience = self.patience(remote, partial.len());
        let mut bar = None;
        run(async {
            let (mut pieces, mut ended) = (0, false);
            while !ended && size(remote, partial).is_none_or(|size| partial.len() < size) {
                pieces += 1;
                match self.attempt(remote, partial, &mut bar).await {
                    Ok(end) => ended = end,
                    Err(failure) => {
                        let size = size(remote, partial);
                        patience.pause(failure, partial.len(), size).await?;
                    }
                }
            }
            Ok(pieces)
        })
    }

    fn patience(&self, remote: &Remote<'a>, reached: u64) -> Patience<'a> {
        Patience { reporter: self.reporter, name: remote.name, tries: 0, reached }
    }

    /// Appends one answer's bytes; whether the file ended where nobody knows its size.
    async fn attempt(
        &self,
        remote: &Remote<'_>,
        partial: &mut Partial,
        bar: &mut Option<Bar>,
    ) -> Result<bool, Failure> {
        let path = partial.path().to_path_buf();
        let io = DownloadError::io(&path);
        if partial.len() > 0 && !remote.hashed && partial.origin().validator().is_none() {
            self.reporter.detail(format!("{}: nothing tells its versions apart", remote.name));
            partial.restart().map_err(&io)?;
        }
        let from = partial.len();
        let validator = partial.origin().validator().map(str::to_owned);
        let mut response = self.ask(Method::GET, remote, from, validator.as_deref(), "").await?;
        let whole = response.status() == StatusCode::OK;
        if whole
            && from > 0
            && let Some(found) = other(remote, &response)
        {
            return Err(Failure::Again(format!("the server sent {found}"), None));
        }
        if from > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            partial.restart().map_err(&io)?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(Failure::Again("the server has no such range".to_owned(), None));
            }
            self.reporter.detail(format!("{}: sent from its beginning again", remote.name));
        } else if from > 0
            && (partial.origin().differs(response.headers())
                || !continues(response.headers(), from, size(remote, partial)))
        {
            partial.restart().map_err(&io)?;
            return Err(Failure::Again("the server sent another range".to_owned(), None));
        }
        let announced = response.content_length();
        if whole {
            let url = remote.url.as_str();
            partial.note(Origin::of(url, response.headers(), announced)).map_err(&io)?;
        }
        let size = size(remote, partial);
        let left = size.map(|size| size - partial.len());
        if let (Some(len), Some(left), Some(size)) = (announced, left, size)
            && (len > left || (whole && len != left))
        {
            return Err(corrupt(size, partial.len() + len).into());
        }
        let bar = bar.get_or_insert_with(|| self.reporter.bytes(remote.name, size.unwrap_or(0)));
        bar.set(partial.len());
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(Failure::Again(http::cause(&error), None)),
            };
            let grown = partial.len() + chunk.len() as u64;
            if let Some(size) = size.filter(|size| grown > *size) {
                return Err(corrupt(size, grown).into());
            }
            partial.append(&chunk).map_err(&io)?;
            bar.set(partial.len());
        }
        match size {
            None => Ok(true),
            Some(size) if partial.len() == size => Ok(false),
            Some(_) if partial.len() > from && !whole => Ok(false),
            Some(_) => Err(Failure::Again("the connection ended early".to_owned(), None)),
        }
    }

    /// Asks for a file, from a byte on, and follows redirects. The answer has status 200, 206 or 416;
    /// or, to HEAD, it is one with the header `enough`.
    async fn ask(
        &self,
        method: Method,
        remote: &Remote<'_>,
        from: u64,
        validator: Option<&str>,
        enough: &str,
    ) -> Result<Response, Failure> {
        let mut url = remote.url.clone();
        for _ in 0..=REDIRECTS {
            let mut request = self.client.request(method.clone(), url.clone());
            // A compressed body has another size.
            request = request.header(ACCEPT_ENCODING, "identity");
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
                if let Some(validator) = validator {
                    request = request.header(IF_RANGE, validator);
                }
            }
            let secret = remote.secret.clone();
            if let Some(secret) = secret.filter(|_| is_own(&remote.url, &url)) {
                request = request.header(AUTHORIZATION, secret);
            }
            let sent = request.send().await;
            let response = sent.map_err(|error| Failure::Again(http::cause(&error), None))?;
            let status = response.status();
            if method == Method::HEAD && response.headers().contains_key(enough) {
                return Ok(response);
            }
            if !status.is_redirection() {
                return accepted(remote, from, response);
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let next = location.and_then(|to| url.join(to).ok());
            let next = next.filter(|url| matches!(url.scheme(), "http" | "https"));
            let Some(next) = next else { return Err(refused(remote, &response).into()) };
            if !remote.hashed && url.scheme() == "https" && next.scheme() == "http" {
                return Err(DownloadError::Insecure { url: shown(&next) }.into());
            }
            url = next;
        }
        Err(DownloadError::Redirects { limit: REDIRECTS, url: shown(&url) }.into())
    }
}

/// What is known of the size: published, else announced when the file began.
fn size(remote: &Remote<'_>, partial: &Partial) -> Option<u64> {
    remote.size.or(partial.origin().size)
}

fn run<T>(work: impl Future<Output = Result<T, DownloadError>>) -> Result<T, DownloadError> {
    let done = http::block_on(work);
    done.map_err(|error| DownloadError::Client(error.to_string()))?
        .ok_or(DownloadError::Interrupted)?
}

/// What an answer announces, if that is surely not the file: nothing to give up bytes for.
fn other(remote: &Remote<'_>, response: &Response) -> Option<String> {
    if let (Some(expected), Some(found)) = (remote.size, response.content_length()) {
        let differ = expected != found;
        return differ.then(|| format!("{found} bytes, expected {expected} or the rest of them"));
    }
    let kind = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    kind.to_ascii_lowercase().starts_with("text/html").then(|| "a web page".to_owned())
}

fn accepted(remote: &Remote<'_>, from: u64, response: Response) -> Result<Response, Failure> {
    match response.status().as_u16() {
        200 => Ok(response),
        206 | 416 if from > 0 => Ok(response),
        status @ (408 | 429 | 500..=599) => {
            let asked = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
            let asked = asked.and_then(|text| pause(text, jiff::Timestamp::now()));
            let why = format!("{} answered {status}", shown(response.url()));
            Err(Failure::Again(why, asked))
        }
        _ => Err(refused(remote, &response).into()),
    }
}

/// An answer that has neither the file nor the way to it.
fn refused(remote: &Remote<'_>, response: &Response) -> DownloadError {
    DownloadError::Answer {
        url: shown(response.url()),
        status: response.status().as_u16(),
        own: is_own(&remote.url, response.url()),
        xet: response.headers().contains_key("x-xet-hash"),
    }
}

fn corrupt(expected: u64, found: u64) -> DownloadError {
    let (expected, found) = (format!("{expected} bytes"), format!("{found} bytes"));
    DownloadError::Corrupt { expected, found }
}

/// What Retry-After asks for: seconds, or a date.
fn pause(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let seconds = until.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Whether an answer to a Range request goes on where it should.
fn continues(headers: &HeaderMap, from: u64, size: Option<u64>) -> bool {
    let parsed = || {
        let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let end: u64 = end.parse().ok()?;
        let total = if total == "*" { size } else { Some(total.parse().ok()?) };
        let fits = total.is_none_or(|total| end < total) && (size.is_none() || total == size);
        Some(start.parse::<u64>().ok()? == from && fits)
    };
    parsed() == Some(true)
}

/// Whether an address is where the file is said to be, which alone gets the token: the same origin, or
/// the same host by TLS.
fn is_own(given: &Url, url: &Url) -> bool {
    let secured = given.scheme() == "http" && url.scheme() == "https";
    let defaults = given.port().is_none() && url.port().is_none();
    given.origin() == url.origin() || (secured && defaults && given.host_str() == url.host_str())
}

/// An address for messages: without a password, and without the query, which may be a signature.
pub(crate) fn shown(url: &Url) -> String {
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
        let holds = |text: &str, size| {
            let headers = HeaderMap::from_iter([(CONTENT_RANGE, text.parse().unwrap())]);
            continues(&headers, 10, size)
        };
        for good in ["bytes 10-99/100", "bytes 10-50/100", "bytes 10-99/*"] {
            assert!(holds(good, Some(100)) && holds(good, None), "{good}");
        }
        assert!(holds("bytes 10-99/101", None));
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
            assert!(!holds(bad, Some(100)), "{bad}");
        }
        assert!(!continues(&HeaderMap::new(), 10, Some(100)));
    }

    #[test]
    fn the_token_is_for_the_given_origin_alone() {
        let url = |text: &str| Url::parse(text).unwrap();
        let hub = url("https://hub.example/mirror");
        assert!(is_own(&hub, &url("https://hub.example/a?b")));
        for other in [
            "http://hub.example/a",
            "https://hub.example:8443/a",
            "https://cdn.hub.example/a",
            "https://hub.example.evil/a",
            "https://evil/hub.example",
        ] {
            assert!(!is_own(&hub, &url(other)), "{other}");
        }
        let plain = url("http://hub.example");
        assert!(is_own(&plain, &url("https://hub.example/a")));
        assert!(!is_own(&plain, &url("https://hub.example:8443/a")));
        assert!(!is_own(&url("http://hub.example:8080"), &url("https://hub.example/a")));
    }

    #[test]
    fn a_server_says_when_to_come_back_in_seconds_or_as_a_date() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let seconds = |text| pause(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Thu, 01 Jan 2026 00:00:07 GMT"), Some(7));
        assert_eq!(seconds("Wed, 31 Dec 2025 23:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let url = Url::parse("https://me:word@cdn/file?Signature=x#y").unwrap();
        assert_eq!(shown(&url), "https://cdn/file");
    }
}
