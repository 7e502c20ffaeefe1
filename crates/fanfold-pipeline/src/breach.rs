//! How the stages report that an invariant does not hold. The stage then parks the log.

use fanfold::LogId;
use fanfold::host::invariant::Breach;

/// Logs the breach with an alarm.
pub(crate) fn report(log: &LogId, breach: &Breach) {
    let Breach { invariant, what } = breach;
    tracing::error!(alarm = "invariant", %invariant, %log, what, "an invariant does not hold");
}
