//! Transfers and payments through the whole topology: accounts in different partitions, steps through
//! the topics, answers back.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use millstream::config::DurationValue;
use millstream::event_sourcing::{AggregateTopics, EventSourced, Managed, Outcome, ProcessManager};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use millstream_account::{
    AccountParameters, COMMANDS, DEAD_LETTERS, EVENTS, REASON_BYTES_MAX, TRANSACTION_COMMANDS,
    TRANSACTION_EVENTS, Transaction,
};
use serde_json::{Value, json};
use support::{Billing, code, movement};

fn types(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["eventType"].as_str().unwrap())
        .collect()
}

#[test]
fn an_order_whose_reason_is_too_long_for_the_events_of_its_steps_is_rejected() {
    let mut billing = Billing::new();
    billing.accounts(&[("account-1", "100.00"), ("account-2", "0.00")]);
    let order = |bytes: usize| {
        let reason = "x".repeat(bytes);
        json!({"fromAccount": "account-1", "toAccount": "account-2", "amount": "1.00", "reason": reason})
    };
    for command_type in ["Transfer", "RequestPayment"] {
        let reply = billing.order("tx-long", command_type, order(REASON_BYTES_MAX + 1));
        assert_eq!(
            (reply.outcome, code(&reply)),
            (Outcome::Rejected, "INVALID_COMMAND")
        );
    }
    let reply = billing.order("tx-1", "Transfer", order(REASON_BYTES_MAX));
    assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    assert_eq!(billing.balance("account-2"), "1.00");
    billing.order("pay-1", "RequestPayment", order(1));
    let long = json!({"reason": "x".repeat(REASON_BYTES_MAX + 1)});
    for command_type in ["AcceptPayment", "RejectPayment"] {
        let reply = billing.order("pay-1", command_type, long.clone());
        assert_eq!(code(&reply), "INVALID_COMMAND");
    }
    assert_eq!(billing.transaction("pay-1")["status"], "REQUESTED");
}

#[test]
fn a_transfer_moves_money_between_partitions_under_its_id() {
    let mut billing = Billing::new();
    billing.accounts(&[
        ("account-1", "100.00"),
        ("account-2", "0.00"),
        ("account-3", "0.00"),
    ]);
    billing.take(EVENTS);
    billing.take(TRANSACTION_EVENTS);
    let reply = billing.transfer("tx-1", "account-1", "account-2", "30.00");
    assert_eq!(
        (reply.outcome, reply.aggregate_version),
        (Outcome::Accepted, 1)
    );
    assert_eq!(billing.balance("account-1"), "70.00");
    assert_eq!(billing.balance("account-2"), "30.00");

    let events = billing.take_json(TRANSACTION_EVENTS);
    let expected = ["TransferRequested", "TransferDebited", "TransferCompleted"];
    assert_eq!(types(&events), expected);
    let completed = &events[2];
    assert_eq!(
        completed["data"],
        json!({
            "fromAccount": "account-1", "toAccount": "account-2", "amount": "30.00", "currency": "EUR",
        })
    );
    // Who asked for it goes with every step, and so does the request.
    let moved = billing.take_json(EVENTS);
    assert_eq!(types(&moved), ["BalanceChanged", "BalanceChanged"]);
    for (account, step) in [("account-1", "debit"), ("account-2", "credit")] {
        let mut own = moved.iter().filter(|event| event["aggregateId"] == account);
        let event = own.next().unwrap();
        assert_eq!(event["causationId"], format!("tx-1-{step}"));
        assert_eq!(event["data"]["transactionId"], "tx-1");
    }
    for event in events.iter().chain(&moved) {
        assert_eq!(event["correlationId"], "corr-tx-1");
        assert_eq!(event["metadata"]["actorId"], "ann");
    }
    let pending = billing.driver.store_value("transaction-pending", "tx-1");
    assert_eq!(pending.unwrap(), None);
    assert_eq!(billing.take(DEAD_LETTERS), []);
}

