//! The report as text: 80 columns, without colour, so that it can be pasted anywhere.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table, presets};

use super::figures::{count, number, plain};
use super::findings::{AuditResult, name_of, verdict};
use super::{Report, Search};
use crate::text::shown;
use auditor::Verdict;

/// The default width of a terminal, in columns.
const WIDTH: u16 = 80;

impl Report {
    /// The report as text.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut part = |title: &str, body: String| {
            let separator = if text.is_empty() { "" } else { "\n" };
            write!(text, "{separator}").expect("a string takes all");
            for line in list_of_width(WIDTH + 2, [vec![title.to_owned()]]).lines() {
                writeln!(text, "{}", line.trim()).expect("a string takes all");
            }
            for line in body.lines() {
                writeln!(text, " {}", line.trim_end()).expect("a string takes all");
            }
        };

        let about = format!(
            "{} on {}, {}, loadtest {}",
            self.workload.arrivals, self.target, self.started, self.version
        );
        part(&self.headline(), list([vec![shown(&about)]]));
        part("Latency in ms, from when a request was due", self.latency_lines());
        part("Counts", list(self.tallies().into_iter().map(|(name, n)| vec![name.into(), n])));
        if let Some(search) = &self.search {
            let title = match search.highest {
                Some(rate) => format!("Search: the highest rate that held is {}/s", plain(rate)),
                None => "Search: no rate held".to_owned(),
            };
            part(&title, steps(search));
        }
        let title = format!("Audit: {}", AuditResult::of(self.audit.as_ref()).word());
        part(&title, audit_lines(self.audit.as_ref()));
        let notes = self.notes();
        if !notes.is_empty() {
            part("Note", list(notes.into_iter().map(|note| vec!["-".into(), note])));
        }
        text
    }

    fn latency_lines(&self) -> String {
        let header = ["", "count", "mean", "p50", "p90", "p99", "p99.9", "max"];
        let rows = self.latencies.iter().map(|latency| {
            let mut row = vec![name_of(&latency.of), count(latency.count)];
            let none = latency.count == 0;
            row.extend(
                [
                    latency.mean_ms,
                    latency.p50_ms,
                    latency.p90_ms,
                    latency.p99_ms,
                    latency.p999_ms,
                    latency.max_ms,
                ]
                .map(|ms| number(if none { f64::NAN } else { ms })),
            );
            row
        });
        if self.latencies.is_empty() {
            return list([vec!["nothing was measured".to_owned()]]);
        }
        figures_table(&header, rows.collect(), header.len())
    }
}

/// The verdict of an audit without a load, as text.
pub fn verdict_table(audit: &Verdict) -> String {
    let mut text = format!("Audit: {}\n", AuditResult::of(Some(audit)).word());
    for line in audit_lines(Some(audit)).lines() {
        writeln!(text, " {}", line.trim_end()).expect("a string takes all");
    }
    for note in &audit.notes {
        writeln!(text, " Note: {}", shown(note)).expect("a string takes all");
    }
    text
}

fn audit_lines(audit: Option<&Verdict>) -> String {
    let mut text = list([vec![verdict(audit)]]);
    let Some(audit) = audit else { return text };
    if !audit.outcomes.is_empty() {
        let outcomes: Vec<String> = audit
            .outcomes
            .iter()
            .map(|(status, times)| format!("{} {}", count(*times), shown(status)))
            .collect();
        text.push('\n');
        text += &list([vec![format!("Entries: {}", outcomes.join(", "))]]);
    }
    if audit.examples.is_empty() {
        return text;
    }
    text += "\n Broken, and how often:\n";
    text += &list(audit.broken.iter().map(|(invariant, times)| {
        vec![invariant.to_string(), count(*times), invariant.sentence().to_owned()]
    }));
    if (audit.examples.len() as u64) < audit.breaches {
        text += &format!("\n The first {}:", audit.examples.len());
    }
    text.push('\n');
    text += &list(audit.examples.iter().map(|breach| {
        let place = match breach.seq {
            Some(seq) => format!("{} at {seq}: ", shown(&breach.log)),
            None => format!("{}: ", shown(&breach.log)),
        };
        vec![breach.invariant.to_string(), place + &shown(&breach.what)]
    }));
    text
}

fn steps(search: &Search) -> String {
    let header = ["rate/s", "accepted/s", "accept p99", "view p99", "sent late", ""];
    let rows = search.steps.iter().map(|step| {
        vec![
            plain(step.rate),
            number(step.accepted_per_s),
            number(step.accept_p99_ms),
            number(step.view_p99_ms),
            number(step.send_p99_ms),
            step.failed.as_deref().map_or_else(|| "held".to_owned(), shown),
        ]
    });
    figures_table(&header, rows.collect(), 5)
}

/// A table of numbers. The first `right` columns are aligned right, except a first column without a
/// header.
fn figures_table(header: &[&str], rows: Vec<Vec<String>>, right: usize) -> String {
    let mut table = bare();
    let aligned = |cells: Vec<String>| {
        let first_is_name = header[0].is_empty();
        Row::from(cells.into_iter().enumerate().map(|(column, text)| {
            let figure = column < right && !(column == 0 && first_is_name);
            let side = if figure { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(side)
        }))
    };
    table.set_header(aligned(header.iter().map(|text| (*text).to_owned()).collect()));
    table.add_rows(rows.into_iter().map(aligned));
    table.to_string()
}

fn list(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    list_of_width(WIDTH - 1, rows)
}

fn list_of_width(width: u16, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = bare();
    table.set_width(width);
    table.add_rows(rows);
    table.to_string()
}

fn bare() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .force_no_tty()
        .set_width(WIDTH - 1);
    table
}
