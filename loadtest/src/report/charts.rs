//! The charts of a report, and their content.

use maud::Markup;
use plotters::style::RGBColor;

use super::axis::{self, Axis, drawn};
use super::figures::{self, counted};
use super::plot::{Dot, DrawError, Line, MUTED, Plot, Stroke, Width};
use super::{Interval, Report, Search};
use crate::text::shown;

/// Okabe and Ito's palette, partly darkened for text on white.
pub(super) const ACCEPT: RGBColor = RGBColor(0x00, 0x72, 0xb2);
pub(super) const ENTRY: RGBColor = RGBColor(0x00, 0x86, 0x62);
pub(super) const VIEW: RGBColor = RGBColor(0xc7, 0x50, 0x00);
const DUE: RGBColor = RGBColor(0xc3, 0xcb, 0xd2);

/// A chart at both widths, with its title and legend.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) about: String,
    /// Colour, stroke and name of each line.
    pub(super) key: Vec<(RGBColor, Stroke, String)>,
    pub(super) wide: Markup,
    pub(super) narrow: Markup,
}

impl Chart {
    fn new(title: &str, about: String, plot: &Plot) -> Result<Self, DrawError> {
        let key = plot.lines.iter();
        Ok(Self {
            title: title.to_owned(),
            about,
            key: key.map(|line| (line.colour, line.stroke, line.name.clone())).collect(),
            wide: plot.draw(Width::Wide)?,
            narrow: plot.draw(Width::Narrow)?,
        })
    }
}

impl Report {
    /// The charts that have content.
    pub(super) fn charts(&self) -> Result<Vec<Chart>, DrawError> {
        let mut charts = Vec::new();
        if let Some(search) = &self.search {
            charts.extend(searched(search)?);
        }
        charts.extend(self.by_percentile()?);
        charts.extend(self.rate_over_time()?);
        charts.extend(self.latency_over_time()?);
        Ok(charts)
    }

    fn by_percentile(&self) -> Result<Option<Chart>, DrawError> {
        let measured: Vec<_> = [("accept", ACCEPT), ("entry", ENTRY), ("view", VIEW)]
            .into_iter()
            .filter_map(|(of, colour)| Some((self.latency(of)?, colour)))
            .collect();
        let Some(most) = measured.iter().map(|(latency, _)| latency.count).max() else {
            return Ok(None);
        };
        let lines = measured.into_iter().map(|(latency, colour)| {
            let last = axis::last_percentile(latency.count);
            let points = latency
                .percentiles
                .iter()
                .filter_map(|(percent, ms)| Some((drawn(*percent)?.min(last), drawn(*ms)?)));
            Line {
                name: latency.of.clone(),
                colour,
                stroke: Stroke::Plain,
                stretches: vec![points.collect()],
            }
        });
        let lines: Vec<Line> = lines.filter(|line| !line.stretches[0].is_empty()).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let plot = Plot {
            x: Axis::percentile(most),
            y: latency_axis(&lines, None),
            x_title: "% that took no longer",
            alternative: "Latency by percentile, a line each for accept, entry and view".into(),
            lines,
            ..Plot::empty()
        };
        let about = format!(
            "How long a command took from when it was due until it was accepted, had its entry in \
             the log, and was visible in a view.{}",
            self.at_which_rate()
        );
        Chart::new("Latency by percentile", about, &plot).map(Some)
    }

    fn rate_over_time(&self) -> Result<Option<Chart>, DrawError> {
        let timeline = self.steady();
        if timeline.is_empty() {
            return Ok(None);
        }
        let lines = vec![
            over_time("due", DUE, Stroke::Broad, &timeline, |i| Some(i.due_per_s)),
            over_time("accepted", ACCEPT, Stroke::Plain, &timeline, |i| Some(i.accepted_per_s)),
        ];
        let plot = Plot {
            x: Axis::time(end(&timeline)),
            y: Axis::rate(values(&lines)),
            x_title: "time since the start",
            alternative: "Commands a second over time, due and accepted".into(),
            bands: errors(&timeline),
            lines,
            ..Plot::empty()
        };
        let about =
            format!("Commands a second that were due, and that were accepted.{}", self.failed());
        Chart::new("Rate over time", about, &plot).map(Some)
    }

    fn latency_over_time(&self) -> Result<Option<Chart>, DrawError> {
        let timeline = self.steady();
        let lines = vec![
            over_time("accept p50", ACCEPT, Stroke::Dashed, &timeline, |i| i.accept_p50_ms),
            over_time("accept p99", ACCEPT, Stroke::Plain, &timeline, |i| i.accept_p99_ms),
            over_time("view p99", VIEW, Stroke::Plain, &timeline, |i| i.view_p99_ms),
        ];
        let lines: Vec<Line> =
            lines.into_iter().filter(|line| !line.stretches.is_empty()).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let plot = Plot {
            x: Axis::time(end(&timeline)),
            y: latency_axis(&lines, None),
            x_title: "time since the start",
            alternative: "Latency over time: accept at p50 and p99, view at p99".into(),
            bands: errors(&timeline),
            lines,
            ..Plot::empty()
        };
        let about = format!("Of the requests that were due at that time.{}", self.failed());
        Chart::new("Latency over time", about, &plot).map(Some)
    }

