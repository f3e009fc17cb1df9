//! A plan as text for the person who rolls it out, and as JSON for the pipeline that does.

use std::fmt;

use serde::Serialize;

use super::change::{TopologyChange, Verdict};
use super::compare::TopologyPlan;
use crate::topology::{Durability, Persistence};

/// The version of the JSON form.
const FORMAT_VERSION: u32 = 1;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unchanged => "unchanged",
            Self::Safe => "safe",
            Self::NeedsRestart => "needs restart",
            Self::NeedsReset => "needs reset",
        })
    }
}

impl Verdict {
    const fn advice(self) -> &'static str {
        match self {
            Self::Unchanged => "nothing to do",
            Self::Safe => "replace the processes one after the other",
            Self::NeedsRestart => "stop all processes, then start the new ones",
            Self::NeedsReset => {
                "stop all processes, run `millstream reset`, then start the new ones"
            }
        }
    }
}

impl fmt::Display for TopologyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreAdded { store, missed } if missed.is_empty() => {
                write!(f, "store `{store}` is new and starts empty")
            }
            Self::StoreAdded { store, missed } => write!(
                f,
                "store `{store}` is new; what was read of {} already is not in it",
                list(missed)
            ),
            Self::StoreRemoved { store } => write!(f, "store `{store}` is gone"),
            Self::StoreFedOtherwise { store, from, to } => write!(
                f,
                "store `{store}` is fed by {} instead of {}: its keys may be in other partitions",
                list(to),
                list(from)
            ),
            Self::StoreFedMore { store, missed } => write!(
                f,
                "store `{store}` is fed by {}, too: what was read of it already is not in it",
                list(missed)
            ),
            Self::StoreKindChanged { store } => write!(
                f,
                "store `{store}` holds entries of another kind: what its changelog has cannot be read"
            ),
            Self::RetentionChanged { store, to } => write!(
                f,
                "store `{store}` keeps its windows for {to} ms: alter `retention.ms` of its changelog \
                 topic, which keeps its own"
            ),
            Self::ValuesUpgraded { store, from, to } => write!(
                f,
                "values of store `{store}` get version {to}; those of version {from} are upgraded \
                 as they are read (a process of before refuses what one of after has written)"
            ),
            Self::ForeignKeyValuesUpgraded { store } => write!(
                f,
                "values of store `{store}`, beside the left table of a foreign-key join, get another \
                 version: the right side knows the left values by their bytes, and its answers to \
                 those of before would be dropped"
            ),
            Self::ValuesUnreadable { store, from, reads } => {
                write!(f, "store `{store}` holds values of version {from}, but ")?;
                match reads {
                    Some(reads) => write!(
                        f,
                        "versions {} to {} are read from now on",
                        reads.oldest, reads.current
                    ),
                    None => write!(f, "values without a version are read from now on"),
                }
            }
            Self::TimeToLiveChanged { store, to } => match to {
                Some(to) => write!(f, "entries of store `{store}` live for {to} ms"),
                None => write!(f, "entries of store `{store}` live for ever"),
            },
            Self::PersistenceChanged { store, to } => {
                let to = match to {
                    Persistence::RocksDb => "RocksDB",
                    Persistence::InMemory => "memory",
                };
                write!(
                    f,
                    "store `{store}` lives in {to} now, restored from its changelog"
                )
            }
            Self::DurabilityChanged { store, to } => {
                let to = match to {
                    Durability::Derived => "derived: a reset deletes it",
                    Durability::Record => "a record store: a reset keeps it",
                };
                write!(f, "store `{store}` is {to} from now on")
            }
            Self::ChangelogAdded { store } => {
                write!(
                    f,
                    "store `{store}` gets a changelog, and what it holds is not in it"
                )
            }
            Self::ChangelogIsSource { store, topic } => write!(
                f,
                "store `{store}` is restored from `{topic}`, its source, from now on"
            ),
            Self::ChangelogRemoved { store } => write!(
                f,
                "store `{store}` loses its changelog: its state ends with the local disk"
            ),
            Self::SourceAdded {
                topic,
                beside: None,
            } => write!(f, "`{topic}` is read"),
            Self::SourceAdded {
                topic,
                beside: Some(store),
            } => write!(
                f,
                "`{topic}` is read by the tasks of store `{store}`, which have state and no \
                 committed offset for it: they would refuse to start"
            ),
            Self::SourceRemoved { topic } => write!(f, "`{topic}` is no longer read"),
            Self::RewindableChanged { topic, to: true } => {
                write!(f, "a reset reads `{topic}` again from now on")
            }
            Self::RewindableChanged { topic, to: false } => {
                write!(f, "a reset no longer reads `{topic}` again")
            }
            Self::SinkAdded { topic } => write!(f, "`{topic}` is written"),
            Self::SinkRemoved { topic } => write!(f, "`{topic}` is no longer written"),
            Self::RepartitionRemoved { topic } => {
                write!(f, "`{topic}` is gone, with what nobody has read of it")
            }
            Self::RepartitionPartitions { topic, from, to } => write!(
                f,
                "`{topic}` has {} instead of {}: keys move to other partitions",
                partitions(*to),
                partitions(*from)
            ),
            Self::Renumbered { from, to } => write!(
                f,
                "sub-topology {from} is {to} now: its tasks have other ids and are restored"
            ),
            Self::DriverRenamed { from, to } => write!(
                f,
                "the source by pattern `{from}` is called `{to}`, and its driver topic with it: old and \
                 new processes would both own its tasks"
            ),
            Self::ProcessorAdded { node } => write!(f, "processor `{node}` is new"),
            Self::ProcessorRemoved { node } => write!(f, "processor `{node}` is gone"),
            Self::TopicConfigChanged { topic } => write!(
                f,
                "`{topic}` is declared with other configs: a topic that exists keeps its own"
            ),
        }
    }
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() {
        "nothing".to_owned()
    } else {
        quoted.join(", ")
    }
}

