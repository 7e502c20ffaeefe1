//! Answers of the API.

use serde_json::Value;

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn read(mut response: ureq::http::Response<ureq::Body>) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.body_mut().read_to_string().expect("the body is text");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, json }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }

    /// Panics unless the answer has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The seq of a receipt.
    #[track_caller]
    pub(crate) fn seq(&self) -> u64 {
        self.json["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {}", self.text))
    }

    /// Checks that this is a problem of this type (without `urn:fanfold:problem:`), whose detail
    /// contains `detail`. The error says what it is instead.
    pub(crate) fn check_problem(
        &self,
        status: u16,
        kind: &str,
        detail: &str,
    ) -> Result<(), String> {
        let content_type = self.header("content-type");
        if content_type != "application/problem+json" {
            return Err(format!("content type `{content_type}`, status {}", self.status));
        }
        if self.status != status {
            return Err(format!("status {}: {}", self.status, self.text));
        }
        check_problem(&self.json, status, kind, detail)
    }
}

/// As [`Answer::check_problem`], for a problem inside an answer.
pub(crate) fn check_problem(
    problem: &Value,
    status: u16,
    kind: &str,
    detail: &str,
) -> Result<(), String> {
    let is = problem["status"] == status
        && problem["type"] == format!("urn:fanfold:problem:{kind}")
        && problem["title"].as_str().is_some_and(|title| !title.is_empty())
        && problem["detail"].as_str().is_some_and(|text| text.contains(detail));
    if is { Ok(()) } else { Err(format!("the problem {problem}")) }
}
