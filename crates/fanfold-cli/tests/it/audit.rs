//! Compares a host's answers with the receipts of its clients. Uses the load generator's auditor,
//! which shares no code with the host.

use std::fs::File;
use std::io::{BufWriter, Write};

use auditor::http::Target;
use auditor::receipts::{self, End, Line, Run};
use auditor::{Options, Verdict};

use crate::load::{Load, Sent, USERS};

/// Waits until all accepted commands are processed, then checks everything.
pub(crate) fn audit(url: &str, load: &Load) -> Verdict {
    let file = tempfile::NamedTempFile::new().expect("a file");
    write(file.as_file(), load).expect("the receipts are written");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let verdict = runtime.expect("a runtime starts").block_on(async {
        let target = Target::new(url, None).expect("it is a URL");
        auditor::audit(&target, file.path(), &Options::default(), |_| ()).await
    });
    let verdict = verdict.expect("the receipts are as the auditor wants them");
    // A host may crash before its first receipt, so "no receipts" is allowed.
    assert!(verdict.breaches == 0 && verdict.unfinished.is_none(), "{verdict:#?}");
    verdict
}

fn write(file: &File, load: &Load) -> serde_json::Result<()> {
    let mut file = BufWriter::new(file);
    let mut line = |line: &Line| {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n").map_err(serde_json::Error::io)
    };
    line(&Line::Run(Run::of_ledger(USERS)))?;
    for sent in load.sent() {
        for seq in &sent.seqs {
            line(&Line::Receipt(of(sent).promised(*seq)))?;
        }
        if sent.seqs.is_empty() {
            line(&Line::Unanswered(of(sent)))?;
        }
    }
    line(&Line::End(End {}))
}

fn of(sent: &Sent) -> receipts::Sent {
    let Sent { org, user, id, command, .. } = sent.clone();
    receipts::Sent { log: format!("ledger/org:{org}"), user, client: None, id, command, memo: None }
}
