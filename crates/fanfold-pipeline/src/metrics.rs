//! The metrics of all hosts, as data: names, kinds, units, helps, labels.
//!
//! `fanfold up` shows those with a [`Metric::name`] at `/metrics`. The Lambdas send those with
//! [`Metric::aws`] to CloudWatch, whose names cannot have the labels of Prometheus: there, each value
//! of a label has a name of its own. Tests compare this list with what the hosts send, with the
//! dashboards, and with `docs/metrics.md`.

use fanfold::host::body::parked::Reason;

/// How a metric's values are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that grows; in CloudWatch, what was added since the last one.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// The unit of a metric's values. A metric without one counts something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// What a metric describes in CloudWatch, where it is a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole stack.
    Stack,
    /// One function of the stack.
    Function,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name for Prometheus: with `_total` at the end of a counter's, else with the unit. It is
    /// also the row in `docs/metrics.md`.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The unit.
    pub unit: Option<Unit>,
    /// One line for people, without a full stop.
    pub help: &'static str,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// Whether `fanfold up` has it.
    pub up: bool,
    /// The names in CloudWatch; none if the Lambdas do not send it.
    pub aws: &'static [&'static str],
    /// The dimension in CloudWatch.
    pub scope: Scope,
}

macro_rules! metrics {
    ($($id:ident = $name:literal $kind:ident $unit:expr, $labels:expr, $up:literal,
        $scope:ident $aws:expr, $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                help: $help,
                labels: &$labels,
                up: $up,
                aws: &$aws,
                scope: Scope::$scope,
            };
        )*

        /// All metrics, in the order of a command's path.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

const S: Option<Unit> = Some(Unit::Seconds);
const BYTES: Option<Unit> = Some(Unit::Bytes);
const N: Option<Unit> = None;

metrics! {
    HTTP_REQUESTS = "fanfold_http_requests_total" Counter N, ["method", "route", "status"], true, Stack [],
        "HTTP requests answered";
    HTTP_COMMANDS = "fanfold_http_commands_total" Counter N, ["answer"], true, Stack [],
        "Commands answered, with a receipt or with a problem";
    REFUSED = "fanfold_refused_total" Counter N, ["reason"], true, Stack [],
        "Commands answered with a problem, by the last part of the problem's type";
    HTTP_CONNECTIONS = "fanfold_http_connections" Gauge N, [], true, Stack [],
        "Connections of clients";
    HTTP_CONNECTIONS_LIMIT = "fanfold_http_connections_limit" Gauge N, [], true, Stack [],
        "The most connections of clients that may be open";
    HTTP_BODY_BYTES = "fanfold_http_body_bytes" Gauge BYTES, [], true, Stack [],
        "Bytes of long bodies in memory";
    HTTP_BODY_LIMIT = "fanfold_http_body_limit_bytes" Gauge BYTES, [], true, Stack [],
        "The most bytes of long bodies that may be in memory";

    ACCEPT = "fanfold_accept_seconds" Histogram S, [], true, Function [],
        "Time from a request until its command is durable";
    RELAY = "fanfold_relay_seconds" Histogram S, [], true, Function ["RelaySeconds"],
        "Time from the acceptance of a command until the command stream has it";
    DECIDE = "fanfold_decide_seconds" Histogram S, [], true, Function ["DecideSeconds"],
        "Time from the acceptance of a command until the journal has its entry";
    PUBLISH = "fanfold_publish_seconds" Histogram S, [], true, Function ["PublishSeconds"],
        "Time from the acceptance of a command until its entry is published";
    APPLY = "fanfold_apply_seconds" Histogram S, ["view"], true, Function ["ApplySeconds"],
        "Time from the acceptance of a command until the view has applied its entry";
    OUTCOMES = "fanfold_outcomes_total" Counter N, ["outcome"], true, Function
        ["Accepted", "Rejected", "Duplicates", "Stale", "Faulted", "Lost"],
        "Entries appended to the journal, by outcome";
    CACHE_LOOKUPS = "fanfold_cache_lookups_total" Counter N, ["result"], true, Function
        ["CacheHits", "CacheMisses"],
        "Logs that the processor has found in its cache, or had to load";

    BACKLOG = "fanfold_backlog" Gauge N, ["stage"], true, Stack [],
        "Batches of commands that wait for a stage; for `views`, notifications";
    LAG = "fanfold_lag_seconds" Gauge S, ["stage"], true, Stack [],
        "Age of the oldest item that waits for the stage; 0 if none waits";
    VIEW_BACKLOG = "fanfold_view_backlog" Gauge N, ["view"], true, Stack [],
        "Notifications that the view has not taken";
    VIEW_LAG = "fanfold_view_lag_seconds" Gauge S, ["view"], true, Stack [],
        "Age of the oldest notification that the view has not taken; 0 if there is none";
    DELIVERIES = "fanfold_deliveries_total" Counter N, ["view", "outcome"], true, Stack [],
        "Deliveries of notifications to views, by outcome";

    STANDSTILL = "fanfold_standstill_seconds" Gauge S, [], true, Stack ["StandstillMsMax"],
        "The longest time that a log has had a command without an entry, as the last sweep saw it";
    CANARY_AGE = "fanfold_canary_age_seconds" Gauge S, [], false, Stack ["CanaryAgeMsMax"],
        "Age of the oldest canary's last entry";
    LOGS = "fanfold_swept_logs" Gauge N, [], false, Stack ["Logs"],
        "Logs that the last sweep has visited";
    NUDGED = "fanfold_nudged_logs" Gauge N, [], true, Stack ["Nudged"],
        "Logs that the last sweep nudged";
    RESENT = "fanfold_resent_logs" Gauge N, [], false, Stack ["Resent"],
        "Logs whose slot's batch the last sweep put on the command stream again";
    FAILED = "fanfold_failed_logs" Gauge N, [], true, Stack ["Failed"],
        "Logs that the last sweep could not read or nudge";
    ATTEMPTED = "fanfold_attempted_logs" Gauge N, [], true, Stack ["Attempted"],
        "Logs with a record that has ended its process, as the last sweep saw them";
    WAITING = "fanfold_waiting_logs" Gauge N, [], true, Stack ["Waiting"],
        "Logs with something that waits for an operator, or waits too long";
    PARKED = "fanfold_parked_logs" Gauge N, ["reason"], true, Stack
        ["WaitingGap", "WaitingNoService", "WaitingCannotFold", "WaitingConflict",
         "WaitingUndecodable", "WaitingSuspect", "WaitingUnpublished", "WaitingGivenUp"],
        "Logs with something that is parked, however short, by the reason";

    VIEW_WALK_LOGS = "fanfold_view_walk_logs" Gauge N, ["view"], true, Function ["ViewLogs"],
        "Logs that the walk of the view's sweep has inspected: the one under way, else the last";
    VIEW_WALKS = "fanfold_view_walks_total" Counter N, ["view"], true, Function ["ViewWalks"],
        "Walks of the view's sweep over all logs: after the first, a new view has the old entries";
    VIEW_PARKED = "fanfold_view_parked_logs" Gauge N, ["view"], true, Stack ["ViewParked"],
        "Logs for which the view is parked, as its sweep saw them";
    VIEW_BEHIND = "fanfold_view_behind_logs" Gauge N, ["view"], false, Stack ["ViewBehind"],
        "Logs for which the view was behind, and caught up";
    VIEW_FAILED = "fanfold_view_failed_logs" Gauge N, ["view"], false, Stack ["ViewFailed"],
        "Logs for which the view could not catch up";
    VIEW_UNDER_WAY = "fanfold_view_under_way_logs" Gauge N, ["view"], false, Stack ["ViewUnderWay"],
        "Logs that the view's sweep has skipped, since another process was catching up on them";
    VIEW_DELIVERED = "fanfold_view_redelivered_total" Counter N, ["view"], false, Stack ["ViewDelivered"],
        "Dead letters that the view's sweep has delivered";
    VIEW_UNDELIVERED = "fanfold_view_dead_letters" Gauge N, ["view"], false, Stack ["ViewUndelivered"],
        "Dead letters that stay in the queue, and calls of the queue that failed";

    SYNCS = "fanfold_syncs_total" Counter N, [], true, Stack [],
        "Syncs of the command log";
    CHECKPOINTS = "fanfold_checkpoints_total" Counter N, [], true, Stack [],
        "Checkpoints of the tables";
    COMMAND_LOG_BYTES = "fanfold_command_log_bytes" Gauge BYTES, [], true, Stack [],
        "Bytes of the command log";
    UNSAVED_BYTES = "fanfold_unsaved_bytes" Gauge BYTES, [], true, Stack [],
        "Bytes that the next checkpoint will store";

    RECORDS = "fanfold_records_total" Counter N, [], false, Function ["Records"],
        "Records or messages in the events of a function";
    UNFINISHED = "fanfold_unfinished_total" Counter N, [], false, Function ["Unfinished"],
        "Records or messages that Lambda has to deliver again";
    UNREADABLE = "fanfold_unreadable_total" Counter N, [], false, Stack ["Unreadable"],
        "Changes, records and messages that were skipped because they cannot be read";
    SCHEDULES_DROPPED = "fanfold_schedules_dropped_total" Counter N, [], false, Function ["SchedulesDropped"],
        "Scheduled events that were dropped because the next one was sent already";
    READ_UNITS = "fanfold_read_units_total" Counter N, [], false, Function ["ReadUnits"],
        "Read units of DynamoDB";
    WRITE_UNITS = "fanfold_write_units_total" Counter N, [], false, Function ["WriteUnits"],
        "Write units of DynamoDB, with one for each condition that failed";
}

/// The value of the label `reason` of [`PARKED`].
pub fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Gap => "gap",
        Reason::NoService => "no_service",
        Reason::CannotFold => "cannot_fold",
        Reason::Conflict => "conflict",
        Reason::Undecodable => "undecodable",
        Reason::Suspect => "suspect",
        Reason::Unpublished => "unpublished",
        Reason::GivenUp => "given_up",
    }
}

