//! What each step does.

use std::collections::{BTreeMap, BTreeSet};

use millstream::log::{LogRange, TopicPartition};
use millstream::runtime::protocol::TransactionEvent as Event;
use millstream::runtime::protocol::TransactionState as State;
use millstream::runtime::protocol::restore::{
    ChangelogCheckpoint, ChangelogFacts, LocalCheckpoint, RestorePlan, RestoreTarget,
    StableOffsets, may_replay, plan_restore,
};

use crate::Protocol;
use crate::broker::*;
use crate::bugs::Bug;
use crate::state::*;
use crate::step::Action;

impl Protocol {
    pub(crate) fn take(&self, world: &mut World, action: Action) {
        match action {
            Action::Join(p) => self.join(world, p),
            Action::InitTransactions(p) => self.init_transactions(world, p),
            Action::FetchStableOffsets(p) => fetch_stable_offsets(world, p),
            Action::FetchTarget(p) => self.fetch_target(world, p),
            Action::Replay(p) => self.replay(world, p),
            Action::ProcessRecord(p) => self.process_record(world, p),
            Action::SendOffsets(p) => self.send_offsets(world, p),
            Action::RequestCommit(p) => self.request_commit(world, p),
            Action::Serve(t) => serve(world, t),
            Action::MarkOffsets(t) => mark_offsets(world, t),
            Action::MarkChangelog(t) => mark_changelog(world, t),
            Action::ReplySucceeds(p) => step(world, p, Event::CommitSucceeded),
            Action::ReplyIsFenced(p) => self.reply_is_fenced(world, p),
            Action::LoseReply(p) => self.lose_reply(world, p),
            Action::LoseRequest(p) => {
                if let Some(index) = world.processes[p].transaction {
                    world.transactions[index].requested = false;
                }
                self.lose_reply(world, p);
            }
            Action::RequestCommitAgain(p) => request_commit_again(world, p),
            Action::ProducerFails(p) => {
                world.budget.faults -= 1;
                step(world, p, Event::Fatal);
            }
            Action::ApplyBatch(p) => {
                self.apply_batch(world, p);
                step(world, p, Event::Applied);
            }
            Action::CommitOffsetsLate(p) => {
                if let Task::Running(running) = &world.processes[p].task {
                    world.committed = running.position;
                }
            }
            Action::Flush(p) => world.processes[p].durable = world.processes[p].live.clone(),
            Action::FlushCheckpoint(p) => {
                world.processes[p].durable.checkpoint = world.processes[p].live.checkpoint.clone();
            }
            Action::LogDemandsAbort(p) => {
                world.budget.faults -= 1;
                step(world, p, Event::AbortRequired);
            }
            Action::NoticeLostPartition(p) => notice_lost_partition(world, p),
            Action::Abort(p) => self.abort(world, p),
            Action::RollBack(p) => self.roll_back(world, p),
            Action::CloseTasks(p) => close_tasks(world, p),
            Action::Crash(p) => crash(world, p),
            Action::TimeOut(t) => time_out(world, t),
            Action::Compact => world.changelog = compact(world),
            Action::TombstonesAge => {
                world.budget.time -= 1;
                world.now += 1;
            }
            Action::Reset => reset(world),
            Action::Rewind => {
                world.budget.rewinds -= 1;
                world.committed -= 1;
                world.rewound = true;
                vacate(world);
            }
        }
    }

    fn join(&self, world: &mut World, p: usize) {
        if world.owner.is_some_and(|owner| owner != p) {
            world.budget.takeovers -= 1;
        }
        world.group_generation += 1;
        world.owner = Some(p);
        let early = self.bug == Some(Bug::TargetBeforeStableOffsets);
        let early_target = early.then(|| as_u8(world.changelog.len()));
        world.processes[p].member_generation = world.group_generation;
        world.processes[p].task = Task::Assigned { early_target };
    }

    fn init_transactions(&self, world: &mut World, p: usize) {
        let identity = self.identities[p];
        if self.bug != Some(Bug::NeverInitialised) {
            world.epochs[identity] += 1;
            for transaction in &mut world.transactions {
                if transaction.identity == identity && transaction.status == Status::Open {
                    transaction.status = Status::Aborted;
                }
            }
        }
        world.processes[p].epoch = world.epochs[identity];
        step(world, p, Event::Initialised);
    }

