use millstream::event_sourcing::{
    Command, CommandEnvelope, Event, Given, RawValue, ReasonCode, Rejection, given, reasons,
};
use proptest::prelude::*;

use super::*;
use crate::commands::{Misdirected, MisdirectedPayment, TransferLeg};
use crate::money::AmountInput;
use crate::rejection::codes;

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn movement(text: &str) -> Movement {
    Movement {
        amount: AmountInput(text.parse()),
        reason: "test".into(),
        currency: None,
        transaction_id: Some("tx-1".into()),
    }
}

fn top_up(text: &str) -> TopUp {
    TopUp(movement(text))
}

fn withdraw(text: &str) -> Withdraw {
    Withdraw(movement(text))
}

fn created(currency: &str) -> AccountEvent {
    let currency = currency.parse().unwrap();
    AccountCreated {
        owner: "ann".into(),
        currency,
        status: Status::Active,
    }
    .into()
}

fn changed(previous: &str, signed: &str, new: &str, currency: &str) -> BalanceChanged {
    let signed_amount = amount(signed);
    BalanceChanged {
        previous_balance: amount(previous),
        new_balance: amount(new),
        change_amount: signed_amount.abs(),
        change_type: if signed_amount.is_negative() {
            ChangeType::Debit
        } else {
            ChangeType::Credit
        },
        signed_amount,
        reason: Some("test".into()),
        transaction_id: Some("tx-1".into()),
        currency: currency.parse().unwrap(),
    }
}

fn status_changed(previous_status: Status, new_status: Status) -> AccountEvent {
    AccountStatusChanged {
        previous_status,
        new_status,
        reason: Some("test".into()),
    }
    .into()
}

fn change_status(new_status: Status) -> ChangeStatus {
    ChangeStatus {
        new_status,
        reason: "test".into(),
    }
}

/// An account in US dollars with 100.00 in it.
fn hundred() -> Given<Account> {
    given::<Account>([
        created("USD"),
        changed("0", "100.00", "100.00", "USD").into(),
    ])
}

fn foreign_code(events: &[AccountEvent], event: impl Into<AccountEvent>) -> ReasonCode {
    let state = given::<Account>(events.iter().cloned());
    Account::follows(state.state(), &event.into())
        .unwrap_err()
        .code()
}

#[test]
fn an_account_is_opened_once_and_starts_empty_and_active() {
    let open = OpenAccount {
        owner: "ann".into(),
        currency: "USD".into(),
    };
    let account = given::<Account>([])
        .when(open.clone())
        .then([created("USD")])
        .when(open)
        .then_rejected(codes::ACCOUNT_EXISTS);
    assert_eq!(account.state().balance.to_string(), "0.00");
    assert_eq!(account.state().status, Status::Active);
}

#[test]
fn an_account_needs_an_owner_and_a_known_currency() {
    let open = |owner: &str, currency: &str| OpenAccount {
        owner: owner.into(),
        currency: currency.into(),
    };
    given::<Account>([])
        .when(open("", "USD"))
        .then_rejected(reasons::INVALID_COMMAND);
    given::<Account>([])
        .when(open("ann", "usd"))
        .then_rejected(codes::INVALID_CURRENCY);
    given::<Account>([])
        .when(open("ann", "ABC"))
        .then_rejected(codes::INVALID_CURRENCY);
}

#[test]
fn money_comes_and_goes() {
    let account = hundred()
        .when(top_up("50.00"))
        .then([changed("100.00", "50.00", "150.00", "USD").into()])
        .when(withdraw("149.99"))
        .then([changed("150.00", "-149.99", "0.01", "USD").into()]);
    assert_eq!(account.state().balance.to_string(), "0.01");
}

#[test]
fn the_whole_balance_can_be_withdrawn_but_no_cent_more() {
    hundred()
        .when(withdraw("100.01"))
        .then_rejected(codes::INSUFFICIENT_FUNDS);
    hundred()
        .when(withdraw("100"))
        .then([changed("100", "-100", "0", "USD").into()])
        .when(withdraw("0.01"))
        .then_rejected(codes::INSUFFICIENT_FUNDS);
}