fn partitions(count: Option<i32>) -> String {
    count.map_or_else(
        || "as many partitions as its sources".to_owned(),
        |count| format!("{count} partitions"),
    )
}

impl fmt::Display for TopologyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let application = &self.application_id;
        if !self.is_recorded {
            return write!(
                f,
                "`{application}` has recorded no topology yet: its first start does"
            );
        }
        let verdict = self.verdict();
        write!(f, "`{application}`: {verdict}; {}", verdict.advice())?;
        if !self.changes.is_empty() {
            writeln!(f)?;
        }
        for change in &self.changes {
            write!(f, "\n  {:<14} {change}", change.verdict())?;
        }
        if !self.orphans.is_empty() {
            f.write_str("\n\ninternal topics that nothing uses any more; delete them when no older version will run again:")?;
            for topic in &self.orphans {
                write!(f, "\n  {topic}")?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlanJson<'a> {
    format_version: u32,
    application_id: &'a str,
    is_recorded: bool,
    verdict: Verdict,
    changes: Vec<ChangeJson<'a>>,
    orphans: &'a [String],
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    verdict: Verdict,
    text: String,
    #[serde(flatten)]
    change: &'a TopologyChange,
}

impl TopologyPlan {
    /// Returns the plan as indented JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let changes = self.changes.iter().map(|change| ChangeJson {
            verdict: change.verdict(),
            text: change.to_string(),
            change,
        });
        let json = PlanJson {
            format_version: FORMAT_VERSION,
            application_id: &self.application_id,
            is_recorded: self.is_recorded,
            verdict: self.verdict(),
            changes: changes.collect(),
            orphans: &self.orphans,
        };
        // Strings, numbers and lists of them: nothing in it can fail to serialise.
        serde_json::to_string_pretty(&json).unwrap_or_default()
    }
}
