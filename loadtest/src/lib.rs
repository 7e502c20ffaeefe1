//! The load generator and its auditor.
//!
//! It drives a ledger over HTTP, whoever runs it, at a rate of its own (open loop), and then reads
//! back what became of every command. It knows the API and the rules of the ledger, and nothing of
//! how they are kept: no crate of Fanfold is linked here, so that a bug cannot hide by being on
//! both sides.
//!
//! In the order of a run: `options` says what is asked; `load` drives the target with threads
//! (`openings`: the accounts; `open_loop`: when requests leave; `exchange`: one request; `samples`:
//! what becomes of some), which write down what they are told (`receipts`); `audit` reads back;
//! `report` shows it.

pub mod options;
pub mod report;

mod answers;
mod arrivals;
mod drive;
mod evidence;
mod exchange;
mod held;
mod interrupt;
mod live;
mod load;
mod machine;
mod measure;
mod open_loop;
mod openings;
mod pacer;
mod progress;
mod run;
mod samples;
mod search;
mod text;
mod workload;

use std::process::ExitCode;

use crate::options::{Options, Task};

/// Does what the command line says. A breach, or a load of which nothing was accepted, is a failure;
/// what kept it from being done is printed.
pub fn main(options: &Options) -> ExitCode {
    let clean = match &options.task {
        Task::Run(run) => run::run(run),
        Task::Audit(audit) => run::audit(audit),
    };
    match clean {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // The target may have had its say in it.
            text::complain(&format!("error: {}", text::shown(&format!("{error:#}"))));
            ExitCode::from(2)
        }
    }
}