    fn fetch_target(&self, world: &mut World, p: usize) {
        let Task::Fetched {
            committed,
            generation,
            early_target,
        } = world.processes[p].task
        else {
            return;
        };
        let stable = stable_offsets(committed, generation);
        let end = match early_target {
            Some(target) => usize::from(target),
            None if self.bug == Some(Bug::RestoreStopsAtLastStableOffset) => {
                world.last_stable_offset()
            }
            None => world.changelog.len(),
        };
        let target = RestoreTarget::after(&stable, i64::try_from(end).expect("small"));
        let local = world.processes[p].live.checkpoint.clone();
        let plan = plan_restore(
            local.as_ref().map(local_checkpoint).as_ref(),
            &stable,
            &changelog_facts(world),
            i64::from(world.now),
        );
        if self.bug == Some(Bug::RewindIgnored) && plan.is_err() {
            world.started_over_rewound = true;
        }
        match plan {
            Err(_) if self.bug != Some(Bug::RewindIgnored) => {
                world.processes[p].task = Task::Refused;
                return;
            }
            Ok(RestorePlan::SetAside(distrust, _)) if !self.trusts(&distrust) => {
                world.processes[p].live = Store::default();
                world.processes[p].durable = Store::default();
            }
            Ok(_) | Err(_) => {}
        }
        world.processes[p].task = Task::Restoring {
            committed,
            generation,
            target: u8::try_from(target.offset()).expect("small"),
            topic: world.topic,
            taken_at: world.now,
        };
    }

    /// Both of these believe that old data are young.
    fn trusts_age(&self) -> bool {
        matches!(
            self.bug,
            Some(Bug::OldCheckpointTrusted | Bug::SlowRestoreTrusted)
        )
    }

    fn trusts(&self, distrust: &millstream::runtime::protocol::restore::Distrust) -> bool {
        use millstream::runtime::protocol::restore::Distrust;
        match distrust {
            Distrust::TooOld { .. } => self.bug == Some(Bug::OldCheckpointTrusted),
            Distrust::OlderGeneration { .. }
            | Distrust::NoCheckpoint { .. }
            | Distrust::OtherTopic { .. }
            | Distrust::OutsideLog { .. } => self.bug == Some(Bug::ResetIgnored),
        }
    }

