//! The packaged topology as production runs it, on the embedded log: commands and events of other
//! systems in, events, replies, balances and dead letters out.

mod support;

use std::time::Duration;

use millstream::config::DurationValue;
use millstream::event_sourcing::{Outcome, Reply};
use millstream::prelude::*;
use millstream_account::{AccountParameters, BALANCES, COMMANDS, DEAD_LETTERS, EVENTS, REPLIES};
use serde_json::json;
use support::{Billing, code, foreign, movement};

#[test]
fn an_account_is_opened_used_frozen_and_shown() {
    let mut billing = Billing::new();
    billing.open("account-1", "EUR");
    billing.command("account-1", "TopUp", movement("150.00"));
    let reply = billing.command("account-1", "Withdraw", movement("49.50"));
    assert_eq!(
        (reply.outcome, reply.aggregate_version),
        (Outcome::Accepted, 3)
    );
    let overdraft = billing.command("account-1", "Withdraw", movement("100.51"));
    assert_eq!(
        (overdraft.outcome, code(&overdraft)),
        (Outcome::Rejected, "INSUFFICIENT_FUNDS")
    );
    let freeze = json!({"newStatus": "FROZEN", "reason": "test"});
    billing.command("account-1", "ChangeStatus", freeze);
    let frozen = billing.command("account-1", "TopUp", movement("1.00"));
    assert_eq!(code(&frozen), "ACCOUNT_FROZEN");

    let events = billing.take(EVENTS);
    let types: Vec<_> = events
        .iter()
        .map(|event| String::from_utf8(event.headers.last("eventType").unwrap().to_vec()).unwrap())
        .collect();
    let expected = [
        "AccountCreated",
        "BalanceChanged",
        "BalanceChanged",
        "AccountStatusChanged",
    ];
    assert_eq!(types, expected);
    let shown: Vec<_> = billing
        .balances()
        .into_iter()
        .map(|balance| {
            (
                balance.version,
                balance.balance,
                format!("{:?}", balance.status),
            )
        })
        .collect();
    let row = |version, balance: &str, status: &str| (version, balance.into(), status.into());
    let expected = [
        row(1, "0.00", "Active"),
        row(2, "150.00", "Active"),
        row(3, "100.50", "Active"),
        row(4, "100.50", "Frozen"),
    ];
    assert_eq!(shown, expected);
    let state = billing.state("account-1");
    assert_eq!(
        (&state["version"], &state["origin"]),
        (&json!(4), &json!("native"))
    );
    assert_eq!(state["state"]["balance"], "100.50");
}

#[test]
fn own_events_come_back_and_change_nothing() {
    let mut billing = Billing::new();
    billing.open("account-1", "EUR");
    billing.command("account-1", "TopUp", movement("1.00"));
    assert_eq!(
        billing.balances().len(),
        2,
        "one per event, none for its return"
    );
    assert_eq!(billing.take(DEAD_LETTERS), []);
    let repetitions = billing.metric("millstream_events_repetitions_total");
    assert!(
        (repetitions - 2.0).abs() < f64::EPSILON,
        "{}",
        billing.driver.metrics()
    );
}

#[test]
fn a_repeated_command_id_gets_its_first_reply_and_moves_no_money() {
    let hour = Duration::from_secs(60 * 60);
    let mut billing = Billing::with(AccountParameters {
        command_memory: DurationValue(hour),
        ..AccountParameters::default()
    });
    billing.open("account-1", "EUR");
    let command = json!({
        "commandId": "key-1", "commandType": "TopUp", "aggregateId": "account-1",
        "timestamp": "2024-01-01T00:00:00.000Z", "data": movement("5.00"),
    });
    let first = billing.send(&command);
    assert_eq!(billing.send(&command), first);
    assert_eq!(billing.state("account-1")["state"]["balance"], "5.00");
    billing.driver.advance_wall_clock_time(hour).unwrap();
    assert_eq!(billing.send(&command).aggregate_version, 3, "forgotten");
}

#[test]
fn of_two_commands_with_one_expected_version_one_wins() {
    let mut billing = Billing::new();
    billing.open("account-1", "EUR");
    let command = |id: &str| {
        json!({
            "commandId": id, "commandType": "TopUp", "aggregateId": "account-1",
            "expectedVersion": 1, "timestamp": "2024-01-01T00:00:00.000Z", "data": movement("5.00"),
        })
    };
    assert_eq!(billing.send(&command("first")).outcome, Outcome::Accepted);
    let second = billing.send(&command("second"));
    assert_eq!(
        (second.outcome, code(&second)),
        (Outcome::Conflict, "VERSION_CONFLICT")
    );
    assert_eq!(second.aggregate_version, 2);
}

