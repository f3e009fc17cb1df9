//! The rules of a transaction, as scenarios: what happened, what is asked or answered, what happens.

use millstream::event_sourcing::{Given, Managed, Process, ProcessCommand, StepAnswer, given};
use serde_json::json;

use super::*;
use crate::events::{AccountEvent, BalanceChanged};
use crate::rejection::codes;

type Managing = Managed<Transaction>;

fn order(from: &str, to: &str, amount: &str, currency: Option<&str>) -> TransferOrder {
    let order = json!({
        "fromAccount": from, "toAccount": to, "amount": amount, "currency": currency,
        "reason": "Rent",
    });
    serde_json::from_value(order).unwrap()
}

fn transfer(amount: &str, currency: Option<&str>) -> ProcessCommand<TransactionCommand> {
    own(Transfer(order("a", "b", amount, currency)))
}

fn own(command: impl Into<TransactionCommand>) -> ProcessCommand<TransactionCommand> {
    ProcessCommand::Own(command.into())
}

fn terms(currency: Option<&str>) -> TransferTerms {
    TransferTerms {
        from_account: "a".into(),
        to_account: "b".into(),
        amount: "10.00".parse().unwrap(),
        currency: currency.map(|code| code.parse().unwrap()),
        reason: "Rent".into(),
    }
}

fn requested(currency: Option<&str>) -> TransactionEvent {
    TransferRequested(terms(currency)).into()
}

fn debited() -> TransactionEvent {
    TransferDebited {
        account_id: "a".into(),
        amount: "10.00".parse().unwrap(),
        currency: Some("EUR".parse().unwrap()),
    }
    .into()
}

fn credit_refused() -> TransactionEvent {
    TransferCreditRefused(CreditRefused {
        account_id: "b".into(),
        failure: failure("ACCOUNT_FROZEN"),
    })
    .into()
}

fn failure(code: &str) -> Failure {
    Failure {
        reason_code: code.into(),
        message: code.into(),
    }
}

fn failed(code: &str, compensated: bool, currency: Option<&str>) -> TransactionEvent {
    TransferFailed {
        from_account: "a".into(),
        to_account: "b".into(),
        amount: "10.00".parse().unwrap(),
        currency: currency.map(|code| code.parse().unwrap()),
        compensated,
        failure: failure(code),
    }
    .into()
}

/// The answer of the source, whose balance changed in euros.
fn paid() -> StepAnswer {
    let changed: BalanceChanged = serde_json::from_value(json!({
        "previousBalance": "50.00", "newBalance": "40.00", "changeAmount": "10.00",
        "changeType": "DEBIT", "signedAmount": "-10.00", "currency": "EUR",
    }))
    .unwrap();
    StepAnswer::accepted("debit")
        .with_event(&AccountEvent::from(changed))
        .unwrap()
}

fn pending(given: &Given<Managing>) -> Option<TransferStep> {
    Transaction::pending(given.state())
}

#[test]
fn a_transfer_debits_credits_and_completes_in_the_currency_of_the_source() {
    let started = given::<Managing>([])
        .when(transfer("10.00", None))
        .then([requested(None)]);
    assert_eq!(pending(&started), Some(TransferStep::Debit));
    let crediting = started.when(paid()).then([debited()]);
    assert_eq!(pending(&crediting), Some(TransferStep::Credit));
    let command = Transaction::command("tx-1", crediting.state(), TransferStep::Credit).unwrap();
    assert_eq!(
        (command.aggregate_id.as_str(), command.command_type),
        ("b", "CreditTransfer")
    );
    let data: serde_json::Value = serde_json::from_str(command.data.get()).unwrap();
    let expected = json!({
        "amount": "10.00", "currency": "EUR", "reason": "Rent", "transactionId": "tx-1",
    });
    assert_eq!(data, expected);
    let done = crediting
        .when(StepAnswer::accepted("credit"))
        .then([TransferCompleted {
            from_account: "a".into(),
            to_account: "b".into(),
            amount: "10.00".parse().unwrap(),
            currency: Some("EUR".parse().unwrap()),
        }
        .into()]);
    assert_eq!(pending(&done), None);
}

#[test]
fn a_refused_debit_ends_the_transfer_and_nothing_is_compensated() {
    let ended = given::<Managing>([requested(Some("EUR"))])
        .when(StepAnswer::rejected("debit", codes::INSUFFICIENT_FUNDS))
        .then([failed("INSUFFICIENT_FUNDS", false, Some("EUR"))]);
    assert_eq!(pending(&ended), None);
}

#[test]
fn a_refused_credit_gives_the_source_its_money_back() {
    let compensating = given::<Managing>([requested(Some("EUR")), debited()])
        .when(StepAnswer::rejected("credit", codes::ACCOUNT_FROZEN))
        .then([credit_refused()]);
    assert_eq!(pending(&compensating), Some(TransferStep::Compensate));
    let state = compensating.state();
    let command = Transaction::command("tx-1", state, TransferStep::Compensate).unwrap();
    assert_eq!(
        (command.aggregate_id.as_str(), command.command_type),
        ("a", "RefundTransfer")
    );
    let ended = compensating
        .when(StepAnswer::accepted("compensate"))
        .then([failed("ACCOUNT_FROZEN", true, Some("EUR"))]);
    assert_eq!(pending(&ended), None);
}

