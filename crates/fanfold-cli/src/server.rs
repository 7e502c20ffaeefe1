//! The server's URL, and the proxy to reach it.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use ureq::http::Uri;

/// How to write a URL: the end of each error.
const EXAMPLES: &str = "write it as http://127.0.0.1:8080 or https://api.example.com/stage";

/// The argument that names the server.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Where the API is: `host:port`, or a URL, which may have a path before the API's own.
    #[arg(long, env = "FANFOLD_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: BaseUrl,
    /// Sign requests for this region of AWS, as operators' routes there need it, and an API with
    /// `AWS_IAM`. The credentials are those in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`.
    #[arg(long, env = "FANFOLD_SIGN", value_name = "REGION")]
    pub(crate) sign: Option<String>,
}

/// The URL that precedes the API's paths, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    url: String,
    uri: Uri,
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let with_scheme = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let url = with_scheme.trim_end_matches('/').to_owned();
        let uri: Uri = url.parse().map_err(|error| format!("{error}: {EXAMPLES}"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            scheme => {
                return Err(format!(
                    "the scheme `{}` is unknown: {EXAMPLES}",
                    scheme.unwrap_or("")
                ));
            }
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| format!("it names no host: {EXAMPLES}"))?;
        let behind = authority.as_str().rsplit_once(authority.host()).map_or("", |(_, port)| port);
        if !behind.is_empty() && authority.port_u16().is_none() {
            return Err(format!("`{behind}` is not a port: {EXAMPLES}"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(format!("it must end before `?` and `#`: {EXAMPLES}"));
        }
        Ok(Self { url, uri })
    }
}

impl BaseUrl {
    /// The URL.
    pub(crate) fn as_str(&self) -> &str {
        &self.url
    }

    /// The proxy that the environment names for this server; `variable` reads a variable. As in
    /// curl, it is `http_proxy` or `https_proxy`, then `all_proxy`, each in lower or upper case,
    /// unless `no_proxy` names the host. This machine itself is never asked through a proxy.
    pub(crate) fn proxy(&self, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let read = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_ascii_uppercase()));
            value.filter(|value| !value.trim().is_empty())
        };
        let host = self.uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if is_this_machine(&host) || read("no_proxy").is_some_and(|list| is_named(&host, &list)) {
            return None;
        }
        let of_scheme =
            if self.uri.scheme_str() == Some("https") { "https_proxy" } else { "http_proxy" };
        read(of_scheme).or_else(|| read("all_proxy"))
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified())
}

/// Whether a list such as `example.com,.internal,10.0.0.7` has the host, or a domain that it is in.
fn is_named(host: &str, list: &str) -> bool {
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let in_domain = || host.strip_suffix(&entry).is_some_and(|rest| rest.ends_with('.'));
        entry == "*" || host == entry || in_domain()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_lack_its_scheme_and_have_a_path() {
        for (text, url) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("localhost:8080", "http://localhost:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("api.example.com", "http://api.example.com"),
            (" https://api.example.com/stage/v1// ", "https://api.example.com/stage/v1"),
        ] {
            assert_eq!(text.parse::<BaseUrl>().expect(text).as_str(), url);
        }
        for (text, says) in [
            ("", "127.0.0.1:8080"),
            ("ftp://a", "scheme `ftp`"),
            ("http://", "127.0.0.1:8080"),
            ("http://a/?b=c", "before `?`"),
            ("http://a/#b", "before `?`"),
            ("http://a b", "127.0.0.1:8080"),
            ("http://a:port", "127.0.0.1:8080"),
        ] {
            let error = text.parse::<BaseUrl>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_environment_names_the_proxy_but_never_for_this_machine() {
        let all = [("HTTP_PROXY", "http://p:1"), ("HTTPS_PROXY", "http://p:2")];
        let of_scheme = [("http_proxy", "http://p:3"), ("ALL_PROXY", "http://p:4")];
        let but = |no_proxy| [("all_proxy", "http://p:5"), ("NO_PROXY", no_proxy)];
        let check = |variables: &[(&str, &str)], url: &str, expected: Option<&str>| {
            let base: BaseUrl = url.parse().expect(url);
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(base.proxy(variable).as_deref(), expected, "{url} {variables:?}");
        };
        for url in ["localhost:1", "127.0.0.1:1", "127.9.9.9", "[::1]:1", "http://a.localhost"] {
            check(&all, url, None);
        }
        check(&all, "http://example.com", Some("http://p:1"));
        check(&all, "https://example.com", Some("http://p:2"));
        check(&of_scheme, "http://10.0.0.7:80", Some("http://p:3"));
        check(&of_scheme, "https://example.com", Some("http://p:4"));
        check(&[], "http://example.com", None);
        check(&[("http_proxy", "")], "http://example.com", None);
        for no_proxy in ["*", "example.com", ".example.com", "*.example.com", "a, EXAMPLE.com"] {
            check(&but(no_proxy), "http://api.example.com", None);
        }
        check(&but("example.com"), "http://example.com", None);
        check(&but("example.com"), "http://badexample.com", Some("http://p:5"));
        check(&but("api"), "http://example.com", Some("http://p:5"));
    }
}
