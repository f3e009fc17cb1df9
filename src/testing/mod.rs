//! Testing topologies without a broker.

mod driver;
pub mod simulation;
pub(crate) mod temp_dir;

pub use driver::{DriverBuilder, DriverError, TestInputTopic, TestOutputTopic, TopologyTestDriver};
