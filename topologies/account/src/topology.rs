//! The topology `account`: what it reads, keeps and writes.
//!
//! ```text
//! billing.account.commands ─▶ account-decide ─┬─▶ billing.account.events
//!        ▲                                    ├─▶ billing.account.replies
//!        │  billing.account.events ─▶ account-fold ─┐
//!        │                                    └─────┴─▶ read models (`views`)
//!        │                                    └─▶ answers, movements ─┐
//!        │ steps of transfers                                         ▼
//!        └── transaction-steps ◀─ transaction-decide ◀─ billing.transaction.commands
//!                                        ├─▶ billing.transaction.events
//!                                        └─▶ billing.transaction.replies
//! all of them ──▶ billing.account.dlq
//! ```
//! Stores: of each aggregate `<name>-state` and `<name>-rebuild` (derived), `<name>-history` and
//! `<name>-commands` (record); `transaction-pending` (record); those of the read models (derived).

use std::num::NonZeroU64;
use std::time::Duration;

use millstream::config::{DurationValue, Parameters};
use millstream::event_sourcing::{
    Aggregate, AggregateTopics, CommandMemory, EventSourced, Managed, Patience, ProcessManager,
    ReplyHub,
};
use millstream::packaged::{BuildEnv, BuildError, Packaged, PackagedTopology, ReadModel};
use millstream::prelude::*;
use millstream_archive::ArchiveSink;
use serde::Deserialize;

use crate::account::Account;
use crate::projections;
use crate::transaction::{Transaction, process_of, refused_movement, started_by};
use crate::views;

/// The declared name of the command topic.
pub const COMMANDS: &str = "billing.account.commands";
/// The declared name of the events topic.
pub const EVENTS: &str = "billing.account.events";
/// The declared name of the reply topic.
pub const REPLIES: &str = "billing.account.replies";
/// The declared name of the command topic of transactions.
pub const TRANSACTION_COMMANDS: &str = "billing.transaction.commands";
/// The declared name of the events topic of transactions.
pub const TRANSACTION_EVENTS: &str = "billing.transaction.events";
/// The declared name of the reply topic of transactions.
pub const TRANSACTION_REPLIES: &str = "billing.transaction.replies";
/// The declared name of the topic of balances.
pub const BALANCES: &str = "billing.account.balances";
/// The declared name of the topic of movements.
pub const MOVEMENTS: &str = "billing.account.movements";
/// The declared name of the topic of turnover per day.
pub const TURNOVER: &str = "billing.account.turnover";
/// The declared name of the topic of counts per status.
pub const STATUS_COUNTS: &str = "billing.account.status-counts";
/// The declared name of the audit log's topic.
pub const AUDIT: &str = "billing.account.audit";
/// The declared name of the dead-letter topic, of accounts and transactions.
pub const DEAD_LETTERS: &str = "billing.account.dlq";

const TURNOVER_GRACE: Duration = Duration::from_secs(35 * 24 * 60 * 60);
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
    /// How long after a step of a transfer without an answer it is asked for again. Default `30s`.
    /// Lower: a lost record holds a transfer up for less long. It is asked for no more after half of
    /// `command_memory`, until an operator resumes it.
    pub transfer_reissue_after: DurationValue,
    /// How late a movement may be, by the time of its account, to count in its day's turnover. Default
    /// `35d`. Another value has turnover built anew.
    pub turnover_grace: DurationValue,
    /// About how many events of an account the history store keeps; older ones are read from the
    /// archive (`sinks.archive`), and leave the store only once that has them. Default: all. Lower:
    /// less state, and slower reads of the past.
    pub history_events: Option<NonZeroU64>,
}

