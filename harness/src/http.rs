//! What every request over the network shares: one kind of client, waits that Ctrl-C ends, causes
//! in words.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};

use crate::interrupt;

const CONNECT: Duration = Duration::from_secs(20);
/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);
/// How often Ctrl-C is looked for.
const POLL: Duration = Duration::from_millis(100);

/// A client that goes through the proxies that the environment names, but for servers on this
/// machine, which no proxy can reach.
pub(crate) fn client(url: &str) -> ClientBuilder {
    let agent = concat!("pixio-eval/", env!("CARGO_PKG_VERSION"));
    let builder =
        Client::builder().user_agent(agent).connect_timeout(CONNECT).read_timeout(SILENCE);
    let here = Url::parse(url)
        .is_ok_and(|url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")));
    if here { builder.no_proxy() } else { builder }
}

/// Runs the work on this thread; `None` once Ctrl-C was pressed.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut work = Box::pin(work);
        loop {
            match tokio::time::timeout(POLL, &mut work).await {
                Ok(done) => return Ok(Some(done)),
                Err(_) if interrupt::requested() => return Ok(None),
                Err(_) => {}
            }
        }
    })
}

/// Which request failed is known; only the end of reqwest's chain says why.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An address, with what stands before its path replaced by the mirror's.
pub(crate) fn mirrored(url: &str, mirror: Option<&str>) -> String {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    match (mirror, path) {
        (Some(mirror), Some((_, path))) => format!("{}/{path}", mirror.trim_end_matches('/')),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_stands_before_the_path() {
        let url = "https://host/a/b.txt";
        assert_eq!(mirrored(url, None), url);
        assert_eq!(mirrored(url, Some("http://mirror:8080/x/")), "http://mirror:8080/x/a/b.txt");
        let url = "https://host/a/b.zip?download=1";
        assert_eq!(mirrored(url, None), url);
        let there = mirrored(url, Some("http://mirror:80/x/"));
        assert_eq!(there, "http://mirror:80/x/a/b.zip?download=1");
    }
}
