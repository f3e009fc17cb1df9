//! Windows, sessions and suppression, with records out of order and late.

mod check;
mod oracle;

use std::time::Duration;

use fastrand::Rng;

pub(super) use check::check;

use super::plan::{Plan, WindowPlan};
use super::scenario::{Drawn, changelog_config, store};
use crate::clock::Timestamp;
use crate::prelude::*;
use crate::topology::Topology;

const INPUT: &str = "in";
const BY_BUCKET: &str = "by-bucket";
const LATE: &str = "late";
/// Each a store and the topic that its updates go to.
const TUMBLING: &str = "tumbling";
const CLOSING: &str = "closing";
const SESSIONS: &str = "sessions";
const COUNTS: &str = "counts";
/// Each a suppression and the topic of what it lets go.
const FINAL: &str = "final";
const LIMITED: &str = "limited";

/// A value that the last operator refuses, when all others have done their work.
const POISON: &str = "poison";
/// A value that does not decode.
const GARBAGE: &[u8] = &[0xff, 0xfe];

const fn millis(time: i64) -> Duration {
    Duration::from_millis(time.unsigned_abs())
}

fn bucket(value: &str) -> String {
    format!("b{}", value.parse::<i64>().unwrap_or(0).rem_euclid(5))
}

/// Draws a record: most a little out of order, some late, a few ahead of their time.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp) -> Drawn {
    let key = format!("k{}", rng.u64(0..plan.keys));
    let value = if rng.u32(0..1000) < plan.poison_rate {
        if rng.bool() {
            POISON.as_bytes().to_vec()
        } else {
            GARBAGE.to_vec()
        }
    } else {
        rng.i64(0..=50).to_string().into_bytes()
    };
    let windows = &plan.windows;
    let timestamp = match rng.u32(0..100) {
        0..90 => now - rng.i64(0..=windows.disorder),
        90..98 => now - rng.i64(0..=windows.late),
        _ => now + rng.i64(0..=windows.disorder * 2),
    };
    Drawn {
        topic: INPUT,
        key,
        value: Some(value),
        timestamp,
    }
}

/// Draws the topology.
///
/// # Errors
/// A mistake of this function.
pub(super) fn build(plan: &Plan) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let text = || Produced::with(serdes::string(), serdes::string());
    let consumed = Consumed::with(serdes::string(), serdes::string());
    let input = builder.stream(INPUT, consumed.on_error(ErrorPolicy::Skip));
    let WindowPlan {
        size, grace, gap, ..
    } = plan.windows;
    let ageing = plan.ageing;
    let grouped = if plan.windows.regrouped {
        input.group_by(
            |_, value| bucket(value),
            Grouped::with(BY_BUCKET, serdes::string(), serdes::string()),
        )
    } else {
        input.group_by_key(Grouped::as_name("by-key"))
    };
    let tumbling = TimeWindows::of_size_and_grace(millis(size), millis(grace));
    let windowed = || {
        Produced::with(
            serdes::time_windowed(serdes::string(), millis(size)),
            serdes::optional(serdes::i64()),
        )
    };
    let (config, value) = changelog_config(ageing);
    let counts = grouped
        .windowed_by(tumbling)
        .late_records(move |late| late.to(LATE, text()))
        .count(store(TUMBLING, ageing));
    counts.to_stream().to(TUMBLING, windowed());
    let closes = Suppressed::until_window_closes(FINAL, BufferConfig::unbounded());
    counts
        .suppress(closes.changelog_config(config, &value))
        .to_stream()
        .to(FINAL, windowed());
    grouped
        .windowed_by(tumbling)
        .emit_strategy(EmitStrategy::on_window_close())
        .count(store(CLOSING, ageing))
        .to_stream()
        .to(CLOSING, windowed());
    let sessions = SessionWindows::of_inactivity_gap_and_grace(millis(gap), millis(grace));
    grouped
        .windowed_by(sessions)
        .count(store(SESSIONS, ageing))
        .to_stream()
        .to(
            SESSIONS,
            Produced::with(
                serdes::session_windowed(serdes::string()),
                serdes::optional(serdes::i64()),
            ),
        );
    let limited =
        Suppressed::until_time_limit(LIMITED, millis(gap), BufferConfig::max_records(usize::MAX));
    grouped
        .count(store(COUNTS, ageing))
        .suppress(limited.changelog_config(config, &value))
        .to_stream()
        .to(
            LIMITED,
            Produced::with(serdes::string(), serdes::optional(serdes::i64())),
        );
    // Last: everything above has staged its outputs and writes when this refuses.
    input.try_for_each(|_, value| {
        if value == POISON {
            Err("poison".into())
        } else {
            Ok(())
        }
    });
    builder.build()
}