#[test]
fn a_transfer_that_fails_leaves_every_account_as_it_was_and_says_why() {
    let mut billing = Billing::new();
    billing.accounts(&[
        ("a", "50.00"),
        ("frozen", "5.00"),
        ("closed", "5.00"),
        ("b", "0.00"),
    ]);
    billing.open("yen", "JPY");
    billing.status("frozen", "FROZEN");
    billing.status("closed", "CLOSED");
    billing.event(&support::foreign("foreign", 1, "0.00", "9.00", "9.00"));
    for (number, (from, to, amount, expected, compensated)) in [
        ("a", "b", "50.01", "INSUFFICIENT_FUNDS", false),
        ("frozen", "b", "1.00", "ACCOUNT_FROZEN", false),
        ("nobody", "b", "1.00", "ACCOUNT_NOT_FOUND", false),
        ("foreign", "b", "1.00", "FOREIGN_OWNED", false),
        ("a", "b", "0.001", "INVALID_AMOUNT", false),
        ("a", "frozen", "1.00", "ACCOUNT_FROZEN", true),
        ("a", "closed", "1.00", "ACCOUNT_CLOSED", true),
        ("a", "nobody", "1.00", "ACCOUNT_NOT_FOUND", true),
        ("a", "foreign", "1.00", "FOREIGN_OWNED", true),
        ("a", "yen", "1.00", "CURRENCY_MISMATCH", true),
    ]
    .into_iter()
    .enumerate()
    {
        billing.take(TRANSACTION_EVENTS);
        let id = format!("tx-{number}");
        let reply = billing.transfer(&id, from, to, amount);
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
        let events = billing.take_json(TRANSACTION_EVENTS);
        let last = events.last().unwrap();
        assert_eq!(last["eventType"], "TransferFailed", "{from} {to}");
        assert_eq!(last["data"]["reasonCode"], expected, "{from} {to}");
        assert_eq!(last["data"]["compensated"], compensated, "{from} {to}");
        assert_eq!(billing.transaction(&id)["status"], "FAILED");
    }
    for (account, balance) in [("a", "50.00"), ("frozen", "5.00"), ("closed", "5.00")] {
        assert_eq!(billing.balance(account), balance, "{account}");
    }
    let reply = billing.transfer("tx-same", "a", "a", "1.00");
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Rejected, "SAME_ACCOUNT")
    );
    assert_eq!(billing.take(DEAD_LETTERS), []);
}

#[test]
fn a_payment_is_requested_and_then_accepted_or_rejected() {
    let mut billing = Billing::new();
    billing.accounts(&[("a", "50.00"), ("b", "0.00")]);
    let data = json!({"fromAccount": "a", "toAccount": "b", "amount": "20", "reason": "Lunch"});
    for id in ["pay-1", "pay-2"] {
        let reply = billing.order(id, "RequestPayment", data.clone());
        assert_eq!(reply.outcome, Outcome::Accepted);
    }
    assert_eq!(billing.balance("a"), "50.00");
    billing.order("pay-1", "AcceptPayment", json!({}));
    billing.order("pay-2", "RejectPayment", json!({"reason": "Unknown"}));
    assert_eq!(billing.transaction("pay-1")["status"], "COMPLETED");
    assert_eq!(billing.transaction("pay-2")["status"], "REJECTED");
    assert_eq!(billing.balance("a"), "30.00");
    assert_eq!(billing.balance("b"), "20.00");
}

#[test]
fn a_repeated_transfer_moves_money_once() {
    let mut billing = Billing::new();
    billing.accounts(&[("a", "50.00"), ("b", "0.00")]);
    let command = json!({
        "commandId": "key", "commandType": "Transfer", "aggregateId": "tx-1",
        "timestamp": "2024-01-01T00:00:00.000Z",
        "data": {"fromAccount": "a", "toAccount": "b", "amount": "10.00", "reason": "x"},
    })
    .to_string();
    for _ in 0..3 {
        billing.pipe(TRANSACTION_COMMANDS, Some("tx-1"), Some(&command));
        billing.driver.restart(false).unwrap();
    }
    assert_eq!(billing.balance("a"), "40.00");
    assert_eq!(billing.balance("b"), "10.00");
}

