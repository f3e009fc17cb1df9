//! The packaged topology on the embedded log, with what its tests ask of it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test uses its part of it"
)]

use millstream::event_sourcing::{Outcome, Reply};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use millstream_account::{
    AccountParameters, AccountTopology, BALANCES, Balance, COMMANDS, EVENTS, REPLIES,
    TRANSACTION_COMMANDS, TRANSACTION_REPLIES,
};
use serde_json::{Value, json};

pub struct Billing {
    pub driver: TopologyTestDriver,
    pub commands: u32,
}

impl Billing {
    pub fn new() -> Self {
        Self::with(AccountParameters::default())
    }

    pub fn with(parameters: AccountParameters) -> Self {
        let packaged = AccountTopology::draw(parameters).unwrap();
        let driver = TopologyTestDriver::builder()
            .partitions(3)
            .build(packaged.topology)
            .unwrap();
        Self {
            driver,
            commands: 0,
        }
    }

    pub fn pipe(&mut self, topic: &str, key: Option<&str>, value: Option<&str>) {
        let now = self.driver.now_ms();
        let headers = Headers::new().with("original", "header");
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        self.driver
            .pipe_bytes(topic, key, value, now, &headers)
            .unwrap();
    }

    pub fn take(&mut self, topic: &str) -> Vec<Record<Option<String>, Vec<u8>>> {
        let key = serdes::optional(serdes::string());
        let output = self.driver.output_topic(topic, key, serdes::bytes());
        output.read_records(&mut self.driver).unwrap()
    }

    pub fn take_json(&mut self, topic: &str) -> Vec<Value> {
        let records = self.take(topic);
        records
            .iter()
            .map(|record| serde_json::from_slice(&record.value).unwrap())
            .collect()
    }

    /// Sends a command as it is and returns its reply.
    pub fn send(&mut self, command: &Value) -> Reply {
        let account = command["aggregateId"].as_str().unwrap().to_owned();
        self.pipe(COMMANDS, Some(&account), Some(&command.to_string()));
        self.reply(REPLIES)
    }

    /// Takes the one reply that is not of a step of a process.
    fn reply(&mut self, topic: &str) -> Reply {
        let replies = self.take(topic);
        let mut own = replies
            .iter()
            .filter(|reply| reply.headers.last("process").is_none());
        let (Some(reply), None) = (own.next(), own.next()) else {
            panic!("one reply is expected: {replies:?}")
        };
        serde_json::from_slice(&reply.value).unwrap()
    }

    /// Sends a new command.
    pub fn command(&mut self, account: &str, command_type: &str, data: Value) -> Reply {
        self.commands += 1;
        let command = json!({
            "commandId": format!("cmd-{}", self.commands), "commandType": command_type,
            "aggregateId": account, "timestamp": "2024-01-01T00:00:00.000Z", "data": data,
        });
        self.send(&command)
    }

    pub fn open(&mut self, account: &str, currency: &str) {
        let reply = self.command(
            account,
            "OpenAccount",
            json!({"owner": "ann", "currency": currency}),
        );
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    }

    /// Sends an event of another system.
    pub fn event(&mut self, event: &Value) {
        let account = event["aggregateId"].as_str().unwrap().to_owned();
        self.pipe(EVENTS, Some(&account), Some(&event.to_string()));
    }

    pub fn balances(&mut self) -> Vec<Balance> {
        let records = self.take_json(BALANCES);
        records
            .into_iter()
            .map(|value| serde_json::from_value(value).unwrap())
            .collect()
    }

    /// Returns the committed state of an account, as `/aggregates/Account/{id}` shows it.
    pub fn state(&self, account: &str) -> Value {
        self.driver
            .store_value("account-state", account)
            .unwrap()
            .unwrap()
    }

