//! The group under random members: a partition is never in two hands, and calm brings balance.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SESSION_MS: i64 = 10_000;
const PARTITIONS: i32 = 6;

/// A client that follows the protocol, as far as it gets to.
#[derive(Debug, Default)]
struct Client {
    member: Option<MemberId>,
    holds: BTreeSet<TopicPartition>,
    unanswered: Option<MembershipEvent>,
}

#[derive(Debug, Default)]
struct World {
    group: Group,
    clients: Vec<Client>,
    next: MemberId,
    now: i64,
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Poll(usize),
    Answer(usize),
    Leave(usize),
    Restart(usize),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..4_usize;
    let step = prop_oneof![
        1 => client.clone().prop_map(Step::Join),
        8 => client.clone().prop_map(Step::Poll),
        6 => client.clone().prop_map(Step::Answer),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.prop_map(Step::Restart),
        1 => (0..SESSION_MS).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

impl World {
    fn new() -> Self {
        Self {
            clients: (0..4).map(|_| Client::default()).collect(),
            ..Self::default()
        }
    }

    fn counts() -> BTreeMap<TopicName, i32> {
        BTreeMap::from([("topic".into(), PARTITIONS)])
    }

    fn join(&mut self, at: usize) {
        let spec = ConsumerSpec {
            group: "group".to_owned(),
            // Two are static, two are not.
            group_instance_id: (at < 2).then(|| format!("instance-{at}")),
            client_id: format!("client-{at}"),
            session_timeout: Duration::from_millis(10_000),
        };
        self.next += 1;
        self.group
            .join(self.next, &spec, &["topic".into()], self.now);
        self.clients[at] = Client {
            member: Some(self.next),
            ..Client::default()
        };
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join(at) if self.clients[at].member.is_none() => self.join(at),
            // A killed static member comes back; the other kind leaves its member behind.
            Step::Restart(at) if at < 2 => self.join(at),
            Step::Poll(at) => self.poll(at),
            Step::Answer(at) => self.answer(at),
            Step::Leave(at) => {
                if let Some(member) = self.clients[at].member {
                    self.group.remove(member, self.now);
                }
                self.clients[at] = Client::default();
            }
            Step::Pass(time) => {
                self.now += time;
                self.group.expire(self.now, false);
            }
            Step::Join(_) | Step::Restart(_) => {}
        }
        self.check();
    }

    fn poll(&mut self, at: usize) {
        let Some(member) = self.clients[at].member else {
            return;
        };
        if self.group.check_member(member, None).is_err() {
            self.clients[at] = Client::default();
            return;
        }
        self.group.touch(member, self.now);
        if let Some(event) = self.group.poll(member, &Self::counts()) {
            let client = &mut self.clients[at];
            assert_eq!(client.unanswered, None, "the last event is not answered");
            if let MembershipEvent::Assigned(partitions) = &event {
                client.holds.extend(partitions.iter().cloned());
            }
            // An assignment of nothing needs no answer.
            client.unanswered =
                Some(event).filter(|event| *event != MembershipEvent::Assigned(Vec::new()));
        }
    }

    fn answer(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(member) = client.member else { return };
        match client.unanswered.take() {
            Some(MembershipEvent::Revoked(partitions)) => {
                client.holds.retain(|one| !partitions.contains(one));
                self.group.unassigned(member, &partitions, self.now);
            }
            Some(MembershipEvent::Assigned(_)) => self.group.assign_answered(member),
            Some(MembershipEvent::Lost(_)) | None => {}
        }
    }

    /// No partition is held by two clients that the group still knows.
    fn check(&self) {
        let mut held = BTreeSet::new();
        for client in &self.clients {
            let current = client
                .member
                .is_some_and(|one| self.group.check_member(one, None).is_ok());
            for partition in client.holds.iter().filter(|_| current) {
                assert!(
                    held.insert(partition.clone()),
                    "{partition} is in two hands: {self:?}"
                );
            }
        }
    }

    /// Everybody polls and answers until nothing more happens.
    fn calm(&mut self) {
        for _ in 0..40 {
            for at in 0..self.clients.len() {
                self.step(&Step::Poll(at));
                self.step(&Step::Answer(at));
            }
        }
    }
}

proptest! {
    #[test]
    fn a_partition_is_never_in_two_hands_and_calm_brings_balance(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.calm();
        let sizes: Vec<usize> = world
            .clients
            .iter()
            .filter(|client| client.member.is_some())
            .map(|client| client.holds.len())
            .collect();
        // A member whose client went without leaving has a share until its session ends.
        prop_assert_eq!(sizes.len(), world.group.members.len());
        if let (Some(least), Some(most)) = (sizes.iter().min(), sizes.iter().max()) {
            prop_assert_eq!(sizes.iter().sum::<usize>(), 6, "{:?}", world);
            prop_assert!(most - least <= 1, "{:?}", world);
        }
        prop_assert!(!world.group.is_preparing());
    }
}

#[test]
fn a_session_counts_from_the_last_call_or_from_the_clients_end() {
    let mut world = World::new();
    world.join(0);
    world.poll(0);
    let member = world.clients[0].member.unwrap();
    assert!(!world.group.expire(SESSION_MS, false));
    assert!(
        !world.group.expire(SESSION_MS + 1, true),
        "heartbeats of a living client are implied"
    );
    world.group.disconnected(member, Some(SESSION_MS));
    assert!(!world.group.expire(2 * SESSION_MS, true));
    assert!(world.group.expire(2 * SESSION_MS + 1, true));

    world.join(1);
    assert!(world.group.expire(SESSION_MS + 1, false));
}

#[test]
fn a_member_that_does_not_rejoin_is_dropped_after_the_poll_interval() {
    let mut world = World::new();
    for at in [0, 1] {
        world.join(at);
        world.poll(at);
    }
    world.calm();
    world.join(2);
    let (silent, polling) = (
        world.clients[0].member.unwrap(),
        world.clients[1].member.unwrap(),
    );
    world.group.touch(silent, MAX_POLL_INTERVAL_MS);
    for at in [1, 2] {
        world.now = MAX_POLL_INTERVAL_MS;
        world.poll(at);
    }
    assert!(!world.group.expire(MAX_POLL_INTERVAL_MS, true));
    assert!(world.group.expire(MAX_POLL_INTERVAL_MS + 1, true));
    assert!(world.group.check_member(silent, None).is_err());
    assert!(world.group.check_member(polling, None).is_ok());
}