/// Somebody who guesses the ids of steps could otherwise have a step answered that was never made.
#[test]
fn nobody_can_take_the_command_id_of_a_step_beforehand() {
    let mut billing = Billing::new();
    billing.accounts(&[("a", "50.00"), ("b", "0.00")]);
    for (account, id) in [("a", "tx-1-debit"), ("b", "tx-1-credit")] {
        let command = json!({
            "commandId": id, "commandType": "TopUp", "aggregateId": account,
            "timestamp": "2024-01-01T00:00:00.000Z", "data": movement("0.01"),
        });
        assert_eq!(billing.send(&command).outcome, Outcome::Accepted);
    }
    billing.transfer("tx-1", "a", "b", "10.00");
    assert_eq!(billing.balance("a"), "40.01");
    assert_eq!(billing.balance("b"), "10.01");
    // Nor can anybody give a step, or answer one.
    let leg = json!({"amount": "1.00", "reason": "x", "transactionId": "tx-1"});
    for step in ["DebitTransfer", "CreditTransfer", "RefundTransfer"] {
        let reply = billing.command("a", step, leg.clone());
        assert_eq!(code(&reply), "PROCESS_COMMAND");
    }
    let reply = billing.order("tx-1", "StepAnswered", json!({}));
    assert_eq!(code(&reply), "PROCESS_COMMAND");
}

#[test]
fn a_top_up_and_a_withdrawal_are_transactions_of_their_own() {
    let mut billing = Billing::new();
    billing.accounts(&[("a", "0.00")]);
    let mut top_up = movement("5.00");
    top_up["transactionId"] = "tx-1".into();
    billing.command("a", "TopUp", top_up.clone());
    billing.command("a", "Withdraw", movement("2.00"));
    let withdrawal = format!("tx-cmd-{}", billing.commands);
    let refused = billing.command("a", "Withdraw", movement("9.00"));
    assert_eq!(code(&refused), "INSUFFICIENT_FUNDS");
    let failed = format!("tx-cmd-{}", billing.commands);
    let events = billing.take_json(TRANSACTION_EVENTS);
    let seen: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["aggregateId"].as_str().unwrap(),
                event["eventType"].as_str().unwrap(),
                event["data"]["amount"].as_str().unwrap(),
            )
        })
        .collect();
    for expected in [
        ("tx-1", "TopupCompleted", "5.00"),
        (withdrawal.as_str(), "WithdrawalCompleted", "2.00"),
        (failed.as_str(), "WithdrawalFailed", "9.00"),
    ] {
        assert!(seen.contains(&expected), "{expected:?} in {seen:?}");
    }
    assert_eq!(
        billing.transaction(&failed)["failure"]["reasonCode"],
        "INSUFFICIENT_FUNDS"
    );
    // Under the id of another transaction, the money moves and the transaction stays.
    top_up["amount"] = "1.00".into();
    billing.command("a", "TopUp", top_up);
    assert_eq!(billing.balance("a"), "4.00");
    assert_eq!(billing.transaction("tx-1")["amount"], "5.00");
}

/// A process whose accounts do not answer: nobody reads their commands.
fn unanswered(transfer_memory: Duration) -> TopologyTestDriver {
    let builder = StreamsBuilder::new();
    let topics = AggregateTopics {
        commands: TRANSACTION_COMMANDS.into(),
        events: TRANSACTION_EVENTS.into(),
        replies: "replies".into(),
        dead_letters: DEAD_LETTERS.into(),
    };
    let patience = millstream::event_sourcing::Patience {
        give_up_after: transfer_memory,
        ..millstream::event_sourcing::Patience::default()
    };
    let aggregate = EventSourced::<Managed<Transaction>>::new("transaction", topics);
    let process = ProcessManager::new(aggregate)
        .asks("Account", COMMANDS)
        .patience(patience);
    drop(process.draw(&builder));
    TopologyTestDriver::new(builder.build().unwrap()).unwrap()
}

