//! Folds by key, with and without a repartition topic: Kafka's exactly-once test.

mod check;
mod oracle;
mod topology;

use fastrand::Rng;

pub(super) use check::outputs;
use topology::{GARBAGE, INPUT, POISON};
pub(super) use topology::{TICKS, build};

use super::plan::Plan;
use super::scenario::Drawn;
use crate::clock::Timestamp;

/// Draws a record.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp) -> Drawn {
    let key = format!("k{}", rng.u64(0..plan.keys));
    let poison = rng.u32(0..1000) < plan.poison_rate;
    let value = match (poison, rng.bool()) {
        (true, true) => POISON.as_bytes().to_vec(),
        (true, false) => GARBAGE.to_vec(),
        (false, _) => rng.i64(-50..=50).to_string().into_bytes(),
    };
    Drawn {
        topic: INPUT,
        key,
        value: Some(value),
        // Event time is not quite in order.
        timestamp: now - rng.i64(0..=50),
    }
}