#[test]
fn overdraft_is_rejected_and_balance_is_unchanged() {
    let account = hundred()
        .when(withdraw("200.00"))
        .then_rejected(codes::INSUFFICIENT_FUNDS);
    assert_eq!(account.state(), hundred().state());
}

#[test]
fn amounts_are_positive_decimal_strings() {
    for text in ["0", "0.00", "-0", "-1.00", "", "abc", "1e3", "1,00"] {
        hundred()
            .when(top_up(text))
            .then_rejected(codes::INVALID_AMOUNT);
        hundred()
            .when(withdraw(text))
            .then_rejected(codes::INVALID_AMOUNT);
    }
}

#[test]
fn amounts_are_no_finer_than_the_currency() {
    for (currency, fits, too_fine) in [
        ("USD", "1.25", "1.255"),
        ("JPY", "1", "1.5"),
        ("KWD", "1.255", "1.2555"),
        ("CLF", "1.2555", "1.25555"),
    ] {
        given::<Account>([created(currency)])
            .when(top_up(too_fine))
            .then_rejected(codes::INVALID_AMOUNT);
        given::<Account>([created(currency)])
            .when(top_up(fits))
            .then([changed("0", fits, fits, currency).into()]);
    }
    // Zeros beyond the scale make nothing finer.
    given::<Account>([created("USD")])
        .when(top_up("1.50000"))
        .then([changed("0", "1.5", "1.5", "USD").into()]);
}

#[test]
fn a_movement_is_in_the_accounts_currency() {
    let in_currency = |currency: &str| {
        let mut command = top_up("1.00");
        command.0.currency = Some(currency.into());
        command
    };
    for other in ["EUR", "usd", ""] {
        hundred()
            .when(in_currency(other))
            .then_rejected(codes::CURRENCY_MISMATCH);
    }
    hundred()
        .when(in_currency("USD"))
        .then([changed("100", "1", "101", "USD").into()]);
}

#[test]
fn nothing_moves_on_an_account_that_was_never_opened() {
    given::<Account>([])
        .when(top_up("1.00"))
        .then_rejected(codes::ACCOUNT_NOT_FOUND);
    given::<Account>([])
        .when(withdraw("1.00"))
        .then_rejected(codes::ACCOUNT_NOT_FOUND);
    given::<Account>([])
        .when(change_status(Status::Frozen))
        .then_rejected(codes::ACCOUNT_NOT_FOUND);
}

#[test]
fn nothing_moves_on_a_frozen_account_until_it_is_active_again() {
    hundred()
        .when(change_status(Status::Frozen))
        .then([status_changed(Status::Active, Status::Frozen)])
        .when(top_up("1.00"))
        .then_rejected(codes::ACCOUNT_FROZEN)
        .when(withdraw("1.00"))
        .then_rejected(codes::ACCOUNT_FROZEN)
        .when(change_status(Status::Active))
        .then([status_changed(Status::Frozen, Status::Active)])
        .when(withdraw("1.00"))
        .then([changed("100", "-1", "99", "USD").into()]);
}

#[test]
fn a_closed_account_stays_closed() {
    hundred()
        .when(change_status(Status::Closed))
        .then([status_changed(Status::Active, Status::Closed)])
        .when(top_up("1.00"))
        .then_rejected(codes::ACCOUNT_CLOSED)
        .when(withdraw("1.00"))
        .then_rejected(codes::ACCOUNT_CLOSED)
        .when(change_status(Status::Active))
        .then_rejected(codes::ACCOUNT_CLOSED)
        .when(change_status(Status::Closed))
        .then_rejected(codes::STATUS_UNCHANGED);
}

#[test]
fn no_change_of_status_is_no_event() {
    hundred()
        .when(change_status(Status::Active))
        .then_rejected(codes::STATUS_UNCHANGED);
}

#[test]
fn a_balance_that_cannot_be_kept_exactly_is_an_error() {
    let largest = "792281625142643375935439503.35";
    given::<Account>([created("USD")])
        .when(top_up(largest))
        .then([changed("0", largest, largest, "USD").into()])
        .when(top_up("0.01"))
        .then_rejected(codes::AMOUNT_OVERFLOW);
}

