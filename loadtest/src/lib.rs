//! The load generator: drives a service over HTTP at a rate, audits it, and reports.
//!
//! The load is an open loop: the rate does not depend on the target. The generator knows the API
//! and the commands of the ledger; those of other services are in a workload file. It links no crate
//! of Fanfold but the [`auditor`], which links none.
//!
//! In the order of a run: `options` reads the command line; `description` reads what the target says
//! about its services, with which a workload file is compared; `load` drives the target with threads
//! (`workload` draws commands; `openings` sets tenants up; `open_loop` decides when requests are sent; `exchange` sends
//! one; `samples` measures when commands become visible); `receipt_file` keeps the answers; the
//! auditor reads everything back; `report` shows the results.

pub mod options;
pub mod report;

mod arrivals;
mod description;
mod exchange;
mod held;
mod init;
mod interrupt;
mod live;
mod load;
mod load_thread;
mod machine;
mod measure;
mod open_loop;
mod openings;
mod pacer;
mod progress;
mod receipt_file;
mod replies;
mod run;
mod samples;
mod search;
mod text;
mod workload;

use std::process::ExitCode;

use crate::options::{Options, Task};

/// Runs the command line's task. Exit code 1: a breach, an unfinished audit, or no accepted
/// command; 2: an error, which is printed.
pub fn main(options: &Options) -> ExitCode {
    let clean = match &options.task {
        Task::Run(run) => run::run(run),
        Task::Audit(audit) => run::audit(audit),
        Task::Init(init) => run::init(init),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // The text may come from the target.
            text::print_error(&format!("error: {}", text::shown(&format!("{error:#}"))));
            ExitCode::from(2)
        }
    }
}