    fn replay(&self, world: &mut World, p: usize) {
        let Task::Restoring {
            committed,
            generation,
            target,
            topic,
            taken_at,
        } = world.processes[p].task
        else {
            return;
        };
        if topic != world.topic {
            world.processes[p].task = Task::Closed;
            world.processes[p].member_generation = 0;
            return;
        }
        let mut store = world.processes[p].live.clone();
        let from = store
            .checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.changelog);
        let end = self.readable_end(world).max(usize::from(from));
        let since = store
            .checkpoint
            .as_ref()
            .map_or(taken_at, |checkpoint| checkpoint.at_end);
        let in_time = may_replay(i64::from(since), i64::from(world.now), Some(1));
        if end > usize::from(from) && !in_time && !self.trusts_age() {
            world.processes[p].live = Store::default();
            world.processes[p].durable = Store::default();
            let taken_at = world.now;
            world.processes[p].task = Task::Restoring {
                committed,
                generation,
                target,
                topic,
                taken_at,
            };
            return;
        }
        for entry in world.changelog.iter().take(end).skip(usize::from(from)) {
            if let Entry::Put {
                transaction,
                key,
                value,
                compacted: false,
                ..
            } = entry
                && (world.transactions[*transaction].is_decided()
                    || self.bug == Some(Bug::RestoreReadsUncommitted))
            {
                store.content[*key] = value.map(|value| (value, as_u8(*transaction)));
            }
        }
        let reached = as_u8(end);
        let done = RestoreTarget::after(&stable_offsets(committed, generation), i64::from(target))
            .is_reached(i64::from(reached));
        let before = store.checkpoint.as_ref();
        store.checkpoint = Some(Checkpoint {
            changelog: reached,
            input: if done {
                committed
            } else {
                before.map_or(0, |c| c.input)
            },
            generation,
            topic,
            at_end: if done {
                taken_at
            } else {
                before.map_or(taken_at, |c| c.at_end)
            },
        });
        world.processes[p].live = store;
        if done {
            world.processes[p].task = Task::Running(Running {
                committed,
                generation,
                topic,
                position: committed,
                overlay: Default::default(),
                reached,
                sent_at: world.now,
            });
        }
    }

    fn process_record(&self, world: &mut World, p: usize) {
        let identity = self.identities[p];
        if world.epochs[identity] != world.processes[p].epoch {
            step(world, p, Event::Fenced);
            return;
        }
        if world.processes[p].state == State::Idle {
            let epoch = world.processes[p].epoch;
            let adopted = world.transactions.iter().position(|transaction| {
                transaction.identity == identity
                    && transaction.epoch == epoch
                    && transaction.status == Status::Open
            });
            let index = adopted.unwrap_or(world.transactions.len());
            if adopted.is_none() {
                world.transactions.push(Transaction {
                    identity,
                    epoch,
                    status: Status::Open,
                    offset: None,
                    requested: false,
                });
            }
            world.processes[p].transaction = Some(index);
            step(world, p, Event::Begun);
        }
        let (Some(transaction), Task::Running(running)) =
            (world.processes[p].transaction, &mut world.processes[p].task)
        else {
            return;
        };
        let op = self.input[usize::from(running.position)];
        let stored = values(&world.processes[p].live.content)[op.key()];
        let before = running.overlay[op.key()].unwrap_or(stored);
        running.overlay[op.key()] = Some(op.apply(before));
        world.outputs.push(Output {
            transaction,
            input: running.position,
            before,
        });
        running.position += 1;
    }

    /// The broker takes offsets before it has the data that go with them: the changelog is still in
    /// the producer's queue.
    fn send_offsets(&self, world: &mut World, p: usize) {
        let Some(index) = world.processes[p].transaction else {
            return;
        };
        if self.is_fenced(world, p) {
            step(world, p, Event::Fenced);
            return;
        }
        let now = world.now;
        let member_generation = world.processes[p].member_generation;
        let Task::Running(running) = &mut world.processes[p].task else {
            return;
        };
        running.sent_at = now;
        let offset = (running.position, running.generation);
        match self.bug {
            Some(Bug::TransactionWithoutOffsets | Bug::OffsetsApartFromData) => {}
            Some(Bug::OffsetsNotFenced) => world.transactions[index].offset = Some(offset),
            _ if member_generation != world.group_generation => {
                step(world, p, Event::Fenced);
                return;
            }
            _ => world.transactions[index].offset = Some(offset),
        }
        step(world, p, Event::OffsetsSent);
    }

    pub(crate) fn is_fenced(&self, world: &World, p: usize) -> bool {
        let process = &world.processes[p];
        let aborted = |index: usize| world.transactions[index].status == Status::Aborted;
        world.epochs[self.identities[p]] != process.epoch
            || process.transaction.is_some_and(aborted)
    }

    /// Flushes the changelog and requests the commit.
    fn request_commit(&self, world: &mut World, p: usize) {
        let Some(index) = world.processes[p].transaction else {
            return;
        };
        if self.is_fenced(world, p) {
            step(world, p, Event::Fenced);
            return;
        }
        let Task::Running(running) = &mut world.processes[p].task else {
            return;
        };
        for (key, value) in running.overlay.iter().enumerate() {
            if let Some(value) = *value {
                world.changelog.push(Entry::Put {
                    transaction: index,
                    key,
                    value,
                    cleaned_at: None,
                    compacted: false,
                });
            }
        }
        running.reached = as_u8(world.changelog.len());
        world.transactions[index].requested = true;
        if self.bug == Some(Bug::AppliedBeforeCommit) {
            self.apply_batch(world, p);
            world.processes[p].transaction = Some(index);
        }
        step(world, p, Event::CommitRequested);
    }

    fn reply_is_fenced(&self, world: &mut World, p: usize) {
        if self.bug == Some(Bug::FencedTakenForCommit) {
            self.apply_batch(world, p);
        }
        step(world, p, Event::Fenced);
    }

    fn lose_reply(&self, world: &mut World, p: usize) {
        world.budget.faults -= 1;
        step(world, p, Event::CommitUnknown);
        match self.bug {
            Some(Bug::UnknownTakenForAbort) => {
                self.roll_back(world, p);
                world.processes[p].state = State::Idle;
            }
            Some(Bug::UnknownTakenForCommit) => {
                self.apply_batch(world, p);
                world.processes[p].state = State::Idle;
            }
            _ => {}
        }
    }

    fn apply_batch(&self, world: &mut World, p: usize) {
        let now = world.now;
        let process = &mut world.processes[p];
        let (Some(transaction), Task::Running(running)) = (process.transaction, &mut process.task)
        else {
            return;
        };
        for (key, value) in running.overlay.iter_mut().enumerate() {
            if let Some(value) = value.take() {
                process.live.content[key] = value.map(|value| (value, as_u8(transaction)));
            }
        }
        running.committed = running.position;
        process.live.checkpoint = Some(Checkpoint {
            changelog: running.reached,
            input: running.position,
            generation: running.generation,
            topic: running.topic,
            at_end: match self.bug {
                Some(Bug::AgeCountedFromApply) => now,
                _ => running.sent_at,
            },
        });
        process.transaction = None;
    }

    fn abort(&self, world: &mut World, p: usize) {
        let Some(index) = world.processes[p].transaction else {
            return;
        };
        let current = world.epochs[self.identities[p]] == world.processes[p].epoch;
        if current && world.transactions[index].status == Status::Open {
            world.transactions[index].status = Status::Aborted;
            step(world, p, Event::AbortSucceeded);
        } else {
            step(world, p, Event::Fenced);
        }
    }

    fn roll_back(&self, world: &mut World, p: usize) {
        if let Task::Running(running) = &mut world.processes[p].task {
            if self.bug != Some(Bug::OverlayKeptAfterAbort) {
                running.overlay = Default::default();
            }
            if self.bug != Some(Bug::PositionKeptAfterAbort) {
                running.position = running.committed;
            }
        }
        world.processes[p].transaction = None;
        if world.processes[p].member_generation == 0 {
            world.processes[p].task = Task::Closed;
        }
        if world.processes[p].state == State::Aborted {
            step(world, p, Event::RolledBack);
        }
    }
}