#[test]
fn a_step_without_an_answer_is_issued_again_unchanged_and_given_up_in_time() {
    let mut driver = unanswered(Duration::from_secs(70));
    let command = json!({
        "commandId": "key", "commandType": "Transfer", "aggregateId": "tx-1",
        "timestamp": "2024-01-01T00:00:00.000Z",
        "data": {"fromAccount": "a", "toAccount": "b", "amount": "10.00", "reason": "x"},
    });
    let now = driver.now_ms();
    let (key, value) = (Some(&b"tx-1"[..]), command.to_string().into_bytes());
    driver
        .pipe_bytes(
            TRANSACTION_COMMANDS,
            key,
            Some(&value),
            now,
            &Headers::new(),
        )
        .unwrap();
    let commands = driver.output_topic(COMMANDS, serdes::string(), serdes::bytes());
    let first = commands.read_records(&mut driver).unwrap();
    let [first] = first.as_slice() else {
        panic!("one step: {first:?}")
    };
    assert_eq!(first.key, "a");
    let header = |name| first.headers.last(name).map(<[u8]>::to_vec);
    assert_eq!(header("process"), Some(b"Transaction".to_vec()));
    assert_eq!(header("processId"), Some(b"tx-1".to_vec()));
    assert_eq!(header("processStep"), Some(b"debit".to_vec()));

    let pending = |driver: &TopologyTestDriver| {
        let pending = driver.store_value("transaction-pending", "tx-1");
        pending.unwrap().unwrap()
    };
    // A second after the other, until something is issued or so many have passed.
    let pass = |driver: &mut TopologyTestDriver, seconds: u32| {
        let second = Duration::from_secs(1);
        for _ in 0..seconds {
            driver.advance_wall_clock_time(second).unwrap();
            let issued = commands.read_records(driver).unwrap();
            if !issued.is_empty() {
                return issued;
            }
        }
        Vec::new()
    };
    let mut issued_at = pending(&driver)["issuedAt"].as_i64().unwrap();
    for attempt in 2..=3 {
        let again = pass(&mut driver, 40);
        let [again] = again.as_slice() else {
            panic!("issued once more: {again:?}")
        };
        assert_eq!(
            (&again.value, &again.headers),
            (&first.value, &first.headers)
        );
        let pending = pending(&driver);
        assert_eq!(pending["attempts"], attempt);
        let last = std::mem::replace(&mut issued_at, pending["issuedAt"].as_i64().unwrap());
        assert!(issued_at - last >= 30_000, "{last} {issued_at}");
        // What is pending survives the loss of the machine.
        driver.restart(false).unwrap();
    }
    assert_eq!(pass(&mut driver, 120), []);
    assert_eq!(pending(&driver)["givenUp"], true);
}

#[test]
fn a_step_that_is_answered_twice_is_made_once() {
    // So impatient that steps are issued again although they were answered.
    let mut billing = Billing::with(AccountParameters {
        transfer_reissue_after: DurationValue(Duration::from_millis(1)),
        ..AccountParameters::default()
    });
    billing.accounts(&[("a", "50.00"), ("b", "0.00")]);
    billing.transfer("tx-1", "a", "b", "10.00");
    // The same step once more, as the process writes it.
    let headers = Headers::new()
        .with("process", "Transaction")
        .with("processId", "tx-1")
        .with("processStep", "debit");
    let step = json!({
        "commandId": "tx-1-debit", "commandType": "DebitTransfer", "aggregateId": "a",
        "timestamp": "2024-01-01T00:00:00.000Z",
        "data": {"amount": "10.00", "reason": "Rent", "transactionId": "tx-1"},
    });
    let (now, value) = (billing.driver.now_ms(), step.to_string().into_bytes());
    billing
        .driver
        .pipe_bytes(COMMANDS, Some(b"a"), Some(&value), now, &headers)
        .unwrap();
    assert_eq!(billing.balance("a"), "40.00");
    assert_eq!(billing.balance("b"), "10.00");
    assert_eq!(billing.transaction("tx-1")["status"], "COMPLETED");
}

