//! The topology `account`: what it reads, keeps and writes.
//!
//! ```text
//! billing.account.commands ─▶ account-decide ─┬─▶ billing.account.events
//!                                             ├─▶ billing.account.replies
//! billing.account.events ───▶ account-fold ───┴─▶ billing.account.balances   (compacted)
//! both ─────────────────────────────────────────▶ billing.account.dlq
//! ```
//! Stores: `account-state` and `account-rebuild` (derived), `account-history` and
//! `account-commands` (record).
//!
//! The aggregate `Transaction` (`billing.transaction.*`: transfers with compensation, payment
//! requests) and the other read models (movements, turnover per day, counts per status, audit log)
//! come with a later issue; they are drawn beside what is drawn in [`AccountTopology::build`].

use millstream::config::{DurationValue, Parameters};
use millstream::event_sourcing::{
    AggregateRecord, AggregateTopics, CommandMemory, EventSourced, ReplyHub, compacted_topic,
};
use millstream::packaged::{BuildEnv, BuildError, Packaged, PackagedTopology};
use millstream::prelude::*;
use millstream_archive::ArchiveSink;
use serde::Deserialize;

use crate::account::Account;
use crate::projections;
use crate::read_model::Balance;

/// The declared name of the command topic.
pub const COMMANDS: &str = "billing.account.commands";
/// The declared name of the events topic.
pub const EVENTS: &str = "billing.account.events";
/// The declared name of the reply topic.
pub const REPLIES: &str = "billing.account.replies";
/// The declared name of the read model's topic.
pub const BALANCES: &str = "billing.account.balances";
/// The declared name of the dead-letter topic.
pub const DEAD_LETTERS: &str = "billing.account.dlq";

/// The name of the archive of events in a configuration.
pub const ARCHIVE: &str = "archive";

/// The topology's own settings: `parameters` of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountParameters {
    /// How long a command id is remembered: until then a repeated command gets its first reply
    /// again. Default `7d`. Higher: more state. Lower: a late repetition is carried out again.
    pub command_memory: DurationValue,
    /// What happens to an event of another system that cannot be read, is unknown, or does not
    /// follow its predecessor. Default `dead_letter`.
    pub bad_events: BadEvents,
}

impl Default for AccountParameters {
    fn default() -> Self {
        Self {
            command_memory: DurationValue(CommandMemory::default().retention),
            bad_events: BadEvents::default(),
        }
    }
}

/// A choice of [`AccountParameters::bad_events`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadEvents {
    /// To `billing.account.dlq`, with the reason.
    #[default]
    DeadLetter,
    /// Counted, logged and passed over.
    Skip,
    /// The task stops.
    Fail,
}

impl BadEvents {
    fn policy(self) -> ErrorPolicy {
        match self {
            Self::DeadLetter => ErrorPolicy::DeadLetter {
                topic: DEAD_LETTERS.to_owned(),
            },
            Self::Skip => ErrorPolicy::Skip,
            Self::Fail => ErrorPolicy::Fail,
        }
    }
}

/// The packaged topology `account`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountTopology;

impl PackagedTopology for AccountTopology {
    fn name(&self) -> &str {
        "account"
    }

    fn about(&self) -> &str {
        "Billing accounts, event-sourced: commands and foreign events in, events and balances out"
    }

    fn build(&self, parameters: &Parameters, _: &BuildEnv) -> Result<Packaged, BuildError> {
        Ok(Self::draw(parameters.read()?)?)
    }
}

impl AccountTopology {
    /// Draws the topology with these settings.
    ///
    /// # Errors
    /// A mistake in the drawing, which a test rules out.
    pub fn draw(parameters: AccountParameters) -> Result<Packaged, TopologyErrors> {
        let builder = StreamsBuilder::new();
        let accounts = accounts(parameters);
        let endpoint = accounts.endpoint();
        let changed = accounts.draw(&builder);
        balances(&builder, &changed);
        Ok(Packaged::new(builder.build()?)
            .with_aggregate(endpoint)
            .with_sink(projections::postgres())
            .with_sink(ArchiveSink::declare(ARCHIVE, &[EVENTS])))
    }
}

