//! A versioned table, joins that look into its past, and joins that wait for it.
//!
//! One task reads three topics, so the order is its own choice: it writes every record it takes up to
//! [`WITNESS`] as well. The oracle goes through that order.

mod check;
mod oracle;

use std::time::Duration;

use fastrand::Rng;

pub(super) use check::check;

use super::plan::{Plan, WindowPlan, pick};
use super::scenario::{Drawn, store_of};
use crate::clock::Timestamp;
use crate::prelude::*;
use crate::topology::Topology;

const ORDERS: &str = "orders";
/// The versioned table.
const RATES: &str = "rates";
/// A table beside it that keeps the latest value only.
const LABELS: &str = "labels";
const WITNESS: &str = "taken-up";
/// Every update of the versioned table, those of the past too.
const UPDATES: &str = "updates";
/// Joins of the stream with the versioned table; those that wait keep records in `<name>-Buffer`.
const MET: &str = "met";
const MAYBE_MET: &str = "maybe-met";
const WAITED: &str = "waited";
const MAYBE_WAITED: &str = "maybe-waited";
/// Both tables joined.
const LABELLED: &str = "labelled";

/// What the value of a record begins with that the last operator refuses, when all others have done
/// their work.
const POISON: &str = "poison";

const fn millis(time: i64) -> Duration {
    Duration::from_millis(time.unsigned_abs())
}

/// How long the past is kept: at least as long as the joins wait, but not as long as records are late.
const fn history(plan: &WindowPlan) -> i64 {
    plan.size + plan.grace
}

/// How long the records of a join wait.
fn grace_of(join: &str, plan: &WindowPlan) -> i64 {
    match join {
        WAITED => plan.grace,
        _ => plan.grace / 2,
    }
}

/// Draws a record; those of the two tables may be deletes. Most are a little out of order, some late.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp, number: usize) -> Drawn {
    let windows = &plan.windows;
    let topic = *pick(rng, &[ORDERS, ORDERS, RATES, RATES, LABELS]);
    let value = if topic != LABELS && rng.u32(0..1000) < plan.poison_rate {
        Some(format!("{POISON}:{number}"))
    } else if topic != ORDERS && rng.u32(0..4) == 0 {
        None
    } else {
        Some(format!("{}{number}", topic.get(..1).unwrap_or_default()))
    };
    let timestamp = match rng.u32(0..100) {
        0..88 => now - rng.i64(0..=windows.disorder),
        88..97 => now - rng.i64(0..=windows.late),
        _ => now + rng.i64(0..=windows.disorder),
    };
    Drawn {
        topic,
        key: format!("k{}", rng.u64(0..plan.keys)),
        value: value.map(String::into_bytes),
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
    let maybe = || Produced::with(serdes::string(), serdes::optional(serdes::string()));
    let consumed = Consumed::with(serdes::string(), serdes::string());
    let orders = builder.stream(ORDERS, consumed.on_error(ErrorPolicy::Skip));
    orders.to(WITNESS, text());
    let updates = |name| {
        let consumed = Consumed::with(serdes::string(), serdes::optional(serdes::string()));
        let stream = builder.stream(name, consumed.on_error(ErrorPolicy::Skip));
        stream.to(WITNESS, maybe());
        stream
    };
    let texts = |name| store_of(name, plan.ageing, serdes::string(), serdes::string());
    let (of_rates, of_labels) = (updates(RATES), updates(LABELS));
    let past = millis(history(&plan.windows));
    let rates: KTable<String, String> = of_rates.to_table(texts(RATES).versioned(past));
    let labels: KTable<String, String> = of_labels.to_table(texts(LABELS));
    rates.to_stream().to(UPDATES, maybe());
    orders
        .join_table(
            &rates,
            |_, order, rate| format!("{order}|{rate}"),
            Joined::as_name(MET),
        )
        .to(MET, text());
    let either = |order: String, rate: Option<String>| {
        format!("{order}|{}", rate.unwrap_or_else(|| "-".to_owned()))
    };
    // Versions pass through `map_values`.
    let doubled = rates.map_values(|_, rate| format!("{rate}{rate}"));
    orders
        .left_join_table(
            &doubled,
            move |_, order, rate| either(order, rate),
            Joined::as_name(MAYBE_MET),
        )
        .to(MAYBE_MET, text());
    let waiting =
        |name| Joined::as_name(name).with_grace_period(millis(grace_of(name, &plan.windows)));
    orders
        .join_table(
            &rates,
            |_, order, rate| format!("{order}|{rate}"),
            waiting(WAITED),
        )
        .to(WAITED, text());
    orders
        .left_join_table(
            &rates,
            move |_, order, rate| either(order, rate),
            waiting(MAYBE_WAITED),
        )
        .to(MAYBE_WAITED, text());
    rates
        .join(&labels, |_, rate, label| format!("{rate}|{label}"))
        .to_stream()
        .to(LABELLED, maybe());
    // Last: everything above has staged its outputs and writes when these refuse.
    let refuse = |value: Option<&str>| match value {
        Some(value) if value.starts_with(POISON) => Err("poison".into()),
        _ => Ok(()),
    };
    orders.try_for_each(move |_, value| refuse(Some(&value)));
    of_rates.try_for_each(move |_, value| refuse(value.as_deref()));
    builder.build()
}