#[test]
fn a_refused_compensation_suspends_the_transfer() {
    let refused = CreditRefused {
        account_id: "a".into(),
        failure: failure("AMOUNT_OVERFLOW"),
    };
    let suspended = given::<Managing>([requested(Some("EUR")), debited(), credit_refused()])
        .when(StepAnswer::rejected("compensate", codes::AMOUNT_OVERFLOW))
        .then([TransferCompensationRefused(refused).into()]);
    assert!(Transaction::is_stuck(suspended.state()));
    assert_eq!(pending(&suspended), None);
}

#[test]
fn a_debit_whose_currency_nobody_knows_is_given_back() {
    let none = TransferDebited {
        account_id: "a".into(),
        amount: "10.00".parse().unwrap(),
        currency: None,
    };
    let refused = CreditRefused {
        account_id: "b".into(),
        failure: Failure {
            reason_code: "CURRENCY_MISMATCH".into(),
            message: "the currency of the debit is not known".into(),
        },
    };
    let compensating = given::<Managing>([requested(None)])
        .when(StepAnswer::accepted("debit"))
        .then([none.into(), TransferCreditRefused(refused).into()]);
    assert_eq!(pending(&compensating), Some(TransferStep::Compensate));
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    use millstream::event_sourcing::reasons::STEP_NOT_PENDING;
    given::<Managing>([])
        .when(paid())
        .then_rejected(STEP_NOT_PENDING);
    given::<Managing>([requested(None), debited()])
        .when(paid())
        .then_rejected(STEP_NOT_PENDING)
        .when(StepAnswer::rejected("debit", codes::ACCOUNT_FROZEN))
        .then_rejected(STEP_NOT_PENDING);
}

#[test]
fn orders_that_cannot_be_carried_out_are_refused_at_once() {
    for (from, to, amount, currency, code) in [
        ("a", "a", "1.00", None, codes::SAME_ACCOUNT),
        ("a", "b", "0.00", None, codes::INVALID_AMOUNT),
        ("a", "b", "-1", None, codes::INVALID_AMOUNT),
        ("a", "b", "1e3", None, codes::INVALID_AMOUNT),
        ("a", "b", "1.5", Some("JPY"), codes::INVALID_AMOUNT),
        ("a", "b", "1", Some("EURO"), codes::INVALID_CURRENCY),
        (
            "",
            "b",
            "1",
            None,
            millstream::event_sourcing::reasons::INVALID_COMMAND,
        ),
    ] {
        given::<Managing>([])
            .when(own(Transfer(order(from, to, amount, currency))))
            .then_rejected(code)
            .when(own(RequestPayment(order(from, to, amount, currency))))
            .then_rejected(code);
    }
    given::<Managing>([requested(None)])
        .when(transfer("10.00", None))
        .then_rejected(codes::TRANSACTION_EXISTS);
}

#[test]
fn a_payment_waits_and_is_carried_out_once_it_is_accepted() {
    let accept = || own(AcceptPayment { reason: None });
    let reject = || {
        own(RejectPayment {
            reason: "Unknown".into(),
        })
    };
    let waiting = || {
        given::<Managing>([])
            .when(own(RequestPayment(order("a", "b", "10.00", None))))
            .then([PaymentRequested(terms(None)).into()])
    };
    assert_eq!(pending(&waiting()), None);
    let accepted = waiting()
        .when(accept())
        .then([PaymentAccepted { reason: None }.into()]);
    assert_eq!(pending(&accepted), Some(TransferStep::Debit));
    accepted
        .when(reject())
        .then_rejected(codes::TRANSACTION_STATUS);
    let rejected = waiting().when(reject()).then([PaymentRejected {
        reason: "Unknown".into(),
    }
    .into()]);
    assert_eq!(pending(&rejected), None);
    rejected
        .when(accept())
        .then_rejected(codes::TRANSACTION_STATUS);
    given::<Managing>([])
        .when(accept())
        .then_rejected(codes::TRANSACTION_NOT_FOUND);
}

fn made(change_type: ChangeType) -> MovementMade {
    MovementMade {
        account_id: "a".into(),
        change_type,
        amount: "10.00".parse().unwrap(),
        currency: "EUR".parse().unwrap(),
        reason: None,
    }
}

#[test]
fn a_failed_top_up_may_be_made_later_and_a_made_one_is_final() {
    let movement = || Movement {
        account_id: "a".into(),
        amount: "10.00".parse().unwrap(),
        currency: "EUR".parse().unwrap(),
        reason: None,
    };
    let refused = MovementRefused {
        account_id: "a".into(),
        change_type: ChangeType::Credit,
        amount: None,
        currency: None,
        reason: None,
        failure: failure("ACCOUNT_FROZEN"),
    };
    let failed = TopupFailed(RefusedMovement {
        account_id: "a".into(),
        amount: None,
        currency: None,
        reason: None,
        failure: failure("ACCOUNT_FROZEN"),
    });
    given::<Managing>([])
        .when(own(refused.clone()))
        .then([failed.into()])
        .when(own(made(ChangeType::Debit)))
        .then_rejected(codes::TRANSACTION_EXISTS)
        .when(own(made(ChangeType::Credit)))
        .then([TopupCompleted(movement()).into()])
        .when(own(refused))
        .then_rejected(codes::TRANSACTION_EXISTS);
    given::<Managing>([])
        .when(own(made(ChangeType::Debit)))
        .then([WithdrawalCompleted(movement()).into()]);
    given::<Managing>([requested(None)])
        .when(own(made(ChangeType::Credit)))
        .then_rejected(codes::TRANSACTION_EXISTS);
}