#[test]
fn transfers_and_payment_requests_are_told_where_they_belong() {
    hundred()
        .when(Misdirected {})
        .then_rejected(reasons::WRONG_AGGREGATE);
    hundred()
        .when(MisdirectedPayment {})
        .then_rejected(reasons::WRONG_AGGREGATE);
}

fn leg(text: &str, currency: Option<&str>) -> TransferLeg {
    TransferLeg {
        amount: amount(text),
        currency: currency.map(|code| code.parse().unwrap()),
        reason: "test".into(),
        transaction_id: "tx-1".into(),
    }
}

#[test]
fn the_steps_of_a_transfer_obey_the_rules_of_movements() {
    hundred()
        .when(DebitTransfer(leg("100.01", None)))
        .then_rejected(codes::INSUFFICIENT_FUNDS)
        .when(DebitTransfer(leg("1.00", Some("EUR"))))
        .then_rejected(codes::CURRENCY_MISMATCH)
        .when(CreditTransfer(leg("0.001", None)))
        .then_rejected(codes::INVALID_AMOUNT)
        .when(DebitTransfer(leg("100.00", Some("USD"))))
        .then([changed("100.00", "-100.00", "0.00", "USD").into()])
        .when(CreditTransfer(leg("1.00", Some("USD"))))
        .then([changed("0.00", "1.00", "1.00", "USD").into()]);
    given::<Account>([])
        .when(DebitTransfer(leg("1.00", None)))
        .then_rejected(codes::ACCOUNT_NOT_FOUND)
        .when(RefundTransfer(leg("1.00", None)))
        .then_rejected(codes::ACCOUNT_NOT_FOUND);
}

#[test]
fn money_of_a_refused_transfer_comes_back_whatever_the_status() {
    for status in [Status::Active, Status::Frozen, Status::Closed] {
        let mut events = vec![created("EUR"), changed("0", "1.00", "1.00", "EUR").into()];
        if status != Status::Active {
            events.push(status_changed(Status::Active, status));
        }
        let account = given::<Account>(events);
        let account = match status {
            Status::Active => account,
            Status::Frozen => account
                .when(CreditTransfer(leg("1.00", Some("EUR"))))
                .then_rejected(codes::ACCOUNT_FROZEN),
            Status::Closed => account
                .when(CreditTransfer(leg("1.00", Some("EUR"))))
                .then_rejected(codes::ACCOUNT_CLOSED),
        };
        account
            .when(RefundTransfer(leg("2.00", Some("EUR"))))
            .then([changed("1.00", "2.00", "3.00", "EUR").into()]);
    }
}

#[test]
fn a_transaction_id_that_cannot_be_one_is_refused() {
    for id in ["", "a\0b"] {
        let mut movement = movement("1.00");
        movement.transaction_id = Some(id.into());
        hundred()
            .when(TopUp(movement))
            .then_rejected(reasons::INVALID_COMMAND);
    }
}

#[test]
fn only_a_process_gives_the_steps_of_a_transfer() {
    let data = r#"{"amount":"1.00","reason":"x","transactionId":"tx-1"}"#;
    for step in ["DebitTransfer", "CreditTransfer", "RefundTransfer"] {
        let refused = read(step, data).unwrap_err();
        assert!(refused.contains("only a process"), "{refused}");
    }
}

fn read(command_type: &str, data: &str) -> Result<AccountCommand, String> {
    let text = format!(
        r#"{{"commandId":"cmd-7","commandType":"{command_type}","aggregateId":"a","timestamp":"2025-12-09T12:00:00Z","data":{data}}}"#
    );
    let envelope = CommandEnvelope::parse(text.as_bytes()).unwrap();
    AccountCommand::read(&envelope).map_err(|error| error.to_string())
}

