//! Parameters of paths and queries, decoded and checked. A problem names the wrong parameter.
//!
//! In a query a `+` means a space, as forms write it; in a path it means itself.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use fanfold::host::limits::{COMMAND_ID_END, SEQ_END};
use fanfold::{CommandId, LogId, Name, Origin, Partition, RowKey, Seq, ServiceName};
use fanfold_pipeline::ports::CataloguePosition;
use percent_encoding::percent_decode_str;

use crate::limits::{PAGE_DEFAULT, PAGE_MAX};
use crate::problem::{Kind, Problem};

/// The parameters of the path.
pub(crate) struct Path(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => Ok(Self(params)),
            Err(RawPathParamsRejection::InvalidUtf8InPathParam(e)) => {
                Err(Problem::new(Kind::NOT_UTF8, e.to_string()))
            }
            Err(e) => Err(Problem::new(Kind::INTERNAL, e.to_string())),
        }
    }
}

impl Path {
    /// The parameter `name`, decoded. The routes have every parameter that the handlers ask for; the
    /// value of any other is empty.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(param, _)| *param == name).map_or("", |(_, value)| value)
    }

    /// The log that `{service}` and `{partition}` name.
    pub(crate) fn log(&self) -> Result<LogId, Problem> {
        let service = ServiceName::new(self.text("service"))
            .map_err(|error| Problem::name("service", &error))?;
        let partition = Partition::new(self.text("partition"))
            .map_err(|error| Problem::name("partition", &error))?;
        Ok(LogId::new(&service, &partition))
    }

    /// The seq in `{seq}`.
    pub(crate) fn seq(&self) -> Result<Seq, Problem> {
        number("seq", self.text("seq"), 1, SEQ_END - 1).map(Seq)
    }

    /// The row's key in `{row}`.
    pub(crate) fn row(&self) -> Result<RowKey, Problem> {
        RowKey::new(self.text("row")).map_err(|error| Problem::name("row", &error))
    }
}

/// The parameters of the query.
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads the query `raw`. Refuses parameters that are not in `known`, and repeated ones.
    pub(crate) fn parse(raw: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut params: Vec<(&'static str, String)> = Vec::with_capacity(known.len());
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode_str(name).decode_utf8_lossy();
            let Some(name) = known.iter().find(|known| **known == name) else {
                return Err(unknown(&name, known));
            };
            if params.iter().any(|(seen, _)| seen == name) {
                let detail = format!("`{name}`: is given twice");
                return Err(Problem::new(Kind::REPEATED_PARAMETER, detail));
            }
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value)
                .decode_utf8()
                .map_err(|_| bad(name, "is not valid UTF-8 once decoded"))?;
            params.push((name, value.into_owned()));
        }
        Ok(Self(params))
    }

    /// Whether `raw` has any parameter of `names`.
    pub(crate) fn has_any(raw: Option<&str>, names: &[&str]) -> bool {
        let mut pairs = raw.unwrap_or_default().split('&');
        pairs.any(|pair| names.contains(&pair.split_once('=').map_or(pair, |(name, _)| name)))
    }

    /// The value of `name`; `None` if it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|text| !text.is_empty())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(param, _)| *param == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        self.get(name).map(|text| number(name, text, least, most)).transpose()
    }

    /// The value of `wait`, in milliseconds: at most `most`, 0 if it is absent.
    pub(crate) fn wait_ms(&self, most: u64) -> Result<u64, Problem> {
        Ok(self.number("wait", 0, most)?.unwrap_or(0))
    }

    /// The value of `wait`, in milliseconds, or `most`, which is the most that it may be.
    pub(crate) fn wait_ms_or_most(&self, most: u64) -> Result<u64, Problem> {
        Ok(self.number("wait", 0, most)?.unwrap_or(most))
    }

    /// The value of `limit`, or [`PAGE_DEFAULT`].
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        Ok(self.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE_DEFAULT) as usize)
    }

    /// The value of `from` or `seq`.
    pub(crate) fn seq(&self, name: &str) -> Result<Option<Seq>, Problem> {
        Ok(self.number(name, 1, SEQ_END - 1)?.map(Seq))
    }

    /// The origin that `user` and, if present, `client` name.
    pub(crate) fn origin(&self) -> Result<Origin, Problem> {
        let name = |param: &'static str, text: &str| {
            Name::new(text).map_err(|error| Problem::name(param, &error))
        };
        let user = name("user", self.get("user").ok_or_else(|| bad("user", "is required"))?)?;
        let origin = match self.get("client") {
            Some(client) => Origin::client(&user, &name("client", client)?),
            None => Origin::user(&user),
        };
        origin.map_err(|error| Problem::name("user", &error))
    }

    /// The command's id in `id`.
    pub(crate) fn id(&self) -> Result<CommandId, Problem> {
        let id = self.number("id", 1, COMMAND_ID_END - 1)?;
        id.and_then(CommandId::new).ok_or_else(|| bad("id", "is required"))
    }

    /// The row's key in `after`. An empty value means `None`.
    pub(crate) fn after(&self) -> Result<Option<RowKey>, Problem> {
        let after = self.get("after").filter(|after| !after.is_empty());
        let key = after.map(RowKey::new).transpose();
        key.map_err(|error| bad("after", &error.to_string()))
    }

    /// The value of `prefix`, with which the keys of rows begin. It may be empty.
    pub(crate) fn prefix(&self) -> Result<String, Problem> {
        match self.get("prefix") {
            None | Some("") => Ok(String::new()),
            Some(prefix) => RowKey::check_prefix(prefix)
                .map(|()| prefix.to_owned())
                .map_err(|error| bad("prefix", &error.to_string())),
        }
    }

    /// Whether `name` is there, without a value or as `true`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(bad(name, "must be `true` or `false`, or have no value")),
        }
    }

    /// Whether `order` is `desc`.
    pub(crate) fn descending(&self) -> Result<bool, Problem> {
        match self.get("order") {
            None | Some("asc") => Ok(false),
            Some("desc") => Ok(true),
            Some(_) => Err(bad("order", "must be `asc` or `desc`")),
        }
    }
}

