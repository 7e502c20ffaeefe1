//! The two text formats of `/metrics`, and which of them a client asks for.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus's text format 0.0.4, which everything that scrapes can read.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that the client prefers. A client that names neither gets [`Format::Text`].
    pub(crate) fn asked_by(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<Range<'_>> =
            accepted.flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
        let best = |of: &dyn Fn(&Range<'_>) -> bool| {
            ranges.iter().filter(|range| of(range)).map(|range| range.q).max().unwrap_or(0)
        };
        let open = best(&|range| {
            range.media == "application/openmetrics-text"
                && range.version.is_none_or(|version| version == "1.0.0")
        });
        let text = best(&|range| {
            range.media == "text/plain" && range.version.is_none_or(|version| version == "0.0.4")
        });
        if open > 0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The media type of an answer.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One media range of the header `Accept`.
struct Range<'a> {
    media: String,
    version: Option<&'a str>,
    /// The weight in thousandths.
    q: u32,
}

impl<'a> Range<'a> {
    /// `None` if the range has a weight that is not a number.
    fn parse(range: &'a str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let mut parsed =
            Self { media: parts.next()?.to_ascii_lowercase(), version: None, q: 1_000 };
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => parsed.version = Some(value),
                "q" => {
                    let q: f32 = value.parse().ok()?;
                    parsed.q = (q.clamp(0.0, 1.0) * 1_000.0) as u32;
                }
                _ => {}
            }
        }
        Some(parsed)
    }
}

/// OpenMetrics text as Prometheus's text format. Takes what `prometheus-client` writes: no
/// timestamps, no exemplars, no `_created`.
pub(crate) fn as_text(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    // A `HELP` line comes before the `TYPE` line that says whether its name needs `_total`.
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (total, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((of, help)) = help.take().filter(|(of, _)| *of == name) {
                // This format has no quotes to escape in a help.
                let help = help.replace("\\\"", "\"");
                text.push_str(&format!("# HELP {of}{total} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{total} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().expect("it is a header's value"));
        }
        Format::asked_by(&headers)
    }

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        for (accept, format) in [
            (&[][..], Format::Text),
            (&["*/*"], Format::Text),
            (&["text/plain"], Format::Text),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Format::Text),
            (&["application/json"], Format::Text),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8"], Format::OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1"], Format::Text),
            (&["application/openmetrics-text;q=0"], Format::Text),
            (&["application/openmetrics-text;q=0.3, text/plain;q=0.7"], Format::Text),
            (&["text/plain;q=0.2", "application/openmetrics-text;q=0.7"], Format::OpenMetrics),
            (&["application/openmetrics-text;q=much, text/plain"], Format::Text),
            // Prometheus 2.42.
            (
                &[
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ],
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(asked(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_text_format_has_the_names_of_counters_and_no_units() {
        let open = "# HELP a_seconds The \\\"a\\\".\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\n\
                    a_seconds 1.5\n# HELP b B.\n# TYPE b counter\nb_total{of=\"# TYPE x\"} 2\n\
                    # TYPE c unknown\nc 3\n# HELP d_seconds D.\n# TYPE d_seconds histogram\n\
                    # UNIT d_seconds seconds\nd_seconds_sum 0.1\nd_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let text = "# HELP a_seconds The \"a\".\n# TYPE a_seconds gauge\na_seconds 1.5\n\
                    # HELP b_total B.\n# TYPE b_total counter\nb_total{of=\"# TYPE x\"} 2\n\
                    # TYPE c untyped\nc 3\n# HELP d_seconds D.\n# TYPE d_seconds histogram\n\
                    d_seconds_sum 0.1\nd_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(as_text(open), text);
    }
}