#[test]
fn an_absent_transaction_id_is_made_from_the_commands() {
    let command = read("TopUp", r#"{"amount":"1.00","reason":"x"}"#).unwrap();
    let AccountCommand::TopUp(TopUp(movement)) = command else {
        panic!("{command:?}")
    };
    assert_eq!(movement.transaction_id.as_deref(), Some("tx-cmd-7"));
    let data = r#"{"amount":"1.00","reason":"x","transactionId":"mine"}"#;
    let command = read("Withdraw", data).unwrap();
    let AccountCommand::Withdraw(Withdraw(movement)) = command else {
        panic!("{command:?}")
    };
    assert_eq!(movement.transaction_id.as_deref(), Some("mine"));
}

#[test]
fn misspelled_and_missing_fields_are_refused_by_name() {
    for (command_type, data, named) in [
        (
            "TopUp",
            r#"{"amount":"1.00","reason":"x","curency":"EUR"}"#,
            "curency",
        ),
        ("TopUp", r#"{"reason":"x"}"#, "amount"),
        ("Withdraw", r#"{"amount":"1.00"}"#, "reason"),
        ("OpenAccount", r#"{"owner":"ann"}"#, "currency"),
        ("OpenAccount", r#"{"owner":7,"currency":"USD"}"#, "owner"),
        (
            "ChangeStatus",
            r#"{"newStatus":"OPEN","reason":"x"}"#,
            "OPEN",
        ),
        ("Deposit", "{}", "Deposit"),
    ] {
        let error = read(command_type, data).unwrap_err();
        assert!(error.contains(named), "{command_type}: {error}");
    }
}

#[test]
fn a_json_number_is_answered_with_invalid_amount() {
    let AccountCommand::TopUp(command) = read("TopUp", r#"{"amount":1.5,"reason":"x"}"#).unwrap()
    else {
        panic!("not a top-up")
    };
    hundred().when(command).then_rejected(codes::INVALID_AMOUNT);
}

#[test]
fn balance_changed_version_1_reads_as_us_dollars() {
    let data = r#"{"previousBalance":"100.00","newBalance":"150.00","changeAmount":"50.00","changeType":"CREDIT","signedAmount":"50.00","reason":"Topup","transactionId":"tx-uuid"}"#;
    let raw = RawValue::from_string(data.into()).unwrap();
    let event = AccountEvent::read("BalanceChanged", 1, &raw).unwrap();
    let AccountEvent::BalanceChanged(v2) = &event else {
        panic!("{event:?}")
    };
    assert_eq!(v2.currency, Currency::USD);
    assert_eq!(event.schema_version(), 2);
    assert_eq!(
        event.data().unwrap().get(),
        data.replace(r#""tx-uuid"}"#, r#""tx-uuid","currency":"USD"}"#)
    );
    // Version 2 names its currency; without it, it is broken rather than in dollars.
    assert!(AccountEvent::read("BalanceChanged", 2, &raw).is_err());
}

#[test]
fn amounts_of_events_are_written_in_the_currencys_scale() {
    for (currency, written) in [
        ("JPY", "5"),
        ("USD", "5.00"),
        ("KWD", "5.000"),
        ("CLF", "5.0000"),
    ] {
        let event: AccountEvent = changed("0", "5", "5", currency).into();
        let text = event.data().unwrap().get().to_owned();
        assert!(
            text.contains(&format!(r#""newBalance":"{written}""#)),
            "{text}"
        );
    }
}

#[test]
fn foreign_movements_start_at_zero_without_an_account_created() {
    let account = given::<Account>([
        changed("0.00", "150.00", "150.00", "EUR").into(),
        changed("150", "-200", "-50", "EUR").into(),
    ]);
    assert_eq!(account.state().balance.to_string(), "-50.00");
    assert_eq!(
        account
            .state()
            .currency
            .map(|currency| currency.to_string()),
        Some("EUR".into())
    );
    assert_eq!(account.state().owner, None);
}

#[test]
fn a_foreign_event_with_contradicting_amounts_is_a_wrong_amount() {
    let right = changed("0", "5", "5", "USD");
    let edits: [fn(&mut BalanceChanged); 6] = [
        |event| event.new_balance = amount("6"),
        |event| event.signed_amount = amount("-5"),
        |event| event.signed_amount = amount("4"),
        |event| event.change_amount = amount("-5"),
        |event| event.change_amount = amount("0"),
        |event| event.change_type = ChangeType::Debit,
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut event = right.clone();
        edit(&mut event);
        assert_eq!(
            foreign_code(&[], event),
            codes::WRONG_AMOUNT,
            "edit {index}"
        );
    }
}

#[test]
fn a_foreign_event_must_follow_its_predecessor() {
    let before = [AccountEvent::from(changed("0", "5", "5", "USD"))];
    assert_eq!(
        foreign_code(&before, changed("4", "1", "5", "USD")),
        codes::PREVIOUS_BALANCE_MISMATCH
    );
    assert_eq!(
        foreign_code(&before, changed("5", "1", "6", "EUR")),
        codes::CURRENCY_MISMATCH
    );
    assert_eq!(
        foreign_code(&before, status_changed(Status::Frozen, Status::Active)),
        codes::PREVIOUS_STATUS_MISMATCH
    );
    assert_eq!(foreign_code(&before, created("USD")), codes::ACCOUNT_EXISTS);
    // Compared as decimals: another scale is the same balance.
    assert!(
        Account::follows(
            given::<Account>(before).state(),
            &changed("5.000", "1.0", "6", "USD").into()
        )
        .is_ok()
    );
}

#[test]
fn an_adopted_account_opens_with_what_its_first_event_says() {
    let adopt = |event: AccountEvent| {
        let mut account = Account::default();
        Account::adopt(&mut account, &event);
        assert_eq!(Account::follows(&account, &event), Ok(()));
        Account::apply(&mut account, &event);
        account
    };
    let account = adopt(changed("100.00", "50.00", "150.00", "USD").into());
    assert_eq!(account.balance.to_string(), "150.00");
    let account = adopt(status_changed(Status::Frozen, Status::Active));
    assert_eq!((account.status, account.currency), (Status::Active, None));
    let account = adopt(created("EUR"));
    assert_eq!(account.owner.as_deref(), Some("ann"));
}

#[derive(Debug, Clone)]
enum Step {
    TopUp(i64),
    Withdraw(i64),
    Status(Status),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (-5..100_000_i64).prop_map(Step::TopUp),
        8 => (-5..100_000_i64).prop_map(Step::Withdraw),
        2 => prop_oneof![Just(Status::Active), Just(Status::Frozen)].prop_map(Step::Status),
        1 => prop_oneof![Just(Status::Closed), Just(Status::Active)].prop_map(Step::Status),
    ]
}

proptest! {
    /// Whatever is asked of an account: its balance is the sum of the signed amounts of its events
    /// and what the accepted commands add up to, never negative; each event follows its
    /// predecessor, written and read again; and a rejected command changes nothing.
    #[test]
    fn the_balance_is_the_sum_of_the_signed_amounts(
        steps in prop::collection::vec(step(), 0..60), currency in 0..4_usize,
    ) {
        let currency: Currency = ["JPY", "USD", "KWD", "CLF"][currency].parse().unwrap();
        let scale = currency.scale();
        let text = |units: i64| rust_decimal::Decimal::new(units, scale).to_string();
        let mut account = given::<Account>([created(currency.code())]).state().clone();
        let mut sum = Amount::ZERO;
        let mut units = 0_i64;
        for step in steps {
            let (command, change): (AccountCommand, i64) = match step {
                Step::TopUp(by) => (top_up(&text(by)).into(), by),
                Step::Withdraw(by) => (withdraw(&text(by)).into(), -by),
                Step::Status(status) => (change_status(status).into(), 0),
            };
            let before = account.clone();
            match Account::decide(&account, command) {
                Ok(events) => {
                    for event in events {
                        let data = event.data().unwrap();
                        let version = event.schema_version();
                        let read = AccountEvent::read(event.event_type(), version, &data);
                        prop_assert_eq!(read.unwrap(), event.clone());
                        prop_assert_eq!(Account::follows(&account, &event), Ok(()));
                        if let AccountEvent::BalanceChanged(changed) = &event {
                            sum = sum.plus(changed.signed_amount).unwrap();
                        }
                        Account::apply(&mut account, &event);
                    }
                    units += change;
                }
                Err(_) => prop_assert_eq!(&account, &before),
            }
            prop_assert_eq!(account.balance, sum);
            prop_assert_eq!(account.balance, amount(&text(units)));
            prop_assert!(!account.balance.is_negative());
        }
    }
}
