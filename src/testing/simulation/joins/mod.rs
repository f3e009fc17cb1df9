//! Joins of two streams, with records out of order, late, and without a partner.
//!
//! One task reads both streams, so the order is its own choice: it writes every record it takes up to
//! [`WITNESS`] as well. The oracle goes through that order.

mod check;
mod oracle;

use std::time::Duration;

use fastrand::Rng;

pub(super) use check::check;

use super::plan::{Plan, WindowPlan, pick};
use super::scenario::{Drawn, changelog_config};
use crate::clock::Timestamp;
use crate::prelude::*;
use crate::topology::Topology;

const LEFT: &str = "left";
const RIGHT: &str = "right";
const WITNESS: &str = "taken-up";
/// Each the name of a join, which its stores begin with, and the topic of its results.
const INNER: &str = "inner";
const LEFTS: &str = "lefts";
const OUTER: &str = "outer";
/// The repartition topic in front of the left stream, where there is one.
const REKEYED: &str = "rekeyed";

/// What the value of a record begins with that the last operator refuses, when all others have done
/// their work.
const POISON: &str = "poison";
/// A value that does not decode.
const GARBAGE: &[u8] = &[0xff, 0xfe];

const fn millis(time: i64) -> Duration {
    Duration::from_millis(time.unsigned_abs())
}

/// The three joins' windows: one like Kafka Streams' examples, one that looks further to one side than
/// to the other, one whose right record must come after the left one. All have the same grace period.
fn windows_of(join: &str, plan: &WindowPlan) -> JoinWindows {
    let WindowPlan {
        size, grace, gap, ..
    } = *plan;
    let windows = JoinWindows::of_time_difference_and_grace(millis(size), millis(grace));
    match join {
        INNER => windows,
        LEFTS => windows.before(millis(gap)),
        _ if plan.left => windows.at_least_after(millis(size.min(gap) / 2)),
        _ => windows.after(millis(gap)),
    }
}

/// Draws a record of either stream: most a little out of order, some late, a few ahead of their time.
/// Times are often equal, so that several records of a key are kept beside each other.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp, number: usize) -> Drawn {
    let windows = &plan.windows;
    let topic = *pick(rng, &[LEFT, RIGHT]);
    let value = if rng.u32(0..1000) < plan.poison_rate {
        if rng.bool() {
            format!("{POISON}:{number}").into_bytes()
        } else {
            GARBAGE.to_vec()
        }
    } else {
        format!("{}{number}", topic.get(..1).unwrap_or_default()).into_bytes()
    };
    let timestamp = match rng.u32(0..100) {
        0..88 => now - rng.i64(0..=windows.disorder),
        88..97 => now - rng.i64(0..=windows.late),
        _ => now + rng.i64(0..=windows.disorder * 2),
    };
    Drawn {
        topic,
        key: format!("k{}", rng.u64(0..plan.keys)),
        value: Some(value),
        timestamp: timestamp - timestamp.rem_euclid(5),
    }
}

/// Draws the topology.
///
/// # Errors
/// A mistake of this function.
pub(super) fn build(plan: &Plan) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let text = || Produced::with(serdes::string(), serdes::string());
    let stream = |topic| {
        let consumed = Consumed::with(serdes::string(), serdes::string());
        builder.stream(topic, consumed.on_error(ErrorPolicy::Skip))
    };
    let (mut left, right) = (stream(LEFT), stream(RIGHT));
    if plan.windows.regrouped {
        left = left
            .select_key(|_, value| oracle::bucket(value))
            .repartition(Repartitioned::with(
                REKEYED,
                serdes::string(),
                serdes::string(),
            ));
    }
    left.to(WITNESS, text());
    right.to(WITNESS, text());
    let joined = |name| {
        let (config, value) = changelog_config(plan.ageing);
        StreamJoined::as_name(name).changelog_config(config, value)
    };
    let windows = |name| windows_of(name, &plan.windows);
    let inner = if plan.windows.left {
        joined(INNER).in_memory()
    } else {
        joined(INNER)
    };
    left.join(
        &right,
        |_, left, right| oracle::pair(Some(&left), Some(&right)),
        windows(INNER),
        inner,
    )
    .to(INNER, text());
    left.left_join(
        &right,
        |_, left, right| oracle::pair(Some(&left), right.as_deref()),
        windows(LEFTS),
        joined(LEFTS),
    )
    .to(LEFTS, text());
    left.outer_join(
        &right,
        |_, left, right| oracle::pair(left.as_deref(), right.as_deref()),
        windows(OUTER),
        joined(OUTER),
    )
    .to(OUTER, text());
    // Last: everything above has staged its outputs and writes when this refuses.
    for side in [left, right] {
        side.try_for_each(|_, value| {
            if value.starts_with(POISON) {
                Err("poison".into())
            } else {
                Ok(())
            }
        });
    }
    builder.build()
}
