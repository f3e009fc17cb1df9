//! The millstream daemon: the packaged topologies, run from configuration files.

fn main() -> std::process::ExitCode {
    millstream::cli::main(&[
        &millstream_account::AccountTopology,
        &millstream_flight_leg::FlightLegTopology,
    ])
}
