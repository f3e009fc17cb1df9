#!/usr/bin/env python3
"""What an operator meets, on a real broker: bad input, a broker that goes away, offsets moved by
another tool, a reset, a full disk. Run by scripts/operations-test; each step says what it demands."""

import argparse
import http.client
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from random import Random

from kill_test import ROOT, Daemon, Failed, Kafka, say

TOOLS = "org.apache.kafka.tools"
APPLICATION = "operations-test"


def until(what, condition, deadline_s=60):
    """Waits for a condition; what it returned is the result."""
    deadline = time.monotonic() + deadline_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f"not within {deadline_s} s: {what}")
        time.sleep(0.1)


def demand(what, holds, context=""):
    if not holds:
        raise Failed(f"{what}\n{context}")
    say(f"ok: {what}")


class Cluster(Kafka):
    """The broker, with Kafka's own command-line tools."""

    def tool(self, name, *arguments, text=None):
        done = subprocess.run(
            [str(ROOT / "scripts" / "kafka"), "run", f"{TOOLS}.{name}", *map(str, arguments)],
            env=self.environment, input=text, text=True, capture_output=True, timeout=120, check=False,
        )
        if done.returncode != 0:
            raise Failed(f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def broker(self, command):
        subprocess.run([str(ROOT / "scripts" / "kafka"), command, "1"], env=self.environment, check=True, timeout=120)

    def produce(self, topic, lines, keyed=True):
        properties = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"] if keyed else []
        properties += ["--command-property", f"max.request.size={16 * 1024 * 1024}"]
        self.tool("ConsoleProducer", "--bootstrap-server", self.bootstrap, "--topic", topic, *properties,
                  text="".join(line + "\n" for line in lines))

    def read(self, topic, timeout_ms=6000):
        """All committed records of a topic: headers, key and value as the console consumer prints them."""
        printed = subprocess.run(
            [str(ROOT / "scripts" / "kafka"), "run", f"{TOOLS}.consumer.ConsoleConsumer",
             "--bootstrap-server", self.bootstrap, "--topic", topic, "--from-beginning",
             "--isolation-level", "read_committed", "--timeout-ms", str(timeout_ms),
             "--formatter-property", "print.headers=true", "--formatter-property", "print.key=true"],
            env=self.environment, text=True, capture_output=True, timeout=120, check=False,
        ).stdout.splitlines()
        # The tool ends by a time-out, and says so among the records.
        return [line for line in printed if line.count("\t") >= 2]


def event(account, version, before, after, amount, **changes):
    data = {"previousBalance": before, "newBalance": after, "changeAmount": amount, "changeType": "CREDIT",
            "signedAmount": amount, "reason": "Topup"}
    data.update(changes)
    return f"{account}|" + json.dumps({
        "eventId": f"foreign-{account}-{version}-{after}", "eventType": "BalanceChanged", "aggregateId": account,
        "aggregateType": "Account", "aggregateVersion": version, "timestamp": "2025-12-09T12:00:00.000Z",
        "correlationId": "c", "data": data})


def post(daemon, account, command):
    body = json.dumps({"timestamp": "2026-01-01T00:00:00.000Z", **command}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{daemon.port}/commands/Account/{account}", data=body,
        headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def account(daemon, name):
    status, body = daemon.get(f"/aggregates/Account/{name}")
    return json.loads(body) if status == 200 else None


def bad_input(cluster, daemon):
    good = [event("a-1", 1, "0.00", "5.00", "5.00"), event("a-1", 2, "5.00", "7.50", "2.50")]
    bad = {
        "not JSON": "a-1|this is not JSON",
        "an amount that is no number": event("a-1", 3, "7.50", "8.00", "half"),
        "a balance that does not follow": event("a-1", 3, "9.99", "10.99", "1.00"),
        "a version that does not follow": event("a-1", 9, "7.50", "8.50", "1.00"),
    }
    cluster.produce("billing.account.events", [*good, *bad.values()])
    cluster.produce("billing.account.events", ['{"eventType":"BalanceChanged"}'], keyed=False)
    # The same version with another id, a repetition, and one more good event behind all that.
    conflict = event("a-1", 2, "5.00", "6.00", "1.00")
    cluster.produce("billing.account.events", [conflict, good[1], event("a-1", 3, "7.50", "8.50", "1.00")])
    until("the last good event is folded", lambda: (account(daemon, "a-1") or {}).get("version") == 3)
    demand("good events around bad ones are folded", account(daemon, "a-1")["state"]["balance"] == "8.50")
    letters = until("all dead letters", lambda: (lambda found: found if len(found) >= 6 else None)(
        cluster.read("billing.account.dlq")))
    demand("each bad record is dead-lettered once, the repetition is not", len(letters) == 6, "\n".join(letters))
    text = "\n".join(letters)
    for code in ("VERSION_CONFLICT", "VERSION_GAP"):
        demand(f"a dead letter says {code}", f"__streams.errors.exception:{code}" in text, text)
    demand("dead letters name their origin", "__streams.errors.topic:billing.account.events" in text)
    demand("dead letters keep the original bytes", "this is not JSON" in text)
    demand("the metric counts them", daemon.metric("millstream_dead_letter_records_total") == 6)


def large_event(cluster, daemon):
    """An event of 9.9 MiB that does not compress: input, history, its changelog and a restore take it."""
    filler = Random(2).randbytes(int(9.9 * 1024 * 1024 / 2)).hex()
    cluster.produce("billing.account.events", [event("large-1", 1, "0.00", "3.00", "3.00", reason=filler),
                                               event("large-1", 2, "3.00", "4.00", "1.00")])
    until("the event behind the large one is folded", lambda: (account(daemon, "large-1") or {}).get("version") == 2)
    demand("an event of 9.9 MiB is folded", account(daemon, "large-1")["state"]["balance"] == "4.00")
    demand("and is no dead letter", daemon.metric("millstream_dead_letter_records_total") == 6)


def ask(port, path):
    """Status and Location; follows nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("location")
    finally:
        connection.close()


def redirects(cluster, daemon, options, work):
    """A second process of the group takes partitions over; each key has one owner, and both know whom."""
    twin = Daemon(2, options, work, cluster.bootstrap)
    twin.start()
    try:
        twin.wait_ready()
        names = [f"moved-{number}" for number in range(12)]
        cluster.produce("billing.account.events", [event(name, 1, "0.00", "2.00", "2.00") for name in names])

        def owners():
            answers = {name: [ask(each.port, f"/aggregates/Account/{name}") for each in (daemon, twin)]
                       for name in names}
            settled = all(sorted(status for status, _ in both) == [200, 307] for both in answers.values())
            shared = {both[0][0] for both in answers.values()} == {200, 307}
            return answers if settled and shared else None

        answers = until("each key is answered by one process and redirected by the other", owners, 90)
        ports = (daemon.port, twin.port)
        for name, both in answers.items():
            owner = 0 if both[0][0] == 200 else 1
            wanted = f"http://127.0.0.1:{ports[owner]}/aggregates/Account/{name}"
            if both[1 - owner][1] != wanted:
                raise Failed(f"{name} is redirected to {both[1 - owner][1]}, not to {wanted}")
        demand("a query for another process's key is redirected to it", True)
        # urllib follows the redirect, as any client does.
        demand("and answered there", all(account(daemon, name)["state"]["balance"] == "2.00" for name in names))
        twin.terminate()
        until("one process owns all again", lambda: all(
            ask(daemon.port, f"/aggregates/Account/{name}")[0] == 200 for name in names), 60)
        say("ok: partitions of a process that leaves come back")
    finally:
        if twin.process.poll() is None:
            twin.process.kill()
            twin.process.wait()


def native_account(daemon):
    status, reply = post(daemon, "native-1", {"commandId": "n1", "commandType": "OpenAccount",
                                              "data": {"owner": "o", "currency": "EUR"}})
    demand("an account is opened", status == 200, reply)
    for number in range(5):
        status, reply = post(daemon, "native-1", {"commandId": f"t{number}", "commandType": "TopUp",
                                                  "data": {"amount": "1.10", "reason": "r"}})
        demand("a top-up is accepted", status == 200, reply)
    status, _ = post(daemon, "a-1", {"commandId": "f", "commandType": "TopUp", "data": {"amount": "1", "reason": "r"}})
    demand("a command on a foreign account is rejected", status == 422)


def broker_away(cluster, daemon):
    cluster.broker("kill-broker")
    until("not ready while the broker is away", lambda: daemon.get("/health/ready")[0] == 503)
    demand("alive while the broker is away", daemon.get("/health/live")[0] == 200)
    cluster.broker("start-broker")
    until("ready when the broker is back", lambda: daemon.get("/health/ready")[0] == 200, 120)
    status, reply = until("a command is answered again", lambda: (
        lambda answer: answer if answer[0] == 200 else None)(
            post(daemon, "native-1", {"commandId": "after", "commandType": "TopUp",
                                      "data": {"amount": "1.10", "reason": "r"}})), 90)
    demand("the account goes on where it was", reply["aggregateVersion"] == 7, reply)


def native_events(cluster):
    return sorted(line.split("\t")[-1] for line in cluster.read("billing.account.events") if '"native-1"' in line)


def command(daemon, name, *arguments):
    settings = [f"application_id={APPLICATION}", f"kafka.bootstrap_servers={daemon.bootstrap}",
                f"state_dir={daemon.state}"]
    line = [str(daemon.options.binary), name, str(daemon.options.config), *arguments]
    for setting in settings:
        line += ["--set", setting]
    return subprocess.run(line, text=True, capture_output=True, timeout=120, check=False)


def rewound_and_reset(cluster, daemon):
    before = native_events(cluster)
    balance = account(daemon, "native-1")
    refused = command(daemon, "reset", "--execute")
    demand("a reset is refused while a member is alive", refused.returncode == 75 and "member" in
           (refused.stdout + refused.stderr), refused.stdout + refused.stderr)
    daemon.terminate()
    cluster.tool("consumer.group.ConsumerGroupCommand", "--bootstrap-server", cluster.bootstrap, "--group",
                 APPLICATION, "--reset-offsets", "--to-earliest", "--topic", "billing.account.events", "--execute")
    daemon.start()
    code = daemon.process.wait(60)
    demand("offsets rewound by another tool are refused, and the way out is named",
           code != 0 and "millstream reset" in daemon.log_tail(), daemon.log_tail())
    # The refused process has left the group on its way out.
    plan = command(daemon, "reset", "--to-earliest")
    demand("a dry run shows the plan and changes nothing", plan.returncode == 0, plan.stdout + plan.stderr)
    done = command(daemon, "reset", "--to-earliest", "--execute")
    demand("a reset is carried out", done.returncode == 0, done.stdout + done.stderr)
    daemon.start()
    daemon.wait_ready()
    until("balances after a reset", lambda: account(daemon, "native-1") == balance, 60)
    demand("a native account loses no event and gains none", native_events(cluster) == before)
    demand("a foreign account is as before", account(daemon, "a-1")["state"]["balance"] == "8.50")


def full_disk(cluster, options, work):
    """A state directory of 12 MiB fills up, then grows; nothing is lost."""
    disk = work / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], check=False).returncode != 0:
        say("skipped: a full and a read-only disk need the right to mount a tmpfs (root)")
        return
    try:
        small = argparse.Namespace(**{**vars(options), "application_id": "disk-test", "set": [
            *(f'topics."billing.account.{name}".name=disk.{name}'
              for name in ("events", "balances", "commands", "replies", "dlq", "movements", "turnover",
                           "status-counts", "audit")),
            *(f'topics."billing.transaction.{name}".name=disk.transaction.{name}'
              for name in ("events", "commands", "replies"))]})
        daemon = Daemon(9, small, work, cluster.bootstrap)
        daemon.state = disk / "state"
        daemon.start()
        try:
            daemon.wait_ready()
            # Random, because RocksDB compresses what repeats.
            random = Random(1)
            lines = [event(f"d-{n}", 1, "0.00", "1.00", "1.00", reason=random.randbytes(1000).hex())
                     for n in range(6000)]
            cluster.produce("disk.events", lines)
            until("not ready on a full disk", lambda: daemon.get("/health/ready")[0] == 503, 90)
            demand("alive on a full disk", daemon.get("/health/live")[0] == 200)
            subprocess.run(["mount", "-o", "remount,size=512m", disk], check=True)
            until("ready when the disk has room again", lambda: daemon.get("/health/ready")[0] == 200, 120)
            until("everything is folded", lambda: all(
                (account(daemon, f"d-{n}") or {}).get("version") == 1 for n in (0, 17, 2999, 5999)), 90)
            say("ok: nothing was lost on a full disk")
            daemon.terminate()
        finally:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        daemon.start()
        code = daemon.process.wait(30)
        demand("a read-only state directory is named", code == 73 and str(disk) in daemon.log_tail(), daemon.log_tail())
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def run(options, work):
    cluster = Cluster(work)
    daemon = Daemon(0, options, work, cluster.bootstrap)
    try:
        daemon.start()
        daemon.wait_ready()
        twin = Daemon(1, options, work, cluster.bootstrap)
        twin.state = daemon.state
        twin.start()
        demand("a second process on one state directory is refused", twin.process.wait(30) == 73 and
               re.search(r"pid", twin.log_tail()), twin.log_tail())
        bad_input(cluster, daemon)
        large_event(cluster, daemon)
        native_account(daemon)
        redirects(cluster, daemon, options, work)
        broker_away(cluster, daemon)
        rewound_and_reset(cluster, daemon)
        daemon.terminate()
        full_disk(cluster, options, work)
    except Failed as error:
        raise Failed(f"{error}\n{daemon.log_tail()}") from None
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        cluster.clean()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "config" / "account.yaml")
    options = parser.parse_args()
    options.application_id, options.threads, options.set = APPLICATION, 1, []
    work = pathlib.Path(tempfile.mkdtemp(prefix="millstream-operations."))
    try:
        run(options, work)
    except Failed as failure:
        say(f"failed: {failure}")
        print(f"work directory kept: {work}")
        return 1
    shutil.rmtree(work, ignore_errors=True)
    say("passed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
