//! The console's files.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;

use crate::Answer;

async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let router: Router = fanfold_http::console();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("it is a request");
    Answer::of(router.oneshot(request).await.expect("it always answers")).await
}

/// The files that the page and its scripts and styles name.
fn named(page: &str) -> Vec<String> {
    let of = |text: &str, before: &str, end: char| -> Vec<String> {
        let names = text.split(before).skip(1).filter_map(|rest| rest.split(end).next());
        names.map(str::to_owned).collect()
    };
    [of(page, "=\"console/", '"'), of(page, "from './", '\'')].concat()
}

#[tokio::test]
async fn the_page_and_all_that_it_names_are_served_with_a_strict_policy() {
    let page = ask("GET", "/console", &[]).await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let mut to_see: Vec<String> = named(&page.text);
    let mut seen = vec![];
    while let Some(name) = to_see.pop() {
        if seen.contains(&name) {
            continue;
        }
        let file = ask("GET", &format!("/console/{name}"), &[]).await.expect(200);
        let media = match name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => panic!("{name} has a type that the page should not name"),
        };
        assert_eq!(file.header("content-type"), media, "{name}");
        let policy = file.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        for loose in ["unsafe", "*", "data:", "blob:", "http"] {
            assert!(!policy.contains(loose), "{policy}");
        }
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert_eq!(file.header("referrer-policy"), "no-referrer");
        assert_eq!(file.header("cache-control"), "no-cache");
        to_see.extend(named(&file.text));
        seen.push(name);
    }
    assert!(seen.len() > 15, "{seen:?}");
    let licence = ask("GET", "/console/uplot.LICENSE", &[]).await.expect(200);
    assert!(licence.text.starts_with("The MIT License"), "{}", licence.text);
}

#[tokio::test]
async fn a_browser_that_has_a_file_is_told_so() {
    let first = ask("GET", "/console/app.js", &[]).await.expect(200);
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 18, "{etag}");
    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let again = ask("GET", "/console/app.js", &[("if-none-match", &known)]).await.expect(304);
        assert_eq!((again.text.as_str(), again.header("etag")), ("", etag.as_str()));
        assert!(!again.header("content-security-policy").is_empty());
    }
    ask("GET", "/console/app.js", &[("if-none-match", "\"other\"")]).await.expect(200);
    let other = ask("GET", "/console/dom.js", &[]).await.expect(200);
    assert_ne!(other.header("etag"), etag);
}

#[tokio::test]
async fn a_head_has_the_length_and_no_body() {
    let got = ask("GET", "/console", &[]).await.expect(200);
    let head = ask("HEAD", "/console", &[]).await.expect(200);
    assert_eq!(head.header("content-length"), got.text.len().to_string());
    assert_eq!((head.text.as_str(), head.header("etag")), ("", got.header("etag")));
}

#[tokio::test]
async fn other_names_and_methods_are_refused() {
    for path in ["/console/none.js", "/console/mod.rs", "/console/..%2Fmod.rs"] {
        ask("GET", path, &[]).await.expect_problem(404, "unknown-route");
    }
    ask("POST", "/console", &[]).await.expect(405);
    let moved = ask("GET", "/console/", &[]).await.expect(308);
    assert_eq!(moved.header("location"), "../console");
}