/// Suspended: the source was removed while the transfer was under way.
#[test]
fn a_suspended_transfer_is_settled_once_by_an_operator_who_is_named() {
    let mut billing = Billing::new();
    billing.accounts(&[("leaver", "50.00"), ("frozen", "0.00"), ("heir", "0.00")]);
    billing.open("yen", "JPY");
    billing.status("frozen", "FROZEN");
    billing.suspend("tx-1", "leaver", "frozen", "30.00");
    billing.take(TRANSACTION_EVENTS);
    // The money has left, and is nowhere. Asked once more, the source is still gone; others refuse.
    for (account, expected) in [
        (json!(null), "TOMBSTONED"),
        (json!("frozen"), "ACCOUNT_FROZEN"),
        (json!("yen"), "CURRENCY_MISMATCH"),
    ] {
        let settle = json!({"account": account, "reason": "ticket 7"});
        let reply = billing.order("tx-1", "SettleTransfer", settle);
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
        let events = billing.take_json(TRANSACTION_EVENTS);
        let expected_types = ["TransferSettlementOrdered", "TransferSettlementRefused"];
        assert_eq!(types(&events), expected_types);
        assert_eq!(events[1]["data"]["reasonCode"], expected);
        assert_eq!(billing.transaction("tx-1")["status"], "SUSPENDED");
    }
    let reply = billing.order(
        "tx-1",
        "SettleTransfer",
        json!({"account": "", "reason": "x"}),
    );
    assert_eq!(code(&reply), "INVALID_COMMAND");

    let settle = json!({
        "commandId": "settle", "commandType": "SettleTransfer", "aggregateId": "tx-1",
        "timestamp": "2024-01-01T00:00:00.000Z", "metadata": {"actorId": "ops-7"},
        "data": {"account": "heir", "reason": "ticket 7"},
    })
    .to_string();
    for _ in 0..3 {
        billing.pipe(TRANSACTION_COMMANDS, Some("tx-1"), Some(&settle));
        billing.driver.restart(false).unwrap();
    }
    assert_eq!(billing.balance("heir"), "30.00");
    assert_eq!(billing.transaction("tx-1")["status"], "SETTLED");
    let events = billing.take_json(TRANSACTION_EVENTS);
    assert_eq!(
        types(&events),
        ["TransferSettlementOrdered", "TransferSettled"]
    );
    let ordered = json!({"accountId": "heir", "attempt": 4, "reason": "ticket 7"});
    assert_eq!(events[0]["data"], ordered);
    assert_eq!(events[0]["metadata"]["actorId"], "ops-7");
    let settled = json!({"accountId": "heir", "amount": "30.00", "currency": "EUR"});
    assert_eq!(events[1]["data"], settled);
    assert_eq!(billing.take(DEAD_LETTERS), []);
}

#[test]
fn what_is_neither_suspended_nor_given_up_is_neither_settled_nor_resumed() {
    let mut billing = Billing::new();
    billing.accounts(&[("a", "50.00"), ("b", "0.00")]);
    billing.transfer("done", "a", "b", "10.00");
    billing.transfer("failed", "a", "nobody", "10.00");
    let payment = json!({"fromAccount": "a", "toAccount": "b", "amount": "1", "reason": "x"});
    billing.order("asked", "RequestPayment", payment);
    for (id, expected) in [
        ("nothing", "TRANSACTION_NOT_FOUND"),
        ("done", "TRANSACTION_STATUS"),
        ("failed", "TRANSACTION_STATUS"),
        ("asked", "TRANSACTION_STATUS"),
    ] {
        for command_type in ["SettleTransfer", "ResumeTransfer"] {
            let reply = billing.order(id, command_type, json!({"reason": "x"}));
            assert_eq!(
                (reply.outcome, code(&reply)),
                (Outcome::Rejected, expected),
                "{command_type} of {id}"
            );
        }
    }
    let reply = billing.order("done", "StepGivenUp", json!({}));
    assert_eq!(code(&reply), "PROCESS_COMMAND");
    assert_eq!(
        (billing.balance("a"), billing.balance("b")),
        ("40.00".into(), "10.00".into())
    );
}

/// Lets time pass, a second after the other, until a step is issued or so much has passed.
fn pass(driver: &mut TopologyTestDriver, seconds: u32) -> Vec<Record<String, Vec<u8>>> {
    let commands = driver.output_topic(COMMANDS, serdes::string(), serdes::bytes());
    for _ in 0..seconds {
        driver
            .advance_wall_clock_time(Duration::from_secs(1))
            .unwrap();
        let issued = commands.read_records(driver).unwrap();
        if !issued.is_empty() {
            return issued;
        }
    }
    Vec::new()
}

