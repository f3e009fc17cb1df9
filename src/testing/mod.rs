//! Testing topologies without a broker.

mod driver;
mod temp_dir;

pub use driver::{DriverBuilder, DriverError, TestInputTopic, TestOutputTopic, TopologyTestDriver};
