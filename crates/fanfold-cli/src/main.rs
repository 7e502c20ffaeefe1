//! The `fanfold` binary: see the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A command makes some dozens of small allocations, and frees most of them in another thread,
/// which mimalloc does faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    fanfold_cli::run()
}
