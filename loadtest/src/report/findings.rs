//! The words of a report, for the terminal and the page.

use super::figures::{self, count, counted, duration, number};
use super::{Counts, Latency, Report, Search};
use crate::text::shown;
use auditor::Verdict;

/// How late requests may be sent, at p99, before a note says so.
const LATE_MS: f64 = 10.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuditResult {
    /// Everything that was compared agrees.
    Passed,
    Failed,
    /// It did not finish, and found no breach.
    Unfinished,
    /// There was no receipt.
    Nothing,
    NotAsked,
}

impl AuditResult {
    pub(super) fn of(audit: Option<&Verdict>) -> Self {
        match audit {
            None => Self::NotAsked,
            Some(audit) if audit.breaches > 0 => Self::Failed,
            Some(audit) if audit.unfinished.is_some() => Self::Unfinished,
            Some(audit) if audit.receipts == 0 => Self::Nothing,
            Some(_) => Self::Passed,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "PASS",
            Self::Failed => "FAIL",
            Self::Unfinished => "UNFINISHED",
            Self::Nothing => "NOTHING TO AUDIT",
            Self::NotAsked => "NOT AUDITED",
        }
    }
}

pub(super) fn name_of(latency: &str) -> String {
    match latency {
        "accept" => "accepted (202)".to_owned(),
        "entry" => "entry in the log".to_owned(),
        "view" => "visible in a view".to_owned(),
        "send" => "sent late".to_owned(),
        other => shown(other),
    }
}

/// The result of the audit, on one line.
pub(super) fn verdict(audit: Option<&Verdict>) -> String {
    let result = AuditResult::of(audit);
    let Some(audit) = audit else {
        return "no audit was made".to_owned();
    };
    let found = match (result, &audit.unfinished) {
        (AuditResult::Failed, None) => counted(audit.breaches, "breach", "breaches"),
        (AuditResult::Failed, Some(why)) => format!(
            "{}, and the audit did not finish: {}",
            counted(audit.breaches, "breach", "breaches"),
            shown(why)
        ),
        (_, Some(why)) => format!("no breach, but the audit did not finish: {}", shown(why)),
        (AuditResult::Nothing, None) => "there was no receipt to compare".to_owned(),
        (_, None) => "no breach".to_owned(),
    };
    format!(
        "{found}; {} of {} read, {}, {}, {} and {} compared in {} s",
        count(audit.logs),
        counted(audit.logs_named, "log", "logs"),
        counted(audit.entries, "entry", "entries"),
        counted(audit.receipts, "receipt", "receipts"),
        counted(audit.rows, "row", "rows"),
        counted(audit.seen, "observation", "observations"),
        number(audit.seconds),
    )
}

impl Report {
    /// The latency of this name, if it was measured at least once.
    pub(super) fn latency(&self, of: &str) -> Option<&Latency> {
        self.latencies.iter().find(|latency| latency.of == of && latency.count > 0)
    }

    pub(super) fn headline(&self) -> String {
        if let Some(audit) = self.audit.as_ref().filter(|audit| audit.breaches > 0) {
            return format!(
                "The audit found {} at {} commands a second",
                counted(audit.breaches, "breach", "breaches"),
                number(self.counts.accepted_per_s)
            );
        }
        if let Some(search) = &self.search {
            let slo = shown(&search.slo);
            return match search.highest {
                Some(rate) => format!("{} commands a second with {slo}", figures::plain(rate)),
                None => format!("No rate that was tried held {slo}"),
            };
        }
        if self.counts.accepted == 0 {
            return "No command was accepted".to_owned();
        }
        let mut headline = format!("{} commands a second", number(self.counts.accepted_per_s));
        let p99 = |of| self.latency(of).map(|latency| duration(latency.p99_ms));
        let (accept, view) = (p99("accept"), p99("view"));
        let (accepted, seen) = match self.counts.accepted >= self.counts.due {
            true => (": 99 % accepted within ", " visible within "),
            // The time of commands that were never accepted is unknown.
            false => (": accept p99 ", " view p99 "),
        };
        headline += &accept.map_or_else(|| ":".to_owned(), |accept| format!("{accepted}{accept},"));
        headline += &view.map_or_else(String::new, |view| format!("{seen}{view}"));
        headline.truncate(headline.trim_end_matches([',', ':']).len());
        if self.counts.accepted < self.counts.due {
            headline += &format!("; {} were accepted", self.accepted_share());
        }
        headline
    }

