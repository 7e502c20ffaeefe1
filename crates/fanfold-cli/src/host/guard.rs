//! Refuses requests that web pages of other origins make a browser send.
//!
//! A browser on the same machine reaches a host on loopback, and lets every page send it requests.
//! It marks these requests with `Origin` and `Sec-Fetch-Site`, which the guard checks. A page can
//! also make its own name mean 127.0.0.1 after it was loaded (DNS rebinding). Its requests then
//! have that name as their host, so the guard checks the host, too.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Request, Version};
use fanfold_http::problem::{Kind, Problem};

/// W3C, Fetch Metadata Request Headers.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The hosts that requests may name.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// `None` if requests may name any host.
    hosts: Option<Hosts>,
}

#[derive(Debug, Clone)]
struct Hosts {
    names: Vec<String>,
    is_loopback: bool,
}

impl Guard {
    /// The guard of a host that listens on this address and also has these names, such as those of
    /// a proxy. If the address is not loopback and there are no names, requests may name any host.
    pub(super) fn new(listens: SocketAddr, names: &[HostName]) -> Self {
        let is_loopback = listens.ip().to_canonical().is_loopback();
        let names: Vec<String> = names.iter().map(|name| name.0.clone()).collect();
        let is_known = is_loopback || !names.is_empty();
        Self { hosts: is_known.then_some(Hosts { names, is_loopback }) }
    }

    /// Refuses a request for a foreign host, or from a page of another origin.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let headers = request.headers();
        let host = host(headers, request.version())?;
        let target = request.uri().authority();
        for authority in host.iter().chain(target) {
            self.check_host(authority)?;
        }
        check_origin(headers, target.or(host.as_ref()))
    }

    fn check_host(&self, authority: &Authority) -> Result<(), Problem> {
        let name = authority.host();
        let is_ours = self.hosts.as_ref().is_none_or(|hosts| {
            let is_local = match ip(name) {
                // DNS rebinding needs a name, so an address is trusted.
                Some(ip) => ip.to_canonical().is_loopback() || !hosts.is_loopback,
                None => name.eq_ignore_ascii_case("localhost"),
            };
            is_local || hosts.names.iter().any(|known| known.eq_ignore_ascii_case(name))
        });
        if is_ours {
            return Ok(());
        }
        let detail = format!(
            "`host`: `{name}` is not a name of this host: use 127.0.0.1 or localhost, or start it \
             with `--host {name}` if a proxy passes requests for that name"
        );
        Err(Problem::new(Kind::FOREIGN_HOST, detail))
    }
}

/// The address that a host's name is, if it is one; an IPv6 address has brackets.
fn ip(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(name).parse().ok()
}

/// The host that the request names. HTTP/1.1 requires exactly one (RFC 9112, 3.2).
fn host(headers: &HeaderMap, version: Version) -> Result<Option<Authority>, Problem> {
    let bad = |why: &str| Err(Problem::new(Kind::BAD_HOST, format!("`host`: {why}")));
    let mut all = headers.get_all(HOST).iter();
    match (all.next(), all.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(None),
        (None, _) => bad("the header is missing"),
        (Some(_), Some(_)) => bad("the header is given twice"),
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(host) if is_name_and_port(&host) => Ok(Some(host)),
            _ => bad("must be the name of a host, or name and port"),
        },
    }
}

/// Whether it is a name, perhaps with a port, which may be empty (RFC 9110, 7.2).
fn is_name_and_port(host: &Authority) -> bool {
    let (text, name) = (host.as_str(), host.host());
    let behind = text.strip_prefix(name).unwrap_or(text);
    matches!(behind, "" | ":") || host.port_u16().is_some() && !text.contains('@')
}

/// Refuses a request from a web page, unless the page is of this host.
fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Problem> {
    let foreign = |what: String| {
        let detail = format!(
            "{what}: a web page of another origin may not use this host: let the page's own server \
             send the request, or a proxy of the same origin"
        );
        Err(Problem::new(Kind::FOREIGN_ORIGIN, detail))
    };
    for origin in headers.get_all(ORIGIN) {
        let text = String::from_utf8_lossy(origin.as_bytes());
        if !host.is_some_and(|host| is_of(&text, host)) {
            return foreign(format!("`origin`: is `{text}`"));
        }
    }
    for site in headers.get_all(SEC_FETCH_SITE) {
        // `none`: a person has typed the address. `same-site`: a page of another port.
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            let text = String::from_utf8_lossy(site.as_bytes());
            return foreign(format!("`sec-fetch-site`: is `{text}`"));
        }
    }
    Ok(())
}

/// Whether `origin` is that of `host`, perhaps behind a proxy that adds TLS.
fn is_of(origin: &str, host: &Authority) -> bool {
    let (authority, port) = match origin.split_once("://") {
        Some(("http", authority)) => (authority, 80),
        Some(("https", authority)) => (authority, 443),
        _ => return false,
    };
    Authority::from_str(authority).is_ok_and(|origin| {
        origin.host().eq_ignore_ascii_case(host.host())
            && origin.port_u16().unwrap_or(port) == host.port_u16().unwrap_or(port)
    })
}