/// The number that the value of `name` is.
pub(crate) fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| bad(name, &format!("must be an integer from {least} to {most}")))
}

/// The problem of a parameter with a bad value.
pub(crate) fn bad(name: &str, why: &str) -> Problem {
    Problem::new(Kind::BAD_PARAMETER, format!("`{name}`: {why}"))
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let known = match known {
        [] => "none is known here".to_owned(),
        known => format!("known here are `{}`", known.join("`, `")),
    };
    let detail = format!("`{name}`: unknown parameter, {known}");
    Problem::new(Kind::UNKNOWN_PARAMETER, detail)
}

/// A position in the catalogue as callers get it.
pub(crate) fn token(CataloguePosition { bucket, log }: &CataloguePosition) -> String {
    log.as_ref().map_or_else(|| bucket.to_string(), |log| format!("{bucket}:{log}"))
}

/// The position that a caller gives back in `after`.
pub(crate) fn position(token: &str) -> Result<CataloguePosition, Problem> {
    let (bucket, log) = match token.split_once(':') {
        Some((bucket, log)) => (bucket, Some(log.parse())),
        None => (token, None),
    };
    match (bucket.parse(), log.transpose()) {
        (Ok(bucket), Ok(log)) => Ok(CataloguePosition { bucket, log }),
        _ => Err(bad("after", "must be the `next` of the page before, unchanged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WAIT_MS_MAX;

    const KNOWN: &[&str] = &["wait", "limit", "from", "after", "prefix", "order", "raw"];

    fn parse(raw: &str) -> Result<Query, Problem> {
        Query::parse(Some(raw), KNOWN)
    }

    #[test]
    fn parameters_are_decoded() {
        let query =
            parse("prefix=Zo%C3%AB+M%2Bb%2Fc+&&wait=25000&order=desc&limit=1&from=7&after=")
                .expect("all are known");
        assert_eq!(query.prefix(), Ok("Zoë M+b/c ".to_owned()));
        assert_eq!(query.wait_ms(WAIT_MS_MAX), Ok(25_000));
        assert_eq!(query.limit(), Ok(1));
        assert_eq!(query.seq("from"), Ok(Some(Seq(7))));
        assert_eq!(query.after(), Ok(None));
        assert_eq!(query.descending(), Ok(true));
        for (raw, is_set) in [("", false), ("raw", true), ("raw=true", true), ("raw=false", false)]
        {
            assert_eq!(parse(raw).and_then(|query| query.flag("raw")), Ok(is_set), "{raw}");
        }
    }

    #[test]
    fn a_problem_names_the_wrong_parameter() {
        for (raw, starts) in [
            ("wait=25001", "`wait`: must be an integer from 0 to 25000"),
            ("wait=-1", "`wait`: "),
            ("wait=%2B1", "`wait`: "),
            ("wait=+1", "`wait`: "),
            ("wait=", "`wait`: "),
            ("wait=1.5", "`wait`: "),
            ("limit=0", "`limit`: must be an integer from 1 to 1000"),
            ("limit=1001", "`limit`: "),
            ("from=0", "`from`: must be an integer from 1 to 140737488355327"),
            ("from=99999999999999999999", "`from`: "),
            ("order=down", "`order`: must be"),
            ("raw=1", "`raw`: must be `true` or `false`"),
            ("after=a%3Fb", "`after`: contains '?' (U+003F)"),
            ("after=+b", "`after`: begins or ends with U+0020"),
            ("prefix=e%CC%81", "`prefix`: is not in Unicode normalization form C"),
            ("prefix=%FF", "`prefix`: is not valid UTF-8"),
            ("wait=1&wait=1", "`wait`: is given twice"),
            ("wiat=1", "`wiat`: unknown parameter"),
            ("=", "``: unknown parameter"),
        ] {
            let checked = parse(raw).and_then(|query| {
                query.wait_ms(WAIT_MS_MAX)?;
                query.limit()?;
                query.seq("from")?;
                query.after()?;
                query.prefix()?;
                query.flag("raw")?;
                query.descending()
            });
            let problem = checked.expect_err(raw);
            let json = serde_json::to_value(&problem).expect("a problem can be written");
            let detail = json["detail"].as_str().expect("it has a detail");
            assert!(detail.starts_with(starts), "{raw}: {detail}");
        }
    }
}