fn accounts(parameters: AccountParameters) -> EventSourced<Account> {
    let AccountParameters {
        command_memory: DurationValue(retention),
        bad_events,
    } = parameters;
    let topics = AggregateTopics {
        commands: COMMANDS.to_owned(),
        events: EVENTS.to_owned(),
        replies: REPLIES.to_owned(),
        dead_letters: DEAD_LETTERS.to_owned(),
    };
    EventSourced::new("account", topics)
        .command_memory(CommandMemory {
            retention,
            ..CommandMemory::default()
        })
        .on_event_error(bad_events.policy())
        .replies(ReplyHub::new())
}

fn balances(builder: &StreamsBuilder, changed: &KStream<String, AggregateRecord<Account>>) {
    builder.declare_topic(BALANCES, compacted_topic());
    changed
        .try_map_values_with_key(|account_id, record| Ok(Balance::of(account_id, &record)?))
        .named("account-balances")
        .to(
            BALANCES,
            Produced::with(serdes::string(), serdes::json::<Balance>()),
        );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_has_no_mistakes_and_one_sub_topology() {
        let packaged = AccountTopology::draw(AccountParameters::default()).unwrap();
        let [sub] = packaged.topology.sub_topologies() else {
            panic!("commands and events of an account belong to one task")
        };
        let stores: Vec<_> = sub.stores.iter().map(|store| store.name.as_str()).collect();
        let expected = [
            "account-state",
            "account-rebuild",
            "account-history",
            "account-commands",
        ];
        assert_eq!(stores, expected);
        let [endpoint] = packaged.aggregates.as_slice() else {
            panic!("one aggregate")
        };
        assert_eq!(endpoint.aggregate_type(), "Account");
        assert_eq!(endpoint.command_topic(), COMMANDS);
        assert_eq!(endpoint.store(), "account-state");
    }

    #[test]
    fn topics_are_declared_as_the_domain_says() {
        let packaged = AccountTopology::draw(AccountParameters::default()).unwrap();
        let declared = packaged.topology.declared_topics();
        let names: Vec<_> = declared.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, [BALANCES, COMMANDS, DEAD_LETTERS, EVENTS, REPLIES]);
        for topic in declared {
            let config = |key: &str| topic.config.get(key).map(String::as_str);
            assert_eq!(
                config("max.message.bytes"),
                Some("16777216"),
                "{}",
                topic.name
            );
            assert_eq!(config("compression.type"), Some("zstd"), "{}", topic.name);
            let (policy, retention) = match topic.name.as_str() {
                BALANCES => (Some("compact"), None),
                _ => (Some("delete"), Some("604800000")),
            };
            assert_eq!(
                (config("cleanup.policy"), config("retention.ms")),
                (policy, retention)
            );
        }
    }

    #[test]
    fn commands_are_never_read_again_and_events_may_be() {
        let packaged = AccountTopology::draw(AccountParameters::default()).unwrap();
        for source in &packaged.topology.sub_topologies()[0].sources {
            let is_events = source.topic.to_string() == EVENTS;
            assert_eq!(source.rewindable, is_events, "{}", source.topic);
        }
    }

    #[test]
    fn bad_events_meet_the_configured_policy() {
        let policy = |bad_events| {
            let parameters = AccountParameters {
                bad_events,
                ..AccountParameters::default()
            };
            let packaged = AccountTopology::draw(parameters).unwrap();
            let sources = &packaged.topology.sub_topologies()[0].sources;
            let events = sources
                .iter()
                .find(|source| source.topic.to_string() == EVENTS);
            events.unwrap().on_processing_error.clone()
        };
        assert_eq!(policy(BadEvents::Skip), ErrorPolicy::Skip);
        assert_eq!(policy(BadEvents::Fail), ErrorPolicy::Fail);
        let topic = DEAD_LETTERS.to_owned();
        assert_eq!(
            policy(BadEvents::DeadLetter),
            ErrorPolicy::DeadLetter { topic }
        );
    }
}
