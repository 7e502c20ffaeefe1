//! The engine's and the host's metrics for `/metrics`. Their names, kinds and helps are in
//! [`fanfold_pipeline::metrics`].

use std::fmt;

use fanfold::host::body::parked::Reason;
use fanfold_embedded::{Monitor, Status};
use fanfold_http::metrics::{latencies, value, values};
use fanfold_pipeline::metrics as list;
use fanfold_pipeline::telemetry::OUTCOMES;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

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
        for (metric, number) in [
            (&list::HTTP_CONNECTIONS, connections),
            (&list::HTTP_CONNECTIONS_LIMIT, connections_max),
            (&list::HTTP_BODY_BYTES, bytes),
            (&list::HTTP_BODY_LIMIT, bytes_max),
        ] {
            value(&mut encoder, metric, number as f64)?;
        }
        Ok(())
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.figures(&mut encoder)?;
        let status = self.0.status();
        self.lags(&mut encoder, &status)?;
        sweeps(&mut encoder, &status)?;
        self.store(&mut encoder)
    }
}

impl Gauges {
    /// What the stages have measured.
    fn figures(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures = self.0.figures();
        for (metric, of) in [
            (&list::ACCEPT, &figures.accept),
            (&list::RELAY, &figures.relay),
            (&list::DECIDE, &figures.decide),
            (&list::PUBLISH, &figures.publish),
        ] {
            latencies(encoder, metric, [(None, of)])?;
        }
        let apply = figures.apply.iter().map(|(view, of)| (Some(view.as_str()), of));
        latencies(encoder, &list::APPLY, apply)?;
        let outcomes = OUTCOMES.into_iter().zip(figures.outcomes);
        values(encoder, &list::OUTCOMES, outcomes.map(|(outcome, n)| ([outcome], n as f64)))?;
        let lookups = [("hit", figures.cache_hits), ("miss", figures.cache_misses)];
        values(encoder, &list::CACHE_LOOKUPS, lookups.map(|(result, n)| ([result], n as f64)))
    }

    /// What waits for the stages and views.
    fn lags(&self, encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
        let lags = self.0.lags();
        let hops = [
            ("relay", status.changes),
            ("process", status.records),
            ("views", status.notifications),
        ];
        values(encoder, &list::BACKLOG, hops.map(|(stage, n)| ([stage], n as f64)))?;
        let oldest_of_views = lags.views.iter().map(|(_, waiting)| waiting.oldest_ms).max();
        let hops = [
            ("relay", lags.relay_ms),
            ("process", lags.process_ms),
            ("views", oldest_of_views.unwrap_or(0)),
        ];
        values(encoder, &list::LAG, hops.map(|(stage, ms)| ([stage], seconds(ms))))?;
        let items = lags.views.iter().map(|(view, of)| ([*view], of.items as f64));
        values(encoder, &list::VIEW_BACKLOG, items)?;
        let oldest = lags.views.iter().map(|(view, of)| ([*view], seconds(of.oldest_ms)));
        values(encoder, &list::VIEW_LAG, oldest)?;
        let deliveries = status.deliveries.iter().flat_map(|(view, counts)| {
            [
                ("delivered", counts.delivered()),
                ("retried", counts.retried()),
                ("dead", counts.dead()),
                ("lost", counts.lost()),
            ]
            .map(|(outcome, n)| ([*view, outcome], n as f64))
        });
        values(encoder, &list::DELIVERIES, deliveries)
    }

    /// What is on disk.
    fn store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(durable) = self.0.durable() else { return Ok(()) };
        for (metric, number) in [
            (&list::SYNCS, durable.syncs()),
            (&list::CHECKPOINTS, durable.checkpoints()),
            (&list::COMMAND_LOG_BYTES, durable.command_log_bytes()),
            (&list::UNSAVED_BYTES, durable.unsaved_bytes() as u64),
        ] {
            value(encoder, metric, number as f64)?;
        }
        Ok(())
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// What the sweeps have found.
fn sweeps(encoder: &mut DescriptorEncoder<'_>, status: &Status) -> fmt::Result {
    let walked = &status.walked;
    let logs = walked.iter().map(|(view, walked)| ([*view], walked.logs() as f64));
    values(encoder, &list::VIEW_WALK_LOGS, logs)?;
    let walks = walked.iter().map(|(view, walked)| ([*view], walked.walks() as f64));
    values(encoder, &list::VIEW_WALKS, walks)?;
    let parked = walked.iter().map(|(view, walked)| ([*view], walked.parked() as f64));
    values(encoder, &list::VIEW_PARKED, parked)?;
    let swept = &status.swept;
    for (metric, number) in [
        (&list::STANDSTILL, seconds(swept.standstill_ms_max)),
        (&list::NUDGED, swept.nudged.len() as f64),
        (&list::ATTEMPTED, swept.with_ended_lease as f64),
        (&list::FAILED, swept.failed.len() as f64),
        (&list::WAITING, swept.waiting as f64),
    ] {
        value(encoder, metric, number)?;
    }
    let parked = Reason::ALL.into_iter().map(|reason| {
        let logs = swept.parked.get(&reason).copied().unwrap_or_default();
        ([list::reason(reason)], logs as f64)
    });
    values(encoder, &list::PARKED, parked)
}
