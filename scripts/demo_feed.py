#!/usr/bin/env python3
"""The demo's feed: opens accounts over HTTP, then moves money to, from and between them at a steady rate.

Prints what came of it once a second. A rejected command (an overdraft) is part of the show. When the
daemon cannot be reached or is not ready, the feed waits for it and sends the same command again under
the same id: a command is never carried out twice.
"""

import argparse
import http.client
import json
import random
import signal
import sys
import time
import urllib.parse
import uuid
from datetime import datetime, timezone

RETRY_PAUSE_S = 0.5
TIMEOUT_S = 10
REASONS = {"TopUp": ["Salary", "Refund", "Gift"], "Withdraw": ["Groceries", "Rent", "Coffee"],
           "Transfer": ["Lunch", "Tickets", "Thanks"]}


class Stopped(Exception):
    """SIGTERM or Ctrl-C."""


class Daemon:
    """One kept-alive connection, opened again when it breaks."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.connection = None

    def request(self, method, path, body=None, headers=None):
        """Returns (status, parsed body); raises OSError or HTTPException when there is no answer."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        try:
            self.connection.request(method, path, body, headers or {})
            response = self.connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection = None
            raise
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, raw.decode("utf-8", "replace")

    def is_ready(self):
        try:
            return self.request("GET", "/health/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def command(kind, data):
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "commandType": kind,
        "timestamp": now,
        "metadata": {"actorId": "demo", "actorType": "script"},
        "data": data,
    }


def send(daemon, account, body, aggregate="Account"):
    """Sends a command until it is answered; returns (status, answer)."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"demo-{uuid.uuid4()}"}
    path = f"/commands/{aggregate}/{urllib.parse.quote(account, safe='')}"
    while True:
        try:
            status, answer = daemon.request("POST", path, json.dumps(body), headers)
            if status != 503:
                return status, answer
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(RETRY_PAUSE_S)


class Tally:
    """What happened in the current second."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.since = time.monotonic()
        self.statuses, self.waited = {}, []

    def add(self, status, seconds):
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.waited.append(seconds)

    def print(self):
        names = {200: "accepted", 202: "under way", 409: "conflicts", 422: "rejected"}
        parts = [f"{count} {names.get(status, f'HTTP {status}')}" for status, count in sorted(self.statuses.items())]
        middle = sorted(self.waited)[len(self.waited) // 2] * 1000
        clock = datetime.now().strftime("%H:%M:%S")
        print(f"{clock}  {', '.join(parts)}; half were answered within {middle:.1f} ms", flush=True)


def open_accounts(daemon, accounts, tally):
    for account in accounts:
        began = time.monotonic()
        body = command("OpenAccount", {"owner": f"Owner of {account}", "currency": "EUR"})
        status, answer = send(daemon, account, body)
        # 422 ACCOUNT_EXISTS: a run with --dir goes on with the accounts of the last one.
        if status not in (200, 202, 409, 422):
            raise SystemExit(f"feed: opening {account} was answered {status}: {answer}")
        tally.add(status, time.monotonic() - began)


def move_money(daemon, accounts, rate, rng, tally):
    due = time.monotonic()
    while True:
        between = 20 if len(accounts) > 1 else 0
        kind = rng.choices(["TopUp", "Withdraw", "Transfer"], weights=[45, 35, between])[0]
        cents = rng.randrange(100, 20_000)
        amount = f"{cents // 100}.{cents % 100:02d}"
        began = time.monotonic()
        data = {"amount": amount, "reason": rng.choice(REASONS[kind])}
        if kind == "Transfer":
            data["fromAccount"], data["toAccount"] = rng.sample(accounts, 2)
            status, answer = send(daemon, f"demo-{uuid.uuid4()}", command(kind, data), "Transaction")
        else:
            status, answer = send(daemon, rng.choice(accounts), command(kind, data))
        if status not in (200, 202, 409, 422):
            raise SystemExit(f"feed: {kind} was answered {status}: {answer}")
        tally.add(status, time.monotonic() - began)
        if time.monotonic() - tally.since >= 1:
            tally.print()
            tally.reset()
        due = max(due + 1 / rate, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=int, default=20, help="commands per second")
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--check-ready", action="store_true", help="only tell whether the daemon is ready")
    options = parser.parse_args()
    daemon = Daemon(options.url)
    if options.check_ready:
        return 0 if daemon.is_ready() else 1

    def stop(_signal, _frame):
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    accounts = [f"demo-{number}" for number in range(1, options.accounts + 1)]
    tally = Tally()
    try:
        open_accounts(daemon, accounts, tally)
        move_money(daemon, accounts, options.rate, random.Random(options.seed), tally)
    except Stopped:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
