//! The steps of the model: what brokers, processes and fate can do next.

use millstream::runtime::protocol::TransactionState as State;

use crate::Protocol;
use crate::bugs::Bug;
use crate::state::*;

/// One step. Numbers are processes, or transactions where said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Joins the group: a rejoin of the owner, or a takeover from one that looks dead.
    Join(usize),
    InitTransactions(usize),
    FetchStableOffsets(usize),
    FetchTarget(usize),
    Replay(usize),
    ProcessRecord(usize),
    SendOffsets(usize),
    RequestCommit(usize),
    /// The coordinator serves a transaction's commit request.
    Serve(usize),
    /// A transaction's marker reaches the offsets topic.
    MarkOffsets(usize),
    /// A transaction's marker reaches the changelog.
    MarkChangelog(usize),
    ReplySucceeds(usize),
    ReplyIsFenced(usize),
    LoseReply(usize),
    LoseRequest(usize),
    RequestCommitAgain(usize),
    ProducerFails(usize),
    ApplyBatch(usize),
    /// Only with a planted bug: the offsets follow the transaction.
    CommitOffsetsLate(usize),
    Flush(usize),
    /// Only with a planted bug: the checkpoint becomes durable, the data does not yet.
    FlushCheckpoint(usize),
    LogDemandsAbort(usize),
    NoticeLostPartition(usize),
    Abort(usize),
    RollBack(usize),
    CloseTasks(usize),
    /// Dies and starts again; until it joins it is as good as dead.
    Crash(usize),
    /// The coordinator aborts a transaction that has been open for too long.
    TimeOut(usize),
    Compact,
    TombstonesAge,
    Reset,
    /// Another tool moves the group back.
    Rewind,
}

impl Protocol {
    pub(crate) fn enabled(&self, world: &World, actions: &mut Vec<Action>) {
        // Steps that nobody else sees and nothing can prevent are taken at once: other orders lead to
        // the same states.
        for (p, process) in world.processes.iter().enumerate() {
            match process.state {
                State::Aborted => return actions.push(Action::RollBack(p)),
                State::Fenced | State::Undetermined => return actions.push(Action::CloseTasks(p)),
                _ => {}
            }
        }
        for process in 0..PROCESSES {
            self.enabled_in_process(world, process, actions);
        }
        for (index, transaction) in world.transactions.iter().enumerate() {
            if transaction.requested {
                actions.push(Action::Serve(index));
            }
            if let Status::Committing { offsets, changelog } = transaction.status {
                if !offsets {
                    actions.push(Action::MarkOffsets(index));
                }
                if !changelog {
                    actions.push(Action::MarkChangelog(index));
                }
            }
            let held = world.processes.iter().any(|p| p.transaction == Some(index));
            if transaction.status == Status::Open && (!held || world.budget.faults > 0) {
                actions.push(Action::TimeOut(index));
            }
        }
        if self.compaction && crate::broker::compact(world) != world.changelog {
            actions.push(Action::Compact);
        }
        if world.budget.time > 0 {
            actions.push(Action::TombstonesAge);
        }
        let unattended = world
            .owner
            .is_none_or(|p| world.processes[p].member_generation == 0);
        let pending = world.transactions.iter().any(Transaction::is_pending);
        if unattended && !pending && world.budget.resets > 0 {
            actions.push(Action::Reset);
        }
        if unattended && !pending && world.budget.rewinds > 0 && world.committed > 0 {
            actions.push(Action::Rewind);
        }
    }