    /// The intervals with finite times.
    fn steady(&self) -> Vec<&Interval> {
        let placed = |i: &&Interval| i.at_s.is_finite() && i.seconds.is_finite();
        self.timeline.iter().filter(placed).collect()
    }

    fn failed(&self) -> String {
        let errors = self.timeline.iter().fold(0u64, |sum, i| sum.saturating_add(i.errors));
        if errors == 0 {
            return String::new();
        }
        format!(" Shaded: {}.", counted(errors, "request failed", "requests failed"))
    }
}

type OfStep = fn(&super::Step) -> f64;

/// The chart of a search: latency by rate.
fn searched(search: &Search) -> Result<Option<Chart>, DrawError> {
    let mut steps: Vec<_> = search.steps.iter().filter(|step| step.rate.is_finite()).collect();
    steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let (mut lines, mut dots) = (Vec::new(), Vec::new());
    let series: [(&str, RGBColor, OfStep); 2] = [
        ("accept p99", ACCEPT, |step| step.accept_p99_ms),
        ("view p99", VIEW, |step| step.view_p99_ms),
    ];
    for (name, colour, p99) in series {
        let measured = steps.iter().filter_map(|step| {
            Some(((drawn(step.rate)?, drawn(p99(step))?), step.failed.is_none()))
        });
        let measured: Vec<_> = measured.collect();
        if measured.is_empty() {
            continue;
        }
        dots.extend(measured.iter().map(|(at, filled)| Dot { at: *at, colour, filled: *filled }));
        lines.push(Line {
            name: name.to_owned(),
            colour,
            stroke: Stroke::Plain,
            stretches: vec![measured.into_iter().map(|(at, _)| at).collect()],
        });
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let highest = search.highest.and_then(drawn);
    let rates = steps.iter().map(|step| step.rate).chain(highest);
    let limit = drawn(search.slo_ms).filter(|ms| *ms > 0.0);
    let plot = Plot {
        x: Axis::rate(rates),
        y: latency_axis(&lines, limit),
        x_title: "commands a second",
        alternative: "Latency at p99 by rate, with the highest rate that held".into(),
        lines,
        dots,
        limit: limit.map(|ms| (ms, shown(&search.slo))),
        mark: highest.map(|rate| (rate, format!("{}/s held", figures::plain(rate)))),
        ..Plot::empty()
    };
    let about = "Each point is a rate that was tried. Filled: it held. Hollow: it did not.";
    Chart::new("Latency by rate", about.into(), &plot).map(Some)
}

/// A line through the middles of the intervals, with a gap where a value is missing.
fn over_time(
    name: &str,
    colour: RGBColor,
    stroke: Stroke,
    timeline: &[&Interval],
    value: impl Fn(&Interval) -> Option<f64>,
) -> Line {
    let point = |i: &Interval| Some((drawn(i.at_s + i.seconds / 2.0)?, drawn(value(i)?)?));
    let points: Vec<_> = timeline.iter().map(|interval| point(interval)).collect();
    let stretches = points.split(Option::is_none).filter(|stretch| !stretch.is_empty());
    let stretches = stretches.map(|stretch| stretch.iter().flatten().copied().collect());
    Line { name: name.to_owned(), colour, stroke, stretches: stretches.collect() }
}

/// The times in which requests failed, joined where they touch.
fn errors(timeline: &[&Interval]) -> Vec<(f64, f64)> {
    timeline
        .chunk_by(|a, b| (a.errors > 0) == (b.errors > 0))
        .filter(|chunk| chunk[0].errors > 0)
        .map(|chunk| (chunk[0].at_s, end(chunk)))
        .collect()
}

fn end(timeline: &[&Interval]) -> f64 {
    timeline.last().map_or(0.0, |last| last.at_s + last.seconds)
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| line.stretches.iter().flatten().map(|(_, y)| *y))
}

fn latency_axis(lines: &[Line], limit: Option<f64>) -> Axis {
    Axis::latency(values(lines).chain(limit))
}

impl Plot {
    fn empty() -> Self {
        Self {
            x: Axis::rate(std::iter::empty()),
            y: Axis::rate(std::iter::empty()),
            x_title: "",
            alternative: String::new(),
            bands: Vec::new(),
            lines: Vec::new(),
            dots: Vec::new(),
            limit: None,
            mark: None,
        }
    }
}

pub(super) fn css(colour: RGBColor) -> String {
    format!("#{:02x}{:02x}{:02x}", colour.0, colour.1, colour.2)
}

pub(super) fn colour_of(latency: &str) -> RGBColor {
    match latency {
        "accept" => ACCEPT,
        "entry" => ENTRY,
        "view" => VIEW,
        _ => MUTED,
    }
}
