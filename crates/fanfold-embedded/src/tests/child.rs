//! Runs a test in its own process: this binary, with the arguments to run only that test.

use std::path::Path;
use std::process::{Command, Output};

const FOLDER: &str = "FANFOLD_CHILD_FOLDER";

/// Runs an ignored test in a child process, on a folder.
pub(crate) fn run(test: &str, folder: &Path) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args([test, "--exact", "--ignored", "--nocapture"]);
    command.env(FOLDER, folder).output().expect("it starts")
}

/// In the child: its folder. `None`: this is not a child, but a run of all ignored tests.
pub(crate) fn folder() -> Option<std::path::PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}

/// A temporary folder, in memory if possible, for tests that do not depend on a real disk.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}
