//! The `holdfast` program.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A request allocates and frees some two hundred small objects; the system's allocator takes twice as long for them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    holdfast::cli::main()
}