impl Default for AccountParameters {
    fn default() -> Self {
        Self {
            command_memory: DurationValue(CommandMemory::default().retention),
            bad_events: BadEvents::default(),
            transfer_reissue_after: DurationValue(Patience::default().reissue_after),
            turnover_grace: DurationValue(TURNOVER_GRACE),
            history_events: None,
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
        "Billing accounts and transfers, event-sourced: commands and foreign events in, events and read models out"
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
        let transactions = transactions(parameters);
        let endpoints = [
            accounts.endpoint(),
            transactions.endpoint().with_processes(process_of),
        ];
        let accounts = accounts.draw_all(&builder);
        transactions.answered_by("transaction-answers", &accounts.outcomes);
        transactions.triggered_by_events("transaction-movements", &accounts.events, started_by);
        transactions.triggered_by("transaction-refusals", &accounts.outcomes, refused_movement);
        // Nobody reads a model of transactions: their state and history answer.
        drop(transactions.draw(&builder));
        let projections = views::draw(&builder, &accounts, parameters.turnover_grace.0);
        let packaged = Packaged::new(builder.build()?)
            .with_sink(projections::postgres())
            .with_sink(ArchiveSink::declare(ARCHIVE, &[EVENTS, TRANSACTION_EVENTS]));
        let packaged = endpoints
            .into_iter()
            .fold(packaged, Packaged::with_aggregate);
        let packaged = projections
            .into_iter()
            .fold(packaged, Packaged::with_projection);
        Ok(read_models()
            .into_iter()
            .fold(packaged, Packaged::with_read_model))
    }
}

fn read_models() -> [ReadModel; 5] {
    [
        ReadModel::new("/balances", views::BALANCES_VIEW)
            .filter("accountId", ["accountId"])
            .filter("status", ["status"])
            .filter("currency", ["currency"]),
        ReadModel::new("/movements", views::MOVEMENTS_VIEW)
            .filter("accountId", ["accountId"])
            .filter("changeType", ["changeType"])
            .filter("transactionId", ["transactionId"]),
        ReadModel::new("/audit", views::AUDIT_VIEW)
            .filter("accountId", ["accountId"])
            .filter("eventType", ["eventType"])
            .filter("actorId", ["actorId"]),
        ReadModel::new("/turnover", views::TURNOVER_VIEW)
            .filter("accountId", ["accountId"])
            .filter("day", ["day"])
            .filter("currency", ["currency"]),
        ReadModel::new("/status-counts", views::STATUS_COUNTS_VIEW).filter("status", ["status"]),
    ]
}

fn memory(parameters: AccountParameters) -> CommandMemory {
    CommandMemory {
        retention: parameters.command_memory.0,
        ..CommandMemory::default()
    }
}

fn accounts(parameters: AccountParameters) -> EventSourced<Account> {
    let topics = AggregateTopics {
        commands: COMMANDS.to_owned(),
        events: EVENTS.to_owned(),
        replies: REPLIES.to_owned(),
        dead_letters: DEAD_LETTERS.to_owned(),
    };
    let accounts = EventSourced::new("account", topics)
        .command_memory(memory(parameters))
        .on_event_error(parameters.bad_events.policy())
        .replies(ReplyHub::new());
    match parameters.history_events {
        Some(events) => accounts.keep_recent(events),
        None => accounts,
    }
}

fn transactions(parameters: AccountParameters) -> ProcessManager<Transaction> {
    let topics = AggregateTopics {
        commands: TRANSACTION_COMMANDS.to_owned(),
        events: TRANSACTION_EVENTS.to_owned(),
        replies: TRANSACTION_REPLIES.to_owned(),
        dead_letters: DEAD_LETTERS.to_owned(),
    };
    let transactions = EventSourced::<Managed<Transaction>>::new("transaction", topics)
        .command_memory(memory(parameters))
        .on_event_error(parameters.bad_events.policy())
        .replies(ReplyHub::new());
    ProcessManager::new(transactions)
        .asks(Account::TYPE, COMMANDS)
        .patience(Patience {
            reissue_after: parameters.transfer_reissue_after.0,
            give_up_after: parameters.command_memory.0 / 2,
            ..Patience::default()
        })
}

#[cfg(test)]
mod tests {
    use millstream::topology::{Durability, SubTopology};

