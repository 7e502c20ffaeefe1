//! The fields of a request's JSON object. A problem names the wrong field.

use fanfold::host::limits::SEQ_END;
use fanfold::{LogId, Seq, Time};
use serde_json::{Map, Value};

use crate::body;
use crate::problem::{Kind, Problem};

/// The fields of a request's body.
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. Refuses fields that are not in `known`.
    pub fn parse(body: &[u8], known: &[&str]) -> Result<Self, Problem> {
        body::not_empty(body)?;
        let parsed = serde_json::from_slice(body).map_err(|error| {
            Problem::new(Kind::NOT_JSON, format!("the request is not JSON: {error}"))
        })?;
        let Value::Object(fields) = parsed else {
            let detail = format!("the request must be a JSON object with `{}`", known.join("`, `"));
            return Err(Problem::new(Kind::NOT_AN_OBJECT, detail));
        };
        match fields.keys().find(|field| !known.contains(&field.as_str())) {
            None => Ok(Self(fields)),
            Some(field) => {
                let known = known.join("`, `");
                let detail = format!("`{field}`: unknown field, known here are `{known}`");
                Err(Problem::new(Kind::UNKNOWN_FIELD, detail))
            }
        }
    }

    /// The value of a field; `None` if it is absent or null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// The value of a field that must be there.
    pub fn required(&self, field: &str) -> Result<&Value, Problem> {
        self.get(field).ok_or_else(|| missing(field))
    }

    /// A text, if the field is there.
    pub fn text(&self, field: &str) -> Result<Option<&str>, Problem> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match self.get(field) {
            Some(value) if text(value).is_none() => Err(wrong_type(field, "a string")),
            value => Ok(value.and_then(Value::as_str)),
        }
    }

    /// The log in the field `log`.
    pub fn log(&self) -> Result<LogId, Problem> {
        let text = self.text("log")?.ok_or_else(|| missing("log"))?;
        text.parse().map_err(|error| Problem::name("log", &error))
    }

    /// The seq in the field `seq`, which may be zero.
    pub fn seq(&self) -> Result<Seq, Problem> {
        let seq = self.required("seq")?.as_u64().filter(|seq| *seq < SEQ_END);
        seq.map(Seq).ok_or_else(|| wrong_type("seq", "a number of a log's seqs"))
    }

    /// A time in milliseconds, if the field is there.
    pub fn time(&self, field: &str) -> Result<Option<Time>, Problem> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let ms = value.as_u64().map(Time);
        ms.map(Some).ok_or_else(|| wrong_type(field, "a time in milliseconds, as in an answer"))
    }
}

/// The problem of a field that is absent.
fn missing(field: &str) -> Problem {
    Problem::new(Kind::MISSING_FIELD, format!("`{field}`: is required"))
}

/// The problem of a field whose value has the wrong type.
pub fn wrong_type(field: &str, expected: &str) -> Problem {
    Problem::new(Kind::WRONG_TYPE, format!("`{field}`: must be {expected}"))
}
