//! Connects the stages to the ports of a host.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::{AnyView, Services, Views};

use crate::ingest::{Ingest, IngestPorts};
use crate::ports::{
    Admission, CommandStream, Commands, DeadLetters, Env, Journal, OperatorView, ParkedTable,
    State, Topic, Waits,
};
use crate::process::{Processor, ProcessorPorts};
use crate::project::{Projector, ProjectorPorts};
use crate::read::{ReadPorts, Reads, ServedView, ServedViews};
use crate::relay::{Relay, RelayPorts};
use crate::sweep::{Sweep, SweepPorts, ViewSweep, ViewSweepPorts};
use crate::telemetry::Telemetry;

/// All ports of a host. Each stage gets those that it needs.
#[derive(Clone)]
pub struct Wiring {
    /// The commands table.
    pub commands: Arc<dyn Commands>,
    /// Decides whether commands are accepted now.
    pub admission: Arc<dyn Admission>,
    /// The command stream.
    pub stream: Arc<dyn CommandStream>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Heads, documents and windows.
    pub state: Arc<dyn State>,
    /// Parked items, and leases.
    pub parked: Arc<dyn ParkedTable>,
    /// Publishes commits.
    pub topic: Arc<dyn Topic>,
    /// Messages that no projector could apply.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The tables of the views, by the views' names.
    pub views: BTreeMap<String, Arc<dyn OperatorView>>,
    /// Waits for logs and views.
    pub waits: Arc<dyn Waits>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
    /// What the stages measure; `None`: nothing.
    pub telemetry: Option<Arc<Telemetry>>,
}

impl Wiring {
    /// The stage that accepts commands.
    pub fn ingest(&self, services: Services) -> Ingest {
        let Self { commands, admission, env, .. } = self.clone();
        Ingest::new(IngestPorts { commands, admission, env }, services)
            .with_telemetry(self.telemetry.clone())
    }

    /// The stage that puts changes on the command stream.
    pub fn relay(&self) -> Relay {
        let Self { stream, env, .. } = self.clone();
        Relay::new(RelayPorts { stream, env }).with_telemetry(self.telemetry.clone())
    }

    /// The stage that decides commands.
    pub fn processor(&self, services: Services) -> Processor {
        let Self { journal, state, parked, topic, stream, env, .. } = self.clone();
        Processor::new(ProcessorPorts { journal, state, parked, topic, stream, env }, services)
            .with_telemetry(self.telemetry.clone())
    }

    /// The stage that applies commits to a view. It panics if the view has no table here.
    pub fn projector(&self, view: &Arc<dyn AnyView>) -> Projector {
        let Self { journal, env, .. } = self.clone();
        let table = self.views[view.name()].clone();
        Projector::new(view.clone(), ProjectorPorts { table, journal, env })
            .with_telemetry(self.telemetry.as_deref())
    }

    /// The sweep over all logs.
    pub fn sweep(&self) -> Sweep {
        let Self { commands, journal, parked, stream, env, .. } = self.clone();
        Sweep::new(SweepPorts { commands, journal, parked, stream, env })
    }

    /// The sweep of the projector's view. It panics if that has no table here.
    pub fn view_sweep(&self, projector: Arc<Projector>) -> ViewSweep {
        let Self { commands, dead_letters, .. } = self.clone();
        let parked = self.views[projector.view().name()].clone();
        ViewSweep::new(projector, ViewSweepPorts { commands, parked, dead_letters })
    }

    /// Answers callers from the journal and from these views. It panics if one has no table here.
    pub fn reads(&self, views: &Views, services: Services) -> Reads {
        let table = |view: &dyn AnyView| self.views[view.name()].clone();
        let served = views.iter().map(|view| ServedView::new(&**view, table(&**view)));
        self.reads_of(ServedViews::new(served), services)
    }

    /// Answers callers from the journal and from these views.
    pub fn reads_of(&self, served: ServedViews, services: Services) -> Reads {
        let Self { commands, journal, state, waits, env, .. } = self.clone();
        Reads::new(ReadPorts { commands, journal, state, waits, env }, served, services)
    }
}
