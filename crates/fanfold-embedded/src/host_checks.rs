//! Whether the folder of an engine can be used as it should.

use std::sync::Arc;

use async_trait::async_trait;
use fanfold::with_causes;
use fanfold_pipeline::ports::{HostChecked, HostChecks};

use crate::ports::Ports;
use crate::store::Store;
use crate::transit::Obstacle;

/// The checks of one folder: it is still the one that was opened, it has a format that this build writes (or it would not
/// be open), and commands can be written to it.
pub(crate) struct FolderChecks {
    pub(crate) store: Arc<Store>,
    pub(crate) ports: Ports,
}

#[async_trait]
impl HostChecks for FolderChecks {
    async fn check(&self) -> HostChecked {
        let mut checked = HostChecked::default();
        let folder = self.store.folder().check().err();
        checked.add("folder", Ok(folder.map(|error| with_causes(&error))));
        let obstacle = self.ports.commands.obstacle();
        let obstacle = obstacle.map(|obstacle| match obstacle {
            Obstacle::Full => {
                "the disk is full, so commands are refused: free some space".to_owned()
            }
            Obstacle::Behind(why) | Obstacle::Gone(why) => format!("commands are refused: {why}"),
        });
        checked.add("accepting", Ok(obstacle));
        checked
    }
}