/// Moves a process's production state machine; a refusal is a finding.
fn step(world: &mut World, p: usize, event: Event) {
    match world.processes[p].state.next(event) {
        Ok(next) => world.processes[p].state = next,
        Err(_) => world.illegal = true,
    }
}

fn fetch_stable_offsets(world: &mut World, p: usize) {
    let (committed, generation) = (world.committed, world.reset_generation);
    if let Task::Assigned { early_target } = world.processes[p].task {
        world.processes[p].task = Task::Fetched {
            committed,
            generation,
            early_target,
        };
    }
}

fn request_commit_again(world: &mut World, p: usize) {
    if let Some(index) = world.processes[p].transaction
        && world.transactions[index].status == Status::Open
    {
        world.transactions[index].requested = true;
    }
    step(world, p, Event::CommitRequested);
}

fn notice_lost_partition(world: &mut World, p: usize) {
    world.processes[p].member_generation = 0;
    if world.processes[p].state.may_abort() {
        step(world, p, Event::AbortDecided);
    } else {
        world.processes[p].task = Task::Closed;
    }
}

fn close_tasks(world: &mut World, p: usize) {
    let process = &mut world.processes[p];
    process.task = Task::Closed;
    process.member_generation = 0;
    process.transaction = None;
    step(world, p, Event::TasksClosed);
}

fn crash(world: &mut World, p: usize) {
    world.budget.crashes -= 1;
    let process = &mut world.processes[p];
    process.state = State::default();
    process.task = Task::Closed;
    process.member_generation = 0;
    process.transaction = None;
    process.live = process.durable.clone();
}

fn input_partition() -> TopicPartition {
    TopicPartition::new("input", 0)
}

fn stable_offsets(committed: u8, generation: u8) -> StableOffsets {
    StableOffsets {
        inputs: BTreeMap::from([(input_partition(), Some(i64::from(committed)))]),
        generation: u64::from(generation),
    }
}

fn local_checkpoint(checkpoint: &Checkpoint) -> LocalCheckpoint {
    LocalCheckpoint {
        // Data and checkpoint are one write in the model, too.
        with_data: BTreeSet::from(["store".to_owned()]),
        generation: u64::from(checkpoint.generation),
        inputs: BTreeMap::from([(input_partition(), i64::from(checkpoint.input))]),
        changelogs: BTreeMap::from([(
            "store".to_owned(),
            ChangelogCheckpoint {
                topic_id: [checkpoint.topic; 16],
                offset: i64::from(checkpoint.changelog),
                at_end: i64::from(checkpoint.at_end),
            },
        )]),
    }
}

fn changelog_facts(world: &World) -> BTreeMap<String, ChangelogFacts> {
    let end = i64::try_from(world.changelog.len()).expect("small");
    let facts = ChangelogFacts {
        topic_id: [world.topic; 16],
        range: LogRange { start: 0, end },
        tombstone_retention: Some(1),
    };
    BTreeMap::from([("store".to_owned(), facts)])
}
