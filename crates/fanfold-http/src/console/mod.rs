//! The console for operators: one page at `/console`, with its scripts and styles below it. They are part of the program,
//! need no build step, and load nothing from elsewhere.
//!
//! The page reads and changes what any other client of the host's routes can, and nothing else. Its addresses are relative,
//! so it also works behind a proxy that adds a prefix.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::problem::{Kind, Problem};

/// The browser loads from this host alone, runs no inline script, shows the page in no frame, and lets no script write
/// HTML (Trusted Types), so the text of a log or a command can never become a part of the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// W3C, Cross-Origin Resource Policy: pages of other origins cannot load the files.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the console.
struct File {
    name: &'static str,
    media: &'static str,
    bytes: &'static [u8],
    /// Changes with the content.
    etag: String,
}

/// All files; the first is the page.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    macro_rules! files {
        ($($media:ident $name:literal;)*) => {
            vec![$(File::new($name, $media, include_bytes!($name))),*]
        };
    }
    files! {
        HTML "index.html";
        SCRIPT "api.js";
        SCRIPT "app.js";
        SCRIPT "chaos.js";
        SCRIPT "chart.js";
        SCRIPT "cost.js";
        SCRIPT "dialog.js";
        SCRIPT "doctor.js";
        SCRIPT "dom.js";
        SCRIPT "entry.js";
        SCRIPT "figures.js";
        SVG "icon.svg";
        SCRIPT "logs.js";
        SCRIPT "metrics.js";
        SCRIPT "parked.js";
        SCRIPT "pipeline.js";
        SCRIPT "shards.js";
        STYLE "style.css";
        SCRIPT "theme.js";
        TEXT "uplot.LICENSE";
        STYLE "uplot.css";
        SCRIPT "uplot.js";
        SCRIPT "views.js";
    }
});

impl File {
    fn new(name: &'static str, media: &'static str, bytes: &'static [u8]) -> Self {
        // FNV-1a, 64 bits. It only has to differ between builds.
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { name, media, bytes, etag: format!("\"{hash:016x}\"") }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
        let is_known =
            known.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag);
        let mut response = match is_known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.bytes.into_response(),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, self.media),
            // The browser asks each time, so a page and its scripts are always of one build.
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // It is hexadecimal digits in quotes, which a header can have.
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            headers.insert(ETAG, etag);
        }
        response
    }
}

/// The routes of the console, for a host that serves them beside the API and the [routes of operators](crate::operators).
pub fn console<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/console", get(page))
        .route("/console/", get(without_slash))
        .route("/console/{file}", get(file))
}

async fn page(headers: HeaderMap) -> Result<Response, Problem> {
    find("index.html").map(|file| file.answer(&headers))
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    find(&name).map(|file| file.answer(&headers))
}

/// The page's addresses are relative to `/console`.
async fn without_slash() -> impl IntoResponse {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "../console")])
}

fn find(name: &str) -> Result<&'static File, Problem> {
    FILES.iter().find(|file| file.name == name).ok_or_else(|| {
        Problem::new(Kind::UNKNOWN_ROUTE, format!("the console has no file `{name}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes of all files. Source: our choice; a page of this size loads in a second over a slow tunnel.
    const BYTES_MAX: usize = 176 * 1024;

    fn text(file: &File) -> &str {
        std::str::from_utf8(file.bytes).expect("every file is text")
    }

    #[test]
    fn all_files_together_are_small() {
        let bytes: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        assert!(bytes < BYTES_MAX, "the console has {bytes} bytes");
    }

    #[test]
    fn no_file_names_an_address_elsewhere() {
        for file in FILES.iter() {
            // The page of uPlot in its own banner, and the namespace of SVG, which nothing loads.
            let text = text(file)
                .replace("/*! https://github.com/leeoniya/uPlot (v1.6.32) */", "")
                .replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
            for part in ["://", "src=\"/", "href=\"/", "from '/", "import("] {
                assert!(!text.contains(part), "{} has `{part}`", file.name);
            }
        }
    }

    #[test]
    fn no_script_writes_html_or_runs_text() {
        for file in FILES.iter().filter(|file| file.media == SCRIPT) {
            for part in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
            ] {
                assert!(!text(file).contains(part), "{} has `{part}`", file.name);
            }
        }
        let page = text(&FILES[0]);
        assert!(
            !page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick=")
        );
        assert!(page.split("<script").skip(1).all(|script| script.starts_with(" src=\"console/")));
    }

    /// So that no file is forgotten, in the list or in the folder.
    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console");
        let names = std::fs::read_dir(folder).expect("the folder can be read");
        let names = names.map(|entry| entry.expect("an entry").file_name().into_string());
        let mut names: Vec<_> = names.map(|name| name.expect("it is text")).collect();
        names.retain(|name| name != "mod.rs");
        names.sort();
        let mut served: Vec<_> = FILES.iter().map(|file| file.name).collect();
        served.sort_unstable();
        assert_eq!(served, names);
    }
}
