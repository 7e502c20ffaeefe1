//! The engine's and the host's gauges for `/metrics`.

use std::fmt;

use fanfold_embedded::Monitor;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::host::Usage;

/// Reads the engine's status at each scrape.
pub(crate) struct Gauges(pub Monitor);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

/// Reads the HTTP host's usage at each scrape.
pub(crate) struct HostGauges(pub Usage);

impl fmt::Debug for HostGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostGauges")
    }
}

impl Collector for HostGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ((connections, connections_max), (bytes, bytes_max)) =
            (self.0.connections(), self.0.body_bytes());
        for (name, help, value) in [
            ("http_connections", "Connections of clients", connections),
            ("http_connections_max", "The most connections of clients", connections_max),
            ("http_body_bytes", "Bytes of long bodies in memory", bytes),
            ("http_body_bytes_max", "The most bytes of long bodies in memory", bytes_max),
        ] {
            gauge(&mut encoder, name, help, value as u64)?;
        }
        Ok(())
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.0.status();
        let help = "Items that wait for a stage";
        let mut backlog = encoder.encode_descriptor("backlog", help, None, MetricType::Gauge)?;
        let hops = [
            ("relay", status.changes),
            ("process", status.records),
            ("views", status.notifications),
        ];
        for (stage, items) in hops {
            ConstGauge::new(items as i64).encode(backlog.encode_family(&[("stage", stage)])?)?;
        }
        let help = "Deliveries of notifications to views, by outcome";
        let mut deliveries =
            encoder.encode_descriptor("deliveries", help, None, MetricType::Counter)?;
        for (view, counts) in &status.deliveries {
            let outcomes = [
                ("delivered", counts.delivered()),
                ("retried", counts.retried()),
                ("dead", counts.dead()),
                ("lost", counts.lost()),
            ];
            for (outcome, n) in outcomes {
                let labels = [("view", *view), ("outcome", outcome)];
                ConstCounter::new(n).encode(deliveries.encode_family(&labels)?)?;
            }
        }
        let help = "Logs that the walk of the view's sweep has inspected: the one under way, else the last";
        let mut logs =
            encoder.encode_descriptor("view_walk_logs", help, None, MetricType::Gauge)?;
        for (view, walked) in &status.walked {
            let gauge = ConstGauge::new(walked.logs() as i64);
            gauge.encode(logs.encode_family(&[("view", *view)])?)?;
        }
        let help = "Walks of the view's sweep over all logs that missed none: after the first, a new view has the old entries";
        let mut walks = encoder.encode_descriptor("view_walks", help, None, MetricType::Counter)?;
        for (view, walked) in &status.walked {
            ConstCounter::new(walked.walks()).encode(walks.encode_family(&[("view", *view)])?)?;
        }
        let swept = status.swept;
        for (name, help, value) in [
            (
                "standstill_ms",
                "The longest time that a log has had a command without an entry",
                swept.standstill_ms_max,
            ),
            ("nudged_logs", "Logs that the last sweep nudged", swept.nudged.len() as u64),
            (
                "attempted_logs",
                "Logs with a record that has ended its process, as the last sweep saw them",
                swept.with_ended_lease as u64,
            ),
            (
                "failed_logs",
                "Logs that the last sweep could not read or nudge",
                swept.failed.len() as u64,
            ),
            (
                "waiting_logs",
                "Logs with something that waits for an operator, or waits too long",
                swept.waiting as u64,
            ),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        let Some(durable) = self.0.durable() else { return Ok(()) };
        for (name, help, value) in [
            ("syncs", "Syncs of the command log", durable.syncs()),
            ("checkpoints", "Checkpoints of the tables", durable.checkpoints()),
        ] {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(descriptor)?;
        }
        let log_bytes = durable.command_log_bytes();
        gauge(&mut encoder, "command_log_bytes", "Bytes of the command log", log_bytes)?;
        let unsaved = durable.unsaved_bytes() as u64;
        gauge(&mut encoder, "unsaved_bytes", "Bytes that the next checkpoint will store", unsaved)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value as i64).encode(descriptor)
}
