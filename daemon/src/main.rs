//! The millstream daemon: runs the packaged topologies by name, from config files.

use std::process::ExitCode;

fn main() -> ExitCode {
    millstream::cli::main(&[&millstream_account::topology()])
}
