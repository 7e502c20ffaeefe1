//! The report as a page: one file that needs neither a server nor a script.

use anyhow::Context;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Partition;
use super::charts::{Chart, colour_of, css};
use super::figures::{NONE, bytes, count, counted, duration, number, plain, share};
use super::findings::{AuditResult, name_of, verdict};
use super::plot::Stroke;
use super::{Latency, Report, Search, Workload};
use crate::text::shown;
use auditor::{Breach, Invariant, Model, Verdict};

type OfLatency = fn(&Latency) -> f64;

const STYLE: &str = include_str!("page.css");

impl Report {
    /// The report as HTML, for browsers of any width and for paper.
    pub fn html(&self) -> anyhow::Result<String> {
        let charts = self.charts().context("cannot draw the charts")?;
        let failed = AuditResult::of(self.audit.as_ref()) == AuditResult::Failed;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "Load test: " (self.headline()) }
                    style { (PreEscaped(STYLE)) }
                }
                body { main {
                    (self.header())
                    (self.key_figures())
                    (self.noted())
                    @if failed { (self.audited()) }
                    @for chart in &charts { (figure(chart)) }
                    @if charts.is_empty() { p.quiet { "Nothing was measured, so there are no charts." } }
                    (self.latency_table())
                    @if let Some(search) = &self.search { (steps(search)) }
                    div.columns {
                        div {
                            section {
                                h2 { "Counts" @if self.search.is_some() { " of all steps" } }
                                (pairs(self.tallies()))
                            }
                            section { h2 { "Machine" } (pairs(self.machine_pairs())) }
                        }
                        section { h2 { "Workload" } (pairs(self.workload.pairs())) }
                    }
                    @if !failed { (self.audited()) }
                    (self.method())
                } }
            }
        };
        Ok(page.into_string())
    }

    fn header(&self) -> Markup {
        html! {
            header {
                p.overline { "Load test" }
                h1 { (unbroken(&self.headline())) }
                p.quiet {
                    (shown(&self.workload.arrivals)) " on "
                    span.url { (shown(&self.target)) } ", "
                    span.unbroken { (when(&self.started)) }
                }
            }
        }
    }

    fn key_figures(&self) -> Markup {
        let p99 = |of| self.latency(of).map_or(NONE.to_owned(), |l| duration(l.p99_ms));
        let result = AuditResult::of(self.audit.as_ref());
        let mut tiles = vec![
            ("accepted a second", number(self.counts.accepted_per_s), None),
            ("accepted, p99", p99("accept"), Some("accept")),
            ("entry in the log, p99", p99("entry"), Some("entry")),
            ("visible in a view, p99", p99("view"), Some("view")),
        ];
        if let Some(search) = &self.search {
            let highest = search.highest.map_or(NONE.to_owned(), plain);
            tiles[0] = ("highest rate that held, a second", highest, None);
        }
        html! {
            div.tiles {
                @for (name, value, of) in tiles {
                    div.tile {
                        div.value { (value) }
                        div.name {
                            @if let Some(of) = of { (dot(of)) }
                            (name)
                        }
                    }
                }
                div.tile.audit {
                    div.value { (badge(result)) }
                    div.name { (brief(result, self.audit.as_ref())) }
                }
            }
        }
    }

    fn noted(&self) -> Markup {
        let notes = self.notes();
        html! {
            @if !notes.is_empty() {
                ul.notes { @for note in notes { li { (note) } } }
            }
        }
    }

    fn latency_table(&self) -> Markup {
        let rows: [(&str, OfLatency); 6] = [
            ("mean", |l| l.mean_ms),
            ("p50", |l| l.p50_ms),
            ("p90", |l| l.p90_ms),
            ("p99", |l| l.p99_ms),
            ("p99.9", |l| l.p999_ms),
            ("max", |l| l.max_ms),
        ];
        html! {
            section {
                h2 { "Latency" }
                p.quiet {
                    "In milliseconds, from when a request was due." (self.at_which_rate())
                }
                @if self.latencies.is_empty() { p { "Nothing was measured." } } @else {
                    table.figures {
                        thead { tr {
                            th {}
                            @for latency in &self.latencies {
                                th scope="col" { (dot(&latency.of)) (name_of(&latency.of)) }
                            }
                        } }
                        tbody {
                            tr {
                                th scope="row" { "count" }
                                @for latency in &self.latencies { td { (count(latency.count)) } }
                            }
                            @for (name, value) in rows {
                                tr {
                                    th scope="row" { (name) }
                                    @for latency in &self.latencies {
                                        td {
                                            @if latency.count == 0 { (NONE) }
                                            @else { (number(value(latency))) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn audited(&self) -> Markup {
        let result = AuditResult::of(self.audit.as_ref());
        html! {
            section.audited {
                h2 { "Audit " (badge(result)) }
                p { (sentence(&verdict(self.audit.as_ref()))) }
                @if let Some(audit) = &self.audit {
                    @if !audit.examples.is_empty() { (examples(audit)) }
                    div.columns {
                        div {
                            h3 { "Entries by status" }
                            (pairs(outcomes(audit)))
                        }
                        div {
                            h3 { "What is checked" }
                            dl.invariants {
                                @for (invariant, what) in checked(audit) {
                                    dt { (invariant.id()) } dd { (what) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn audit_method(&self) -> &'static str {
        match self.audit.as_ref().map(|audit| audit.model) {
            Some(Model::None) => {
                "The audit reads logs and views over HTTP, and compares every receipt with its \
                 entry: the command, the digest of its data, its id, and the expected outcome. It \
                 knows no rules of the service."
            }
            Some(Model::Ledger) | None => {
                "The audit reads logs and views over HTTP, folds the entries with code of its own, \
                 and compares them with every receipt."
            }
        }
    }

    fn machine_pairs(&self) -> Vec<(&'static str, String)> {
        let machine = &self.machine;
        vec![
            ("processor", shown(&machine.cpu)),
            ("logical processors", count(machine.cores as u64)),
            ("memory", bytes(machine.memory_bytes)),
            ("system", shown(&machine.os)),
            (
                "target",
                if machine.shared_with_target { "on this machine" } else { "elsewhere" }.into(),
            ),
        ]
    }

    fn method(&self) -> Markup {
        html! {
            footer {
                h2 { "How it was measured" }
                p {
                    "The load is an open loop: requests are due at times that do not depend on "
                    "the target, and each is timed from when it was due, not from when it was "
                    "sent. So the time of requests that wait for a stalled target counts."
                }
                p {
                    "Accepted: the answer 202 has arrived. Entry and view: samples, read with "
                    code { "?wait=" } " until the command has its entry in the log, and until "
                    "the view has applied it. " (self.audit_method())
                }
                p {
                    @if self.machine.shared_with_target {
                        "Generator, auditor and target ran on the same machine."
                    } @else {
                        "The generator ran on the machine above, the target elsewhere: the "
                        "latencies include the network."
                    }
                    " Fanfold loadtest " (shown(&self.version)) "."
                }
            }
        }
    }
}

impl Workload {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let (tenant, tenants, users, clients) = match self.partition {
            Partition::Org => {
                ("organisation", "organisations", "users of each", "clients of each user")
            }
            Partition::User => {
                ("user", "users, each with a log", "clients of each", "parts of each client")
            }
        };
        let together = match (self.batch, self.batch_of_one_tenant) {
            (0 | 1, _) => "1".to_owned(),
            (n, true) => format!("{}, of one {tenant}", count(n as u64)),
            (n, false) => format!("{}, of any {tenant}", count(n as u64)),
        };
        let spread = match self.zipf {
            0.0 => "equal".to_owned(),
            zipf => format!("Zipf, exponent {}", plain(zipf)),
        };
        let mut pairs = vec![("service", shown(&self.service))];
        pairs.extend(self.file.as_deref().map(|file| ("workload", shown(file))));
        pairs.extend([
            ("arrivals", shown(&self.arrivals)),
            ("commands a second, at most", plain(self.rate)),
            ("seconds", plain(self.duration_s)),
            (tenants, count(self.tenants)),
            ("their shares", spread),
            (users, count(self.users)),
            (clients, count(self.clients)),
            ("commands in a request", together),
        ]);
        let payload = self.payload.map(|bytes| count(bytes as u64));
        pairs.extend(payload.map(|bytes| ("bytes of a command, about", bytes)));
        pairs.extend([
            ("sent again", share(self.duplicates)),
            ("ids out of order", share(self.out_of_order)),
        ]);
        pairs.extend(self.rejected.map(|part| ("to be rejected by the ledger", share(part))));
        pairs.extend([
            ("seed", self.seed.to_string()),
            ("threads of the generator", count(self.threads as u64)),
            ("connections, at most", count(self.connections as u64)),
        ]);
        pairs
    }
}

fn figure(chart: &Chart) -> Markup {
    html! {
        figure {
            h2 { (chart.title) }
            p.quiet { (chart.about) }
            p.key {
                @for (colour, stroke, name) in &chart.key {
                    span {
                        i.line.dashed[*stroke == Stroke::Dashed].broad[*stroke == Stroke::Broad]
                            style={"color:" (css(*colour))} {}
                        (name)
                    }
                }
            }
            (chart.wide)
            (chart.narrow)
        }
    }
}

fn steps(search: &Search) -> Markup {
    let verdict = |failed: &Option<String>| failed.as_deref().map_or("held".to_owned(), shown);
    html! {
        section {
            h2 { "Search" }
            p.quiet { "Rates in the order they were tried, with " (shown(&search.slo)) "." }
            table.figures.steps {
                thead { tr {
                    th scope="col" { "rate/s" }
                    th scope="col" { "accepted/s" }
                    th scope="col" { "accept p99, ms" }
                    th scope="col" { "view p99, ms" }
                    th scope="col" { "sent late p99, ms" }
                    th.why scope="col" { "held?" }
                } }
                tbody {
                    @for step in &search.steps {
                        tr.best[search.highest == Some(step.rate) && step.failed.is_none()] {
                            td { (plain(step.rate)) }
                            td { (number(step.accepted_per_s)) }
                            td { (number(step.accept_p99_ms)) }
                            td { (number(step.view_p99_ms)) }
                            td { (number(step.send_p99_ms)) }
                            td.why.failed[step.failed.is_some()] { (verdict(&step.failed)) }
                        }
                    }
                }
            }
        }
    }
}

fn examples(audit: &Verdict) -> Markup {
    let place = |breach: &Breach| match breach.seq {
        Some(seq) => format!("{} at {seq}", shown(&breach.log)),
        None => shown(&breach.log),
    };
    html! {
        h3 {
            "Counter-examples"
            @if (audit.examples.len() as u64) < audit.breaches {
                ": the first " (audit.examples.len()) " of " (count(audit.breaches))
            }
        }
        ol.breaches {
            @for breach in &audit.examples {
                li {
                    b { (breach.invariant.id()) } " "
                    code { (place(breach)) }
                    p { (shown(&breach.what)) }
                }
            }
        }
    }
}

/// The invariants that the audit has checked, and what it has checked of them.
fn checked(audit: &Verdict) -> Vec<(Invariant, &'static str)> {
    let checked = |one: &Invariant| Some((*one, one.checked(audit)?));
    Invariant::ALL.iter().filter_map(checked).collect()
}

fn outcomes(audit: &Verdict) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        audit.outcomes.iter().map(|(status, times)| (shown(status), count(*times))).collect();
    let balance = audit.balance.map(count);
    pairs.extend(balance.map(|sum| ("money in all accounts, minor units".to_owned(), sum)));
    pairs
}

fn brief(result: AuditResult, audit: Option<&Verdict>) -> String {
    let Some(audit) = audit else { return "no audit was made".to_owned() };
    match result {
        AuditResult::Failed => {
            format!("{} found by the audit", counted(audit.breaches, "breach", "breaches"))
        }
        _ => format!("audit of {} receipts", count(audit.receipts)),
    }
}

fn badge(result: AuditResult) -> Markup {
    let class = match result {
        AuditResult::Passed => "passed",
        AuditResult::Failed => "failed",
        AuditResult::Unfinished | AuditResult::Nothing => "unfinished",
        AuditResult::NotAsked => "unasked",
    };
    html! { span class={"badge " (class)} { (result.word()) } }
}

fn dot(latency: &str) -> Markup {
    html! { i.dot style={"background:" (css(colour_of(latency)))} {} }
}

fn pairs<N: AsRef<str>>(pairs: Vec<(N, String)>) -> Markup {
    html! {
        dl.pairs {
            @for (name, value) in pairs {
                div { dt { (name.as_ref()) } dd { (value) } }
            }
        }
    }
}

/// Keeps a number and its unit on one line.
fn unbroken(text: &str) -> String {
    text.replace(" ms", "\u{a0}ms").replace(" s,", "\u{a0}s,").replace(" % ", "\u{a0}% ")
}

/// A time for people; other texts stay as they are.
fn when(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%-d %B %Y, %H:%M UTC").to_string(),
        Err(_) => shown(rfc3339),
    }
}

/// The text with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let stop = if text.ends_with(['.', '…', '!', '?']) { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}