#[test]
fn a_foreign_account_is_folded_and_takes_no_commands() {
    let mut billing = Billing::new();
    billing.event(&foreign("account-9", 1, "0.00", "150.00", "150.00"));
    billing.event(&foreign("account-9", 2, "150.00", "-200.00", "-50.00"));
    billing.event(&foreign("account-9", 2, "150.00", "-200.00", "-50.00"));
    let balances = billing.balances();
    let shown: Vec<_> = balances
        .iter()
        .map(|balance| (balance.version, balance.balance.as_str()))
        .collect();
    assert_eq!(shown, [(1, "150.00"), (2, "-50.00")]);
    let reply = billing.command("account-9", "TopUp", movement("50.00"));
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Rejected, "FOREIGN_OWNED")
    );
    assert_eq!(reply.aggregate_version, 2);
    // An account that was never opened is nobody's.
    let reply = billing.command("account-8", "TopUp", movement("50.00"));
    assert_eq!(code(&reply), "ACCOUNT_NOT_FOUND");
}

#[test]
fn what_does_not_follow_is_a_dead_letter_with_bytes_headers_and_reason() {
    let mut billing = Billing::new();
    billing.event(&foreign("account-9", 1, "0.00", "150.00", "150.00"));
    billing.balances();
    let mut conflict = foreign("account-9", 1, "0.00", "150.00", "150.00");
    conflict["eventId"] = "another".into();
    let mut number = foreign("account-9", 2, "150.00", "1.00", "151.00");
    number["data"]["newBalance"] = 151.into();
    for (event, expected) in [
        (conflict, "VERSION_CONFLICT"),
        (
            foreign("account-9", 3, "150.00", "1.00", "151.00"),
            "VERSION_GAP",
        ),
        (
            foreign("account-9", 2, "150.00", "1.00", "152.00"),
            "WRONG_AMOUNT",
        ),
        (
            foreign("account-9", 2, "140.00", "1.00", "141.00"),
            "PREVIOUS_BALANCE_MISMATCH",
        ),
        (number, "MALFORMED_EVENT"),
    ] {
        billing.event(&event);
        let letters = billing.take(DEAD_LETTERS);
        let [letter] = letters.as_slice() else {
            panic!("{expected}: {letters:?}")
        };
        let header = |name| String::from_utf8(letter.headers.last(name).unwrap().to_vec()).unwrap();
        assert_eq!(header("__streams.errors.exception"), expected);
        assert_eq!(header("__streams.errors.topic"), EVENTS);
        assert!(!header("__streams.errors.message").is_empty());
        assert!(header("__streams.errors.offset").parse::<i64>().is_ok());
        assert_eq!(header("original"), "header");
        assert_eq!(letter.value, event.to_string().into_bytes());
        assert_eq!(letter.key.as_deref(), Some("account-9"));
    }
    assert_eq!(billing.balances(), []);
    // Nothing of them is left: the next event follows.
    billing.event(&foreign("account-9", 2, "150.00", "1.00", "151.00"));
    assert_eq!(billing.balances().len(), 1);
}

#[test]
fn unreadable_records_are_dead_letters_and_the_rest_goes_on() {
    let mut billing = Billing::new();
    let good = foreign("account-9", 1, "0.00", "1.00", "1.00").to_string();
    for (topic, key, value, expected) in [
        (EVENTS, Some("account-9"), Some("hello"), "NOT_JSON"),
        (EVENTS, None, Some(good.as_str()), "MISSING_KEY"),
        (EVENTS, Some("account-9"), None, "MISSING_VALUE"),
        (COMMANDS, Some("account-9"), Some("hello"), "NOT_JSON"),
        (COMMANDS, Some("account-9"), Some("{}"), "INVALID_COMMAND"),
    ] {
        billing.pipe(topic, key, value);
        let key = serdes::optional(serdes::string());
        let value = serdes::optional(serdes::bytes());
        let letters = billing.driver.output_topic(DEAD_LETTERS, key, value);
        let letters = letters.read_records(&mut billing.driver).unwrap();
        let [letter] = letters.as_slice() else {
            panic!("{expected}: {letters:?}")
        };
        let code = letter.headers.last("__streams.errors.exception");
        assert_eq!(code, Some(expected.as_bytes()));
    }
    billing.pipe(EVENTS, Some("account-9"), Some(&good));
    assert_eq!(billing.balances().len(), 1);
}

#[test]
fn a_transfer_that_is_sent_to_an_account_is_told_where_it_belongs() {
    let mut billing = Billing::new();
    billing.open("account-1", "EUR");
    let data = json!({
        "fromAccount": "account-1", "toAccount": "account-2", "amount": "1.00", "reason": "test",
    });
    for command_type in ["Transfer", "RequestPayment"] {
        let reply = billing.command("account-1", command_type, data.clone());
        assert_eq!(
            (reply.outcome, code(&reply)),
            (Outcome::Rejected, "WRONG_AGGREGATE")
        );
        let reason = reply.reason.unwrap();
        assert!(reason.message.contains("Transaction"), "{reason:?}");
    }
}

