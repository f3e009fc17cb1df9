//! A reset's plan as text for the person who decides.

use std::fmt;

use super::plan::{DeletionReason, OffsetPlan, Refusal, ResetPlan, ResetSteps};

impl fmt::Display for ResetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusals) => {
                f.write_str("refused; nothing was changed")?;
                refusals
                    .iter()
                    .try_for_each(|refusal| write!(f, "\n  {refusal}"))
            }
            Self::Nothing => f.write_str("nothing to reset: the application has left no trace"),
            Self::Reset(steps) => steps.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemberAlive(member) => {
                let id = member
                    .group_instance_id
                    .as_ref()
                    .unwrap_or(&member.client_id);
                write!(f, "member `{id}` is alive")?;
                if !member.assignment.is_empty() {
                    let owned: Vec<String> =
                        member.assignment.iter().map(ToString::to_string).collect();
                    write!(f, " and owns {}", owned.join(", "))?;
                }
                f.write_str(": stop it; one that was killed is gone after its session timeout")
            }
            Self::PositionUnknown { partition, range } => write!(
                f,
                "the group has no position in {partition}, which is never read again (offsets {} to \
                 {}): commit one, or start the application once",
                range.start, range.end
            ),
            Self::RecordStoreWithoutChangelog { store } => write!(
                f,
                "record store `{store}` has no changelog: it would be lost with the local state"
            ),
        }
    }
}

impl fmt::Display for ResetSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rewinds = self.rewinds.iter().map(|plan| match plan {
            OffsetPlan {
                partition,
                from: Some(from),
                to,
            } if to > &0 => {
                format!("{partition}: {from} -> {to} (what was before has expired)")
            }
            OffsetPlan {
                partition,
                from: Some(from),
                to,
            } => format!("{partition}: {from} -> {to}"),
            OffsetPlan {
                partition,
                from: None,
                to,
            } => format!("{partition}: none -> {to}"),
        });
        section(f, "read again from the beginning", rewinds)?;
        let deletions = self
            .deletions
            .iter()
            .map(|deletion| match &deletion.reason {
                DeletionReason::DerivedStore(store) => {
                    format!(
                        "{}: changelog of the derived store `{store}`",
                        deletion.topic
                    )
                }
                DeletionReason::Repartition(_) if !deletion.exists => {
                    format!(
                        "{}: repartition topic, missing, created again",
                        deletion.topic
                    )
                }
                DeletionReason::Repartition(_) => {
                    format!("{}: repartition topic, created again empty", deletion.topic)
                }
            });
        section(f, "delete", deletions)?;
        let positions = self
            .kept_positions
            .iter()
            .map(|plan| format!("{}: records up to {} are done", plan.partition, plan.to));
        let kept = self.kept.iter().map(|kept| {
            format!(
                "{}: changelog of the record store `{}`",
                kept.changelog, kept.store
            )
        });
        section(f, "keep", positions.chain(kept))?;
        section(
            f,
            "keep, with old results before the new ones",
            self.outputs.iter().map(ToString::to_string),
        )?;
        write!(
            f,
            "local state\n  stale on every node: generation {} -> {}",
            self.generation - 1,
            self.generation
        )
    }
}

/// Writes a heading and its lines, or nothing when there are none.
fn section(
    f: &mut fmt::Formatter<'_>,
    heading: &str,
    lines: impl Iterator<Item = String>,
) -> fmt::Result {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        writeln!(f, "{heading}")?;
    }
    lines.try_for_each(|line| writeln!(f, "  {line}"))
}