impl Metric {
    /// Whether CloudWatch has a metric of this name.
    pub fn of_aws(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|metric| metric.aws.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("fanfold_"), "{name}");
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(is_plain), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            for (unit, end) in [(Unit::Seconds, "_seconds"), (Unit::Bytes, "_bytes")] {
                let base = name.trim_end_matches("_total");
                assert_eq!(base.ends_with(end), metric.unit == Some(unit), "{name}");
            }
            for end in ["_ms", "_max", "_min", "_count", "_sum", "_bucket", "_info", "_gauge"] {
                assert!(!name.ends_with(end), "{name} ends with {end}");
            }
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
            assert!(metric.up || !metric.aws.is_empty(), "{name}: no host has it");
            let labels: BTreeSet<_> = metric.labels.iter().collect();
            assert_eq!(labels.len(), metric.labels.len(), "{name}");
            assert!(!labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn the_names_of_reasons_are_those_of_stored_items() {
        for (at, of) in Reason::ALL.into_iter().enumerate() {
            let stored = serde_json::to_value(of).expect("a reason can be written");
            assert_eq!(stored, reason(of));
            let words = reason(of).split('_').map(|word| {
                let (first, rest) = word.split_at(1);
                first.to_uppercase() + rest
            });
            assert_eq!(PARKED.aws[at], format!("Waiting{}", words.collect::<String>()));
        }
    }

    #[test]
    fn a_name_of_cloudwatch_is_that_of_one_metric() {
        let names: Vec<&str> = ALL.iter().flat_map(|metric| metric.aws).copied().collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len());
        for name in names {
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
        }
        assert_eq!(Metric::of_aws("WaitingGap").map(|metric| metric.name), Some(PARKED.name));
        assert_eq!(Metric::of_aws("Nothing"), None);
    }
}