#[test]
fn a_command_whose_metadata_nests_too_deep_is_answered() {
    let mut billing = Billing::new();
    billing.open("account-1", "EUR");
    for (depth, outcome) in [(63, Outcome::Accepted), (200, Outcome::Rejected)] {
        // Brackets in a text do not count.
        let nested = format!("{}\"[[[\"{}", "[".repeat(depth), "]".repeat(depth));
        let command = format!(
            r#"{{"commandId":"deep-{depth}","commandType":"TopUp","aggregateId":"account-1",
                "timestamp":"2024-01-01T00:00:00.000Z","metadata":{{"a":{nested}}},
                "data":{{"amount":"1.00","reason":"test"}}}}"#
        );
        billing.take(REPLIES);
        billing.pipe(COMMANDS, Some("account-1"), Some(&command));
        let replies = billing.take_json(REPLIES);
        assert_eq!(replies.len(), 1, "{depth}");
        let reply: Reply = serde_json::from_value(replies[0].clone()).unwrap();
        assert_eq!(reply.outcome, outcome, "{reply:?}");
        if outcome == Outcome::Rejected {
            assert_eq!(code(&reply), "INVALID_COMMAND");
        }
    }
    assert_eq!(billing.take(DEAD_LETTERS).len(), 0);
}

#[test]
fn history_holds_every_event_with_its_origin() {
    let mut billing = Billing::new();
    billing.open("account-1", "EUR");
    billing.event(&foreign("account-9", 1, "0.00", "1.00", "1.00"));
    let entries = billing
        .driver
        .store_entries("account-history", &serdes::bytes(), &serdes::bytes())
        .unwrap();
    let mut kept: Vec<_> = entries
        .into_iter()
        .map(|(key, value)| (String::from_utf8(key).unwrap(), value.first().copied()))
        .collect();
    kept.sort();
    let key = |id: &str| format!("{id}\0\0\0\0\0\0\0\0\u{1}");
    assert_eq!(
        kept,
        [(key("account-1"), Some(1)), (key("account-9"), Some(2))]
    );
}

#[test]
fn an_account_is_removed_only_when_it_is_closed_and_empty_and_ends_for_good() {
    let mut billing = Billing::new();
    billing.accounts(&[("a", "5.00"), ("b", "9.00")]);
    let remove = |billing: &mut Billing, account: &str| {
        let reply = billing.command(account, "RemoveAccount", json!({"reason": "test"}));
        (reply.outcome, code(&reply).to_owned())
    };
    let refused = |code: &str| (Outcome::Rejected, code.to_owned());
    assert_eq!(remove(&mut billing, "nobody"), refused("ACCOUNT_NOT_FOUND"));
    assert_eq!(remove(&mut billing, "a"), refused("ACCOUNT_NOT_CLOSED"));
    billing.status("a", "CLOSED");
    // What is in it would be nowhere.
    assert_eq!(remove(&mut billing, "a"), refused("ACCOUNT_NOT_EMPTY"));
    billing.command("b", "Withdraw", movement("9.00"));
    billing.status("b", "CLOSED");
    billing.balances();
    assert_eq!(
        remove(&mut billing, "b"),
        (Outcome::Accepted, String::new())
    );
    let value = serdes::optional(serdes::bytes());
    let balances = billing
        .driver
        .output_topic(BALANCES, serdes::string(), value);
    let rows = balances.read_key_values(&mut billing.driver).unwrap();
    assert_eq!(rows, [("b".to_owned(), None)]);
    let kept = billing.state("b");
    assert_eq!(
        (&kept["tombstoned"], kept.get("state")),
        (&json!(true), None)
    );

    assert_eq!(remove(&mut billing, "b"), refused("TOMBSTONED"));
    let top_up = billing.command("b", "TopUp", movement("1.00"));
    assert_eq!(code(&top_up), "TOMBSTONED");
    let failed = billing.transaction(&format!("tx-cmd-{}", billing.commands));
    assert_eq!(failed["failure"]["reasonCode"], "TOMBSTONED");
    // Money that is sent to it comes back.
    billing.accounts(&[("c", "3.00")]);
    billing.transfer("tx-1", "c", "b", "2.00");
    let transfer = billing.transaction("tx-1");
    assert_eq!(
        (&transfer["status"], &transfer["failure"]["reasonCode"]),
        (&json!("FAILED"), &json!("TOMBSTONED"))
    );
    assert_eq!(billing.balance("c"), "3.00");
    // A record of another system that goes on is a dead letter.
    billing.event(&foreign("b", 6, "0.00", "1.00", "1.00"));
    let letters = billing.take(DEAD_LETTERS);
    let why = letters[0].headers.last("__streams.errors.exception");
    assert_eq!((letters.len(), why), (1, Some(&b"TOMBSTONED"[..])));
}