    /// Returns the sum of a metric of accounts.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.driver.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let lines = lines.filter(|line| line.contains("aggregate_type=\"Account\""));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

pub fn code(reply: &Reply) -> &str {
    reply.reason.as_ref().map_or("", |reason| &reason.code)
}

pub fn movement(amount: &str) -> Value {
    json!({"amount": amount, "reason": "test"})
}

/// A `BalanceChanged` v1 of another system.
pub fn foreign(account: &str, version: u64, previous: &str, signed: &str, new: &str) -> Value {
    let debit = signed.starts_with('-');
    json!({
        "eventId": format!("f-{account}-{version}"), "eventType": "BalanceChanged",
        "aggregateId": account, "aggregateType": "Account", "aggregateVersion": version,
        "timestamp": "2024-01-01T00:00:00.000Z", "correlationId": "ledger",
        "data": {
            "previousBalance": previous, "newBalance": new,
            "changeAmount": signed.trim_start_matches('-'),
            "changeType": if debit { "DEBIT" } else { "CREDIT" },
            "signedAmount": signed, "reason": "ledger",
        },
    })
}

impl Billing {
    /// Sends a command to a transaction and returns the reply to it.
    pub fn order(&mut self, transaction: &str, command_type: &str, data: Value) -> Reply {
        self.commands += 1;
        let id = format!("cmd-{}", self.commands);
        let command = json!({
            "commandId": id, "commandType": command_type, "aggregateId": transaction,
            "timestamp": "2024-01-01T00:00:00.000Z", "correlationId": format!("corr-{transaction}"),
            "metadata": {"actorId": "ann"}, "data": data,
        });
        let text = command.to_string();
        self.pipe(TRANSACTION_COMMANDS, Some(transaction), Some(&text));
        self.reply(TRANSACTION_REPLIES)
    }

    /// Orders a transfer, which runs to its end.
    pub fn transfer(&mut self, transaction: &str, from: &str, to: &str, amount: &str) -> Reply {
        let data = json!({
            "fromAccount": from, "toAccount": to, "amount": amount, "reason": "Rent",
        });
        self.order(transaction, "Transfer", data)
    }

    /// Returns the committed state of a transaction.
    pub fn transaction(&self, id: &str) -> Value {
        let record = self.driver.store_value("transaction-state", id).unwrap();
        record.unwrap()["state"].clone()
    }

    /// Returns an account's balance.
    pub fn balance(&self, account: &str) -> String {
        let state = self.state(account);
        state["state"]["balance"].as_str().unwrap().to_owned()
    }

    /// Opens accounts of these balances, in euros.
    pub fn accounts(&mut self, balances: &[(&str, &str)]) {
        for (account, balance) in balances {
            self.open(account, "EUR");
            if *balance != "0.00" {
                self.command(account, "TopUp", movement(balance));
            }
        }
    }

    /// Sets an account's status.
    pub fn status(&mut self, account: &str, status: &str) {
        let data = json!({"newStatus": status, "reason": "test"});
        let reply = self.command(account, "ChangeStatus", data);
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    }
}

impl Billing {
    /// Sends an account the debit of a transfer before the process asks for it: when it does, the step has
    /// been made, and is answered. Not before, to a process that does not wait for it yet: what carries
    /// this step in its headers is not answered.
    pub fn debit_beforehand(&mut self, transaction: &str, account: &str, amount: &str) {
        let headers = Headers::new()
            .with("process", "Transaction")
            .with("processId", transaction)
            .with("processStep", "trigger");
        let step = json!({
            "commandId": format!("{transaction}-debit"), "commandType": "DebitTransfer",
            "aggregateId": account, "timestamp": "2024-01-01T00:00:00.000Z",
            "correlationId": format!("corr-{transaction}"), "metadata": {"actorId": "ann"},
            "data": {"amount": amount, "reason": "Rent", "transactionId": transaction},
        });
        let (now, value) = (self.driver.now_ms(), step.to_string().into_bytes());
        let key = Some(account.as_bytes());
        self.driver
            .pipe_bytes(COMMANDS, key, Some(&value), now, &headers)
            .unwrap();
    }

    /// Leaves a transfer suspended: its source was debited, and removed before the money that `to`
    /// refuses came back.
    pub fn suspend(&mut self, transaction: &str, from: &str, to: &str, amount: &str) {
        self.debit_beforehand(transaction, from, amount);
        let rest = self.balance(from);
        if rest != "0.00" {
            let reply = self.command(from, "Withdraw", movement(&rest));
            assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
        }
        self.status(from, "CLOSED");
        let reply = self.command(from, "RemoveAccount", json!({"reason": "test"}));
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
        self.transfer(transaction, from, to, amount);
        assert_eq!(self.transaction(transaction)["status"], "SUSPENDED");
    }
}
