//! The comparison: Kafka Streams and millstream run the same topology on the same broker with the same
//! input, in turn, each as a process of its own. `scripts/compare` builds and starts it.
//!
//! One observer looks at both from outside (`observe`). Every run has an application id, a state
//! directory and an output topic of its own, is verified record by record (`verify`), and fails the
//! whole comparison when the work was not done. Which side goes first alternates.
//!
//! | room | measures |
//! | --- | --- |
//! | `throughput` | A, B, C, D, E: an input worked off as fast as it goes |
//! | `latency` | F |
//! | `restore` | G |
//! | `recovery` | H |
//! | `updates` | I |
//! | `idle` | J |

#[path = "../support/balances.rs"]
mod balances;
mod comparison;
mod contenders;
#[path = "../support/events.rs"]
mod events;
mod feed;
mod idle;
mod latency;
mod launch;
mod machine;
mod observe;
mod options;
mod page;
mod plot;
mod preload;
#[path = "../support/process.rs"]
mod process;
mod recovery;
mod report;
mod restore;
mod side;
mod throughput;
mod topics;
mod updates;
mod verify;
mod words;
mod workload;

use anyhow::{Result, bail};
use clap::Parser as _;

use comparison::Comparison;
use options::{Cli, Command};

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Side(args) => side::run(&args),
        Command::Compare(options) => {
            let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_default();
            if servers.is_empty() {
                bail!("KAFKA_BOOTSTRAP_SERVERS is not set; `scripts/compare` starts a broker");
            }
            Comparison::new(&servers, options)?.run()
        }
    }
}