    use super::*;

    fn sub_topology_of<'a>(topology: &'a Topology, store: &str) -> &'a SubTopology {
        let mut subs = topology.sub_topologies().iter();
        let sub = subs.find(|sub| sub.stores.iter().any(|found| found.name == store));
        sub.unwrap_or_else(|| panic!("no store {store}"))
    }

    #[test]
    fn accounts_transactions_and_counts_are_one_sub_topology_each() {
        let packaged = AccountTopology::draw(AccountParameters::default()).unwrap();
        assert_eq!(packaged.topology.sub_topologies().len(), 3);
        let durable = |store: &str| {
            let sub = sub_topology_of(&packaged.topology, store);
            let mut names: Vec<_> = sub
                .stores
                .iter()
                .map(|store| (store.name.as_str(), store.durability == Durability::Record))
                .collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            durable("account-state"),
            [
                ("account-audit-0", false),
                ("account-audit-1", false),
                ("account-balances-0", false),
                ("account-balances-1", false),
                ("account-commands", true),
                ("account-events-by-time", false),
                ("account-history", true),
                ("account-movements-0", false),
                ("account-movements-1", false),
                ("account-projections", false),
                ("account-rebuild", false),
                ("account-snapshots", false),
                ("account-state", false),
                ("account-status-counts-generations", false),
                ("account-status-counts-shares", false),
                ("account-turnover-0", false),
                ("account-turnover-1", false),
            ]
        );
        assert_eq!(
            durable("transaction-state"),
            [
                ("transaction-commands", true),
                ("transaction-events-by-time", false),
                ("transaction-history", true),
                ("transaction-pending", true),
                ("transaction-rebuild", false),
                ("transaction-snapshots", false),
                ("transaction-state", false),
            ]
        );
        assert_eq!(
            durable("account-status-counts-totals"),
            [
                ("account-status-counts-serving", false),
                ("account-status-counts-totals", false),
            ]
        );
        let endpoints: Vec<_> = packaged
            .aggregates
            .iter()
            .map(|endpoint| {
                (
                    endpoint.aggregate_type(),
                    endpoint.command_topic(),
                    endpoint.store(),
                )
            })
            .collect();
        assert_eq!(
            endpoints,
            [
                ("Account", Some(COMMANDS), "account-state"),
                (
                    "Transaction",
                    Some(TRANSACTION_COMMANDS),
                    "transaction-state"
                ),
            ]
        );
    }

    #[test]
    fn topics_are_declared_as_the_domain_says() {
        let packaged = AccountTopology::draw(AccountParameters::default()).unwrap();
        let declared = packaged.topology.declared_topics();
        let names: Vec<_> = declared.iter().map(|topic| topic.name.as_str()).collect();
        let mut expected = [
            AUDIT,
            BALANCES,
            COMMANDS,
            DEAD_LETTERS,
            EVENTS,
            MOVEMENTS,
            REPLIES,
            STATUS_COUNTS,
            TRANSACTION_COMMANDS,
            TRANSACTION_EVENTS,
            TRANSACTION_REPLIES,
            TURNOVER,
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
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
                BALANCES | TURNOVER | STATUS_COUNTS => (Some("compact"), None),
                AUDIT => (Some("delete"), Some("31536000000")),
                _ => (Some("delete"), Some("604800000")),
            };
            assert_eq!(
                (config("cleanup.policy"), config("retention.ms")),
                (policy, retention)
            );
        }
    }

    #[test]
    fn neither_commands_nor_events_are_read_again() {
        let packaged = AccountTopology::draw(AccountParameters::default()).unwrap();
        for store in ["account-state", "transaction-state"] {
            let sub = sub_topology_of(&packaged.topology, store);
            assert!(sub.sources.len() >= 2);
            for source in &sub.sources {
                assert!(!source.rewindable, "{}", source.topic);
            }
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
            let sources = &sub_topology_of(&packaged.topology, "account-state").sources;
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
