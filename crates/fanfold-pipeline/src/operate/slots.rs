//! Slots that are behind their logs.

use fanfold::{LogId, Seq};

use super::{Done, Operate, OperateError, note};
use crate::ports::{SlotRaise, Token};

impl Operate {
    /// Raises the log's slot to the journal's tail, if it is behind or missing, as after a restore of the commands table.
    /// New commands then get positions behind the tail.
    ///
    /// Commands above the tail that are still on their way keep their positions only if they come first. They are not
    /// counted in, since positions that no command takes would stop the log.
    pub async fn raise(&self, log: &LogId) -> Result<Done, OperateError> {
        // A slot never goes back, so one that is read later and below this tail is behind.
        let tail = self.ports.journal.tail(log).await?;
        let slot = self.ports.commands.slot(log).await?;
        if slot.map_or(Seq::ZERO, |slot| slot.seq) >= tail {
            return Ok(Done::Fits);
        }
        let env = &self.ports.env;
        let token = Token(u128::from(env.random()) << 64 | u128::from(env.random()));
        note("raise", log, tail, "", "");
        match self.ports.commands.raise(log, tail, env.now(), token).await? {
            SlotRaise::Refused(slot) if slot.token != token => Ok(Done::Fits),
            // The slot has this token if the answer of an earlier try was lost.
            SlotRaise::Raised | SlotRaise::Refused(_) => {
                Ok(Done::Raised { log: log.clone(), to: tail })
            }
        }
    }
}