/// Sends the transaction `tx-1` a command and returns the code that it is refused with.
fn tell(
    driver: &mut TopologyTestDriver,
    id: &str,
    kind: &str,
    data: &Value,
    headers: &Headers,
) -> String {
    let command = json!({
        "commandId": id, "commandType": kind, "aggregateId": "tx-1",
        "timestamp": "2024-01-01T00:00:00.000Z", "metadata": {"actorId": "ops-7"}, "data": data,
    });
    let (now, value) = (driver.now_ms(), command.to_string().into_bytes());
    driver
        .pipe_bytes(
            TRANSACTION_COMMANDS,
            Some(b"tx-1"),
            Some(&value),
            now,
            headers,
        )
        .unwrap();
    let replies = driver.output_topic("replies", serdes::string(), serdes::json::<Value>());
    let replies = replies.read_values(driver).unwrap();
    let reply = replies.last().unwrap();
    reply["reason"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_step_that_was_given_up_says_so_and_is_resumed_by_an_operator_under_its_id() {
    let mut driver = unanswered(Duration::from_secs(70));
    let none = Headers::new();
    let order = json!({"fromAccount": "a", "toAccount": "b", "amount": "10.00", "reason": "x"});
    let resume = json!({"reason": "ticket 7"});
    assert_eq!(tell(&mut driver, "key", "Transfer", &order, &none), "");
    let first = pass(&mut driver, 1);
    // As long as it is asked for, there is nothing to resume.
    assert_eq!(
        tell(&mut driver, "r-1", "ResumeTransfer", &resume, &none),
        "TRANSACTION_STATUS"
    );
    while !pass(&mut driver, 120).is_empty() {}
    let state = |driver: &TopologyTestDriver| {
        let record = driver.store_value("transaction-state", "tx-1");
        record.unwrap().unwrap()["state"].clone()
    };
    let shown = state(&driver);
    assert_eq!(
        (&shown["status"], &shown["stalled"]),
        (&json!("DEBITING"), &json!("debit"))
    );

    // What an operator says survives the loss of the machine, and counts once.
    for _ in 0..2 {
        assert_eq!(
            tell(&mut driver, "r-2", "ResumeTransfer", &resume, &none),
            ""
        );
        driver.restart(false).unwrap();
    }
    let again = pass(&mut driver, 1);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(
        (&again[0].value, &again[0].headers),
        (&first[0].value, &first[0].headers)
    );
    assert_eq!(state(&driver).get("stalled"), None);
    assert_eq!(
        tell(&mut driver, "r-3", "ResumeTransfer", &resume, &none),
        "TRANSACTION_STATUS"
    );

    // It has its time again, and is given up again.
    let mut issued = 0;
    while !pass(&mut driver, 120).is_empty() {
        issued += 1;
    }
    assert!(issued >= 1);
    assert_eq!(state(&driver)["stalled"], "debit");
    let events = driver.output_topic(
        TRANSACTION_EVENTS,
        serdes::string(),
        serdes::json::<Value>(),
    );
    let events = events.read_values(&mut driver).unwrap();
    assert_eq!(
        types(&events),
        [
            "TransferRequested",
            "TransferStalled",
            "TransferResumed",
            "TransferStalled"
        ]
    );
    assert_eq!(
        events[2]["data"],
        json!({"step": "debit", "reason": "ticket 7"})
    );
    assert_eq!(events[2]["metadata"]["actorId"], "ops-7");

    // An answer that comes after all still counts.
    let headers = first[0].headers.clone();
    let answer = json!({
        "step": "debit", "events": [],
        "reply": {"commandId": "tx-1-debit", "aggregateType": "Account", "aggregateId": "a",
            "outcome": "REJECTED", "aggregateVersion": 1, "eventIds": [],
            "reason": {"code": "ACCOUNT_FROZEN", "message": "the account is frozen"}},
    });
    assert_eq!(
        tell(&mut driver, "late", "StepAnswered", &answer, &headers),
        ""
    );
    let shown = state(&driver);
    assert_eq!(
        (&shown["status"], shown.get("stalled")),
        (&json!("FAILED"), None)
    );
    let pending = driver.store_value("transaction-pending", "tx-1");
    assert_eq!(pending.unwrap(), None);
}

/// The memory of other commands ends; a step may be asked for again at any time.
#[test]
fn a_step_that_is_asked_for_again_long_after_command_memory_is_made_once() {
    let hour = Duration::from_secs(60 * 60);
    let mut billing = Billing::with(AccountParameters {
        command_memory: DurationValue(hour),
        ..AccountParameters::default()
    });
    billing.accounts(&[("a", "50.00"), ("b", "0.00")]);
    billing.transfer("tx-1", "a", "b", "10.00");
    for _ in 0..3 {
        billing.driver.advance_wall_clock_time(hour * 24).unwrap();
        billing.debit_beforehand("tx-1", "a", "10.00");
        billing.driver.restart(false).unwrap();
    }
    assert_eq!(billing.balance("a"), "40.00");
    // Another command under a forgotten id is a new one.
    let top_up = json!({
        "commandId": "key", "commandType": "TopUp", "aggregateId": "a",
        "timestamp": "2024-01-01T00:00:00.000Z", "data": movement("1.00"),
    });
    billing.send(&top_up);
    billing.driver.advance_wall_clock_time(hour * 24).unwrap();
    billing.send(&top_up);
    assert_eq!(billing.balance("a"), "42.00");
}