    /// Rounded down, so that 100 % means all.
    fn accepted_share(&self) -> String {
        let Counts { accepted, due, .. } = self.counts;
        let hundredths = u128::from(accepted) * 10_000 / u128::from(due.max(1));
        format!("{}.{:02} %", hundredths / 100, hundredths % 100)
    }

    /// The notes: what a reader of the numbers must know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let counts = &self.counts;
        if self.interrupted {
            notes.push("The load was ended early by Ctrl-C.".to_owned());
        }
        if self.machine.shared_with_target {
            notes.push(
                "Generator and target share the processors of this machine: alone, the target \
                 would be faster."
                    .to_owned(),
            );
        }
        if counts.unsent > 0 {
            notes.push(format!(
                "{} due and never sent. In the latencies they count as accepted when they were \
                 given up.",
                counted(counts.unsent, "command was", "commands were"),
            ));
        }
        if counts.unanswered > 0 {
            notes.push(format!(
                "{} never answered in spite of retries, and may have entries. In the latencies \
                 they count as accepted when they were given up.",
                counted(counts.unanswered, "command was", "commands were"),
            ));
        }
        if let Some(send) = self.latency("send").filter(|send| send.p99_ms >= LATE_MS) {
            notes.push(format!(
                "One request in a hundred was sent at least {} late, since no connection or \
                 processor was free. The latencies include that.",
                duration(send.p99_ms),
            ));
        }
        let suspects = |search: &Search| search.steps.iter().any(|step| step.may_be_the_generator);
        if self.search.as_ref().is_some_and(suspects) {
            notes.push(
                "Where a rate did not hold, requests were sent late: this may be the limit of the \
                 generator, not of the target. Try more --connections or --threads."
                    .to_owned(),
            );
        }
        if counts.samples_unseen > 0 {
            notes.push(format!(
                "{} given up before entry or view showed it: the real latencies of both are \
                 higher than shown.",
                counted(counts.samples_unseen, "sample was", "samples were"),
            ));
        }
        if let Some(refusal) = &self.refusal {
            notes.push(format!("The first command without a receipt: {}", shown(refusal)));
        }
        if counts.samples_dropped > 0 {
            notes.push(format!(
                "{} not taken, since too many were waiting.",
                counted(counts.samples_dropped, "sample was", "samples were"),
            ));
        }
        notes.extend(self.audit.iter().flat_map(|audit| &audit.notes).map(|note| shown(note)));
        notes
    }

    /// In a search the latencies are of one of its steps: of which.
    pub(super) fn at_which_rate(&self) -> String {
        let rate = self.search.as_ref().and_then(|search| search.highest);
        rate.map_or_else(String::new, |rate| {
            format!(" At {} commands a second.", figures::plain(rate))
        })
    }

    pub(super) fn tallies(&self) -> Vec<(&'static str, String)> {
        let counts = &self.counts;
        let mut tallies = vec![
            ("commands due", count(counts.due)),
            ("accepted", count(counts.accepted)),
            ("refused", count(counts.refused)),
            ("unanswered", count(counts.unanswered)),
            ("unsent", count(counts.unsent)),
            ("requests answered", count(counts.requests)),
            ("sent again", self.retries()),
            ("accepted a second", number(counts.accepted_per_s)),
            ("requests a second", number(counts.requests_per_s)),
            ("seconds", number(counts.elapsed_s)),
        ];
        if counts.samples_dropped > 0 || counts.samples_unseen > 0 {
            tallies.push(("samples not taken", count(counts.samples_dropped)));
            tallies.push(("samples given up", count(counts.samples_unseen)));
        }
        tallies
    }

    fn retries(&self) -> String {
        let by_kind: Vec<_> = (self.counts.retries.iter())
            .filter(|(_, times)| **times > 0)
            .map(|(kind, times)| format!("{} × {}", count(*times), shown(kind)))
            .collect();
        if by_kind.is_empty() { "0".to_owned() } else { by_kind.join(", ") }
    }
}
