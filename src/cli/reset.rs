//! `millstream reset`: shows the plan, and with `--execute` carries it out.

use std::sync::Arc;

use super::load::{Loaded, load, runtime_config};
use super::outcome::{Exit, print};
use super::{ExitCode, LogChoice, Reset, log_choice};
use crate::clock::{Clock, SystemClock};
use crate::log::{Log, LogError};
use crate::packaged::PackagedTopology;
use crate::plan::set_recorded;
use crate::reset::{ResetError, ResetPlan, collect_facts, execute, plan};
use crate::runtime::TopicsError;

pub(super) fn reset(arguments: &Reset, topologies: &[&dyn PackagedTopology]) -> Result<(), Exit> {
    let loaded = load(&arguments.deployment, topologies)?;
    match arguments.deployment.log() {
        LogChoice::Kafka => reset_on(&log_choice::kafka(&loaded.config)?, &loaded, arguments),
        LogChoice::EmbeddedIn(dir) => {
            let log = log_choice::in_directory(&dir, ExitCode::Refused)?;
            reset_on(&log, &loaded, arguments)
        }
        LogChoice::EmbeddedInMemory => Err(Exit::new(
            ExitCode::Usage,
            "a log in memory has nothing to reset",
        )),
    }
}

fn reset_on<L: Log>(log: &L, loaded: &Loaded, arguments: &Reset) -> Result<(), Exit> {
    let config = runtime_config(&loaded.config, None);
    let facts = collect_facts(log, &loaded.topology, &config).map_err(|error| exit(&error))?;
    let plan = plan(&facts);
    let steps = match &plan {
        ResetPlan::Refused(_) => {
            let message = format!("reset of `{}`: {plan}", facts.application_id);
            return Err(Exit::new(ExitCode::Refused, message));
        }
        ResetPlan::Nothing => {
            print(&plan);
            return Ok(());
        }
        ResetPlan::Reset(steps) => steps,
    };
    print(&plan);
    if !arguments.execute {
        print("\nNothing was changed. `--execute` carries this out.");
        return Ok(());
    }
    execute(log, &config, steps).map_err(|error| exit(&error))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    set_recorded(log, loaded.topology.describe(), &config, &clock)
        .map_err(|error| Exit::because(ExitCode::Failure, &error))?;
    print(format!(
        "\nDone. `{}` starts over with its next run.",
        facts.application_id
    ));
    Ok(())
}

fn exit(error: &ResetError) -> Exit {
    let unavailable = match error {
        ResetError::Log { source, .. } | ResetError::Topics(TopicsError::Log(source)) => {
            matches!(source, LogError::Retriable { .. })
        }
        ResetError::Topics(_) | ResetError::Moved(_) | ResetError::TopicPending { .. } => false,
    };
    let code = if unavailable {
        ExitCode::Unavailable
    } else {
        ExitCode::Failure
    };
    Exit::because(code, error)
}
