//! The brokers' side of the steps: coordinator, markers, cleaner, reset.

use crate::state::*;

pub(crate) fn serve(world: &mut World, index: usize) {
    let epochs = world.epochs;
    let transaction = &mut world.transactions[index];
    transaction.requested = false;
    if transaction.status == Status::Open && epochs[transaction.identity] == transaction.epoch {
        transaction.status = Status::Committing {
            offsets: transaction.offset.is_none(),
            changelog: false,
        };
    }
}

pub(crate) fn mark_offsets(world: &mut World, index: usize) {
    if let Some((offset, generation)) = world.transactions[index].offset {
        world.committed = offset;
        world.reset_generation = generation;
    }
    marked(world, index, true, false);
}

pub(crate) fn mark_changelog(world: &mut World, index: usize) {
    world.changelog.push(Entry::Marker);
    marked(world, index, false, true);
}

pub(crate) fn marked(world: &mut World, index: usize, offsets_too: bool, changelog_too: bool) {
    if let Status::Committing { offsets, changelog } = world.transactions[index].status {
        let (offsets, changelog) = (offsets || offsets_too, changelog || changelog_too);
        world.transactions[index].status = if offsets && changelog {
            Status::Committed
        } else {
            Status::Committing { offsets, changelog }
        };
    }
}

pub(crate) fn time_out(world: &mut World, index: usize) {
    if world
        .processes
        .iter()
        .any(|process| process.transaction == Some(index))
    {
        world.budget.faults -= 1;
    }
    let transaction = &mut world.transactions[index];
    transaction.status = Status::Aborted;
    let identity = transaction.identity;
    if world.epochs[identity] == transaction.epoch {
        world.epochs[identity] += 1;
    }
}

pub(crate) fn reset(world: &mut World) {
    world.budget.resets -= 1;
    world.committed = 0;
    world.reset_generation += 1;
    world.topic += 1;
    world.changelog.clear();
    world.outputs.clear();
    vacate(world);
}

/// Members that looked dead are members no more.
pub(crate) fn vacate(world: &mut World) {
    world.owner = None;
    world.group_generation += 1;
}

/// The changelog after a cleaner has passed over everything below the last stable offset.
pub(crate) fn compact(world: &World) -> Vec<Entry> {
    let end = world.last_stable_offset();
    let mut cleaned = world.changelog.clone();
    let mut latest = [false; KEYS];
    for entry in cleaned.iter_mut().take(end).rev() {
        if let Entry::Put {
            transaction,
            key,
            value,
            cleaned_at,
            compacted,
        } = entry
        {
            if !world.transactions[*transaction].is_decided() {
                *compacted = true;
                continue;
            }
            let aged = value.is_none() && cleaned_at.is_some_and(|at| at < world.now);
            if latest[*key] || aged {
                *compacted = true;
            } else if value.is_none() {
                cleaned_at.get_or_insert(world.now);
            }
            latest[*key] = true;
        }
    }
    cleaned
}
