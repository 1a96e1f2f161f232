//! The `holdfast` program.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A request makes and drops some two hundred small things; the system's allocator spends twice as long on them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::main()
}
