//! `millstream plan`: what the topology of this program and configuration changes for what runs.

use super::load::{Loaded, load};
use super::outcome::{Exit, print};
use super::{ExitCode, LogChoice, Plan, log_choice};
use crate::log::{Log, LogError};
use crate::packaged::PackagedTopology;
use crate::plan::{RecordedError, compare, recorded};

pub(super) fn plan(arguments: &Plan, topologies: &[&dyn PackagedTopology]) -> Result<(), Exit> {
    let loaded = load(&arguments.deployment, topologies)?;
    match arguments.deployment.log() {
        LogChoice::Kafka => plan_on(&log_choice::kafka(&loaded.config)?, &loaded, arguments),
        LogChoice::EmbeddedIn(dir) => {
            let log = log_choice::in_directory(&dir, ExitCode::Refused)?;
            plan_on(&log, &loaded, arguments)
        }
        LogChoice::EmbeddedInMemory => Err(Exit::new(
            ExitCode::Usage,
            "a log in memory has recorded nothing",
        )),
    }
}

fn plan_on<L: Log>(log: &L, loaded: &Loaded, arguments: &Plan) -> Result<(), Exit> {
    let application = &loaded.config.application_id;
    let running = recorded(log, application).map_err(|error| exit(&error))?;
    let plan = compare(application, running.as_ref(), loaded.topology.describe());
    if arguments.json {
        print(plan.to_json());
    } else {
        print(&plan);
    }
    Ok(())
}

fn exit(error: &RecordedError) -> Exit {
    let code = match error {
        RecordedError::Log(LogError::Retriable { .. }) => ExitCode::Unavailable,
        RecordedError::Log(_) | RecordedError::Newer { .. } | RecordedError::Damaged { .. } => {
            ExitCode::Failure
        }
    };
    Exit::because(code, error)
}