/// The name of a host, without a port.
#[derive(Debug, Clone)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Authority::from_str(text) {
            Ok(authority) if authority.host() == text => Ok(Self(text.to_owned())),
            _ => Err("must be the name of a host, without scheme and port".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(listens: &str, names: &[&str]) -> Guard {
        let names: Vec<HostName> =
            names.iter().map(|name| name.parse().expect("it is a name")).collect();
        Guard::new(listens.parse().expect("it is an address"), &names)
    }

    #[track_caller]
    fn check(guard: &Guard, headers: &[(&str, &str)], expected: Result<(), Kind>) {
        let mut request = Request::builder().uri("/command");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let checked = guard.check(&request.body(()).expect("it is a request"));
        let expected = expected.map_err(|kind| kind.status);
        assert_eq!(checked.map_err(|problem| problem.status()), expected, "{headers:?}");
    }

    #[test]
    fn on_loopback_only_requests_for_loopback_or_a_given_name_are_served() {
        let guard = guard("127.0.0.1:8080", &["app.example"]);
        for host in [
            "localhost",
            "LocalHost:1",
            "127.0.0.1:8080",
            "127.9.8.7",
            "[::1]:8080",
            "[::1]",
            "[::ffff:127.0.0.1]:80",
            "app.example",
            "APP.example:443",
        ] {
            check(&guard, &[("host", host)], Ok(()));
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "10.0.0.1",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "2130706433",
        ] {
            check(&guard, &[("host", host)], Err(Kind::FOREIGN_HOST));
        }
        for host in [
            "",
            "a b",
            "ann@localhost",
            "ann@localhost:80",
            "http://localhost",
            "localhost:x",
            "localhost:65536",
        ] {
            check(&guard, &[("host", host)], Err(Kind::BAD_HOST));
        }
        check(&guard, &[], Err(Kind::BAD_HOST));
        check(&guard, &[("host", "localhost"), ("host", "localhost")], Err(Kind::BAD_HOST));
    }

    #[test]
    fn on_another_address_the_host_is_checked_only_if_names_are_given() {
        check(&guard("0.0.0.0:8080", &[]), &[("host", "anything.example")], Ok(()));
        let named = guard("10.0.0.7:8080", &["app.example"]);
        for host in ["app.example", "10.0.0.7:8080", "203.0.113.9", "localhost"] {
            check(&named, &[("host", host)], Ok(()));
        }
        check(&named, &[("host", "evil.example")], Err(Kind::FOREIGN_HOST));
    }

    #[test]
    fn the_host_in_an_absolute_target_is_checked_too() {
        let guard = guard("[::1]:8080", &[]);
        for (target, host, version, is_fine) in [
            ("http://localhost:8080/command", "localhost", Version::HTTP_11, true),
            ("http://evil.example/command", "localhost", Version::HTTP_11, false),
            ("http://localhost/command", "evil.example", Version::HTTP_11, false),
            ("/command", "", Version::HTTP_10, true),
        ] {
            let mut request = Request::builder().uri(target).version(version);
            if !host.is_empty() {
                request = request.header("host", host);
            }
            let request = request.body(()).expect("it is a request");
            assert_eq!(guard.check(&request).is_ok(), is_fine, "{target} {host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let guard = guard("127.0.0.1:8080", &["app.example"]);
        for (host, more, is_fine) in [
            ("localhost:8080", ("origin", "http://localhost:8080"), true),
            ("127.0.0.1:8080", ("origin", "http://127.0.0.1:8080"), true),
            ("app.example", ("origin", "https://app.example"), true),
            ("app.example", ("origin", "http://app.example:80"), true),
            ("app.example", ("origin", "https://app.example:444"), false),
            ("localhost:8080", ("origin", "http://localhost:3000"), false),
            ("localhost:8080", ("origin", "http://127.0.0.1:8080"), false),
            ("localhost:8080", ("origin", "https://evil.example"), false),
            ("localhost:8080", ("origin", "null"), false),
            ("localhost:8080", ("origin", ""), false),
            ("localhost:8080", ("origin", "file://"), false),
            ("localhost:8080", ("sec-fetch-site", "same-origin"), true),
            ("localhost:8080", ("sec-fetch-site", "none"), true),
            ("localhost:8080", ("sec-fetch-site", "cross-site"), false),
            ("localhost:8080", ("sec-fetch-site", "same-site"), false),
        ] {
            let expected = if is_fine { Ok(()) } else { Err(Kind::FOREIGN_ORIGIN) };
            check(&guard, &[("host", host), more], expected);
        }
        // The origin is checked even if requests may name any host.
        let guard = Guard::default();
        let headers = [("host", "a.example"), ("origin", "https://evil.example")];
        check(&guard, &headers, Err(Kind::FOREIGN_ORIGIN));
    }
}