    fn enabled_in_process(&self, world: &World, p: usize, actions: &mut Vec<Action>) {
        let process = &world.processes[p];
        let budget = &world.budget;
        let member = process.member_generation != 0;
        let current = process.member_generation == world.group_generation;
        let at_rest = matches!(process.state, State::Unsettled | State::Idle);
        if !member && process.task == Task::Closed && at_rest {
            let free = world.owner.is_none_or(|owner| owner == p);
            // Which process comes first makes no difference.
            let first = p == 0 || world.group_generation > 0;
            if (free || budget.takeovers > 0) && first {
                actions.push(Action::Join(p));
            }
        }
        let settled = |t: &Transaction| {
            t.identity != self.identities[p] || !matches!(t.status, Status::Committing { .. })
        };
        let ready = world.transactions.iter().all(settled);
        let stable_fetched = matches!(process.task, Task::Fetched { .. });
        if process.state == State::Unsettled && member && ready && !stable_fetched {
            actions.push(Action::InitTransactions(p));
        }
        self.enabled_by_task(world, p, ready, actions);
        if matches!(process.state, State::Open | State::OffsetsSent) && budget.faults > 0 {
            actions.push(Action::LogDemandsAbort(p));
        }
        if member && !current && (process.state.may_abort() || at_rest) {
            actions.push(Action::NoticeLostPartition(p));
        }
        self.enabled_by_state(world, p, actions);
        // Without a crash to come nobody sees what is durable.
        if process.live != process.durable && budget.crashes > 0 {
            if self.bug == Some(Bug::CheckpointAheadOfData)
                && process.live.checkpoint != process.durable.checkpoint
            {
                actions.push(Action::FlushCheckpoint(p));
            }
            actions.push(Action::Flush(p));
        }
        if budget.crashes > 0 && (process.state != State::Unsettled || member) {
            actions.push(Action::Crash(p));
        }
    }

    fn enabled_by_task(&self, world: &World, p: usize, ready: bool, actions: &mut Vec<Action>) {
        let process = &world.processes[p];
        match &process.task {
            Task::Closed | Task::Refused => {}
            Task::Assigned { .. } => {
                let pending = world.transactions.iter().any(Transaction::is_pending);
                if !pending || self.bug == Some(Bug::OffsetsNotStable) {
                    actions.push(Action::FetchStableOffsets(p));
                }
            }
            Task::Fetched { .. } => actions.push(Action::FetchTarget(p)),
            Task::Restoring { target, .. } => {
                let position = process.live.checkpoint.as_ref().map_or(0, |c| c.changelog);
                if usize::from(position) < self.readable_end(world) || position >= *target {
                    actions.push(Action::Replay(p));
                }
            }
            Task::Running(running) => {
                let begins = process.state == State::Idle && ready;
                let more = usize::from(running.position) < self.input.len();
                if more && (begins || process.state == State::Open) {
                    actions.push(Action::ProcessRecord(p));
                }
            }
        }
    }

    fn enabled_by_state(&self, world: &World, p: usize, actions: &mut Vec<Action>) {
        let process = &world.processes[p];
        match process.state {
            State::Unsettled | State::Idle => {
                if let Task::Running(running) = &process.task
                    && self.bug == Some(Bug::OffsetsApartFromData)
                    && running.position > world.committed
                    && process.state == State::Idle
                {
                    actions.push(Action::CommitOffsetsLate(p));
                }
            }
            State::Open => actions.push(Action::SendOffsets(p)),
            State::OffsetsSent => actions.push(Action::RequestCommit(p)),
            State::CommitRequested => self.enabled_by_reply(world, p, actions),
            State::OutcomeUnknown => {
                actions.push(Action::RequestCommitAgain(p));
                if world.budget.faults > 0 {
                    actions.push(Action::ProducerFails(p));
                }
            }
            State::Committed => actions.push(Action::ApplyBatch(p)),
            State::Aborting => actions.push(Action::Abort(p)),
            State::Aborted | State::Fenced | State::Undetermined => {}
        }
    }

    fn enabled_by_reply(&self, world: &World, p: usize, actions: &mut Vec<Action>) {
        let process = &world.processes[p];
        let Some(index) = process.transaction else {
            return;
        };
        let transaction = &world.transactions[index];
        if transaction.is_decided() {
            actions.push(Action::ReplySucceeds(p));
        }
        if self.is_fenced(world, p) && !transaction.requested && self.bug != Some(Bug::FenceIgnored)
        {
            actions.push(Action::ReplyIsFenced(p));
        }
        if world.budget.faults > 0 {
            actions.push(Action::LoseReply(p));
            if transaction.requested {
                actions.push(Action::LoseRequest(p));
            }
            actions.push(Action::ProducerFails(p));
        }
    }

    /// Where a restore's reader stops for now.
    pub(crate) fn readable_end(&self, world: &World) -> usize {
        if self.bug == Some(Bug::RestoreReadsUncommitted) {
            world.changelog.len()
        } else {
            world.last_stable_offset()
        }
    }
}
