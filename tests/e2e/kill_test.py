#!/usr/bin/env python3
"""kill -9 under load: several daemons of one group, a foreign writer, a foreign reader as judge.

What it does:
  1. starts the daemons, each with a state directory and a port of its own, and waits until they are
     ready; they create the topics;
  2. starts ForeignWriter, which writes consistent `BalanceChanged` events at a steady rate;
  3. kills daemons with SIGKILL at moments that follow from the seed, some of them while they still
     restore, sometimes all at once, sometimes for longer than the session timeout so that partitions
     move; starts each again on its own state directory;
  4. ForeignVerifier: every balance recomputed from the input equals the read model, versions rise
     strictly over all output records, no transaction hangs, no dead letter;
  5. kills one daemon a last time, at rest, and demands that it restores only the changelog's tail,
     by its own metric;
  6. stops the daemons with SIGTERM, demands exit code 0, and lets ForeignVerifier look once more.

Python's standard library only. The seed decides the input, the kills and the pauses; it is printed,
with the command that runs the same again.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Longer than the daemons' session timeout (10 s): the group notices, and partitions move.
LONG_PAUSE_S = (12.0, 14.0)
SHORT_PAUSE_S = (0.0, 1.5)
READY_DEADLINE_S = 60
STOP_DEADLINE_S = 30
FLUSH_INTERVAL_S = 2
LOG_TAIL_LINES = 40


class Failed(Exception):
    """The run shows a fault, or could not be carried out."""


def say(text):
    print(f"[{time.monotonic() - STARTED:7.2f} s] {text}", flush=True)


STARTED = time.monotonic()


class Daemon:
    """One process: its state directory and port stay, its pid changes with every kill."""

    def __init__(self, number, options, work, bootstrap):
        self.number = number
        self.options = options
        self.bootstrap = bootstrap
        self.state = work / f"daemon-{number}" / "state"
        self.log_path = work / f"daemon-{number}" / "log"
        self.state.parent.mkdir(parents=True)
        self.port = free_port()
        self.process = None
        self.starts = 0
        self.killed = 0
        self.running = threading.Event()

    def __str__(self):
        return f"daemon {self.number} (pid {self.process.pid if self.process else '-'})"

    def start(self):
        settings = [
            f"application_id={self.options.application_id}",
            f"kafka.bootstrap_servers={self.bootstrap}",
            f"state_dir={self.state}",
            f"state.flush_interval={FLUSH_INTERVAL_S}s",
            f"http.listen=127.0.0.1:{self.port}",
            f"threads={self.options.threads}",
            *self.options.set,
        ]
        command = [str(self.options.binary), "run", str(self.options.config)]
        for setting in settings:
            command += ["--set", setting]
        with open(self.log_path, "ab") as log:
            log.write(f"\n=== start {self.starts}: {' '.join(command)}\n".encode())
            log.flush()
            # Its own session: Ctrl-C reaches this program alone, which then stops the daemons.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1
        self.running.set()

    def kill(self):
        self.demand_alive()
        self.running.clear()
        self.killed = self.starts
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def demand_alive(self):
        code = self.process.poll()
        if code is not None:
            raise Failed(f"{self} ended by itself with exit code {code}\n{self.log_tail()}")

    def terminate(self):
        """SIGTERM: drains, commits, leaves the group. Exit code 0 is demanded."""
        self.demand_alive()
        self.process.terminate()
        try:
            code = self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self} did not stop within {STOP_DEADLINE_S} s of SIGTERM\n{self.log_tail()}") from None
        if code != 0:
            raise Failed(f"{self} ended with exit code {code} after SIGTERM\n{self.log_tail()}")

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self):
        """Returns False when the process was killed meanwhile, by this program."""
        start = self.starts
        deadline = time.monotonic() + READY_DEADLINE_S
        while True:
            if self.killed >= start:
                return False
            self.demand_alive()
            status, body = self.get("/health/ready")
            if status == 200:
                return True
            if time.monotonic() > deadline:
                raise Failed(
                    f"{self} is not ready after {READY_DEADLINE_S} s: {status} {body}\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def metric(self, name):
        """The sum over all labels, or None when the metric has no sample."""
        status, text = self.get("/metrics")
        if status != 200:
            return None
        samples = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(sample) for sample in samples) if samples else None

    def log_tail(self):
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return f"--- last lines of {self.log_path}\n" + "\n".join(lines)


class Writer:
    """ForeignWriter, and how far it has come."""

    def __init__(self, options, bootstrap):
        self.sent = 0
        self.changed = threading.Condition()
        command = foreign(
            "ForeignWriter",
            *("--bootstrap", bootstrap, "--events", options.events, "--accounts", options.accounts),
            *("--seed", options.seed, "--rate", options.rate),
            *("--progress", max(1, options.events // 1000)),
        )
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("progress "):
                with self.changed:
                    self.sent = int(line.split()[1])
                    self.changed.notify_all()
            else:
                say(f"writer: {line.strip()}")

    def wait_for(self, events):
        """Waits until so many events are sent; fails when the writer fails."""
        with self.changed:
            while self.sent < events:
                code = self.process.poll()
                if code is not None:
                    if code != 0:
                        raise Failed(f"the writer failed with exit code {code}")
                    return
                self.changed.wait(0.2)

    def finish(self):
        code = self.process.wait()
        self.reader.join(5)
        if code != 0:
            raise Failed(f"the writer failed with exit code {code}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Kafka:
    """A broker of this run's own."""

    def __init__(self, work):
        self.environment = {**os.environ, "MILLSTREAM_KAFKA_DIR": str(work / "kafka")}
        status = self._run("start").stdout
        found = re.search(r"^KAFKA_BOOTSTRAP_SERVERS=(\S+)", status, re.MULTILINE)
        if not found:
            raise Failed(f"scripts/kafka start printed no servers: {status!r}")
        self.bootstrap = found.group(1)

    def _run(self, command):
        try:
            return subprocess.run(
                [str(ROOT / "scripts" / "kafka"), command],
                env=self.environment, check=True, text=True, stdout=subprocess.PIPE, timeout=900,
            )
        except subprocess.SubprocessError as error:
            raise Failed(f"scripts/kafka {command}: {error}") from error

    def clean(self):
        self._run("clean")


class Scenario:
    """The kills: after how many events sent, who, and for how long. All of it from the seed."""

    def __init__(self, options):
        rng = random.Random(options.seed)
        thresholds = sorted(rng.uniform(0.03, 0.95) for _ in range(options.kills))
        self.kills = []
        for number, threshold in enumerate(thresholds):
            everyone = options.processes > 1 and rng.random() < 0.15
            # One long pause at the least, so that every run moves partitions.
            long = options.processes > 1 and (number == options.kills // 2 or rng.random() < 0.2)
            self.kills.append(
                {
                    "at": int(threshold * options.events),
                    # The threshold itself lies on a batch border of the writer; this does not.
                    "delay": rng.uniform(0, 0.3),
                    "victim": rng.randrange(options.processes),
                    "everyone": everyone,
                    "pause": rng.uniform(*(LONG_PAUSE_S if long else SHORT_PAUSE_S)),
                }
            )
        self.last_victim = rng.randrange(options.processes)


def free_port():
    """Below the range from which the system takes ephemeral ports, so that nobody gets it meanwhile."""
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise Failed("no free port between 20000 and 32000")


def foreign(name, *arguments):
    return [str(ROOT / "scripts" / "foreign"), name, *map(str, arguments)]


def verify(options, bootstrap, deadline_s):
    command = foreign(
        "ForeignVerifier",
        *("--bootstrap", bootstrap, "--group", options.application_id, "--deadline-s", deadline_s),
        *("--events", options.events, "--accounts", min(options.accounts, options.events)),
    )
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if code != 0:
        raise Failed(f"ForeignVerifier found the run wrong (exit code {code})")


def restart(daemon, pause, trouble):
    """Runs on a thread of its own, so that the next kill need not wait for this restore."""
    try:
        time.sleep(pause)
        began = time.monotonic()
        daemon.start()
        if not daemon.wait_ready():
            say(f"daemon {daemon.number} was killed again before it was ready")
            return
        restored = daemon.metric("millstream_restore_records_total")
        took = time.monotonic() - began
        say(f"{daemon} is ready {took:.2f} s after its start, restored {restored or 0:.0f} records")
    except Failed as error:
        trouble.append(error)


def running_victims(kill, daemons, trouble):
    """Who dies: of those that run (one that still restores counts), the chosen or the next in turn."""
    while not trouble:
        turn = daemons[kill["victim"] :] + daemons[: kill["victim"]]
        running = [daemon for daemon in turn if daemon.running.is_set()]
        if running:
            return running if kill["everyone"] else running[:1]
        time.sleep(0.05)
    raise trouble[0]


def carry_out_kills(scenario, daemons, writer):
    killed = 0
    restarts, trouble = [], []
    for number, kill in enumerate(scenario.kills, start=1):
        writer.wait_for(kill["at"])
        time.sleep(kill["delay"])
        for daemon in running_victims(kill, daemons, trouble):
            processed = daemon.metric("millstream_records_processed_total")
            name = str(daemon)
            daemon.kill()
            killed += 1
            # A long pause moves partitions; with nobody there to take them it only costs time.
            others = any(other.running.is_set() for other in daemons)
            pause = kill["pause"] if others else min(kill["pause"], SHORT_PAUSE_S[1])
            say(
                f"kill {number} of {len(scenario.kills)}: {name} after {writer.sent} events sent, "
                f"{processed or 0:.0f} processed since its start; back in {pause:.2f} s"
            )
            thread = threading.Thread(target=restart, args=(daemon, pause, trouble), daemon=True)
            restarts.append(thread)
            thread.start()
    for thread in restarts:
        thread.join()
    if trouble:
        raise trouble[0]
    return killed


def demand_tail_restore(options, daemon):
    """At rest and flushed, a killed daemon has next to nothing to restore, and resumes as itself."""
    # Nothing to ask for here: two flush intervals without input leave nothing unflushed.
    time.sleep(2.5 * FLUSH_INTERVAL_S)
    name = str(daemon)
    daemon.kill()
    began = time.monotonic()
    daemon.start()
    daemon.wait_ready()
    restored = daemon.metric("millstream_restore_records_total")
    # A member whose assignment is still on its way counts as ready: its tasks come a moment later.
    deadline = time.monotonic() + READY_DEADLINE_S
    while restored is None and time.monotonic() < deadline:
        time.sleep(0.1)
        restored = daemon.metric("millstream_restore_records_total")
    say(f"at rest: {name} killed, ready again after {time.monotonic() - began:.2f} s, restored {restored} records")
    if restored is None:
        raise Failed("a restarted daemon has no metric millstream_restore_records_total")
    bound = max(100, options.accounts // 100)
    if restored > bound:
        raise Failed(f"{restored:.0f} records restored at rest, at most {bound} are a tail\n{daemon.log_tail()}")


def run(options, work):
    scenario = Scenario(options)
    kafka = None
    daemons = []
    writer = None
    try:
        if options.bootstrap:
            bootstrap = options.bootstrap
        else:
            kafka = Kafka(work)
            bootstrap = kafka.bootstrap
        say(f"Kafka at {bootstrap}, work directory {work}")
        daemons = [Daemon(number, options, work, bootstrap) for number in range(options.processes)]
        for daemon in daemons:
            daemon.start()
        for daemon in daemons:
            daemon.wait_ready()
        say(f"{len(daemons)} daemons are ready")
        writer = Writer(options, bootstrap)
        killed = carry_out_kills(scenario, daemons, writer)
        writer.finish()
        say(f"{killed} kills, all events written; waiting for the group")
        for daemon in daemons:
            daemon.demand_alive()
        verify(options, bootstrap, options.deadline_s)
        demand_tail_restore(options, daemons[scenario.last_victim])
        for daemon in daemons:
            daemon.terminate()
        say("all daemons stopped on SIGTERM with exit code 0")
        verify(options, bootstrap, 15)
        return killed + 1
    finally:
        if writer:
            writer.stop()
        for daemon in daemons:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
        if kafka:
            kafka.clean()


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/kill-test", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="stream threads of a daemon")
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--rate", type=int, default=0, help="events per second; default: four seconds per kill")
    parser.add_argument("--deadline-s", type=int, default=120, help="for catching up after the last event")
    parser.add_argument("--binary", type=Path, required=True, help="the daemon")
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "account.yaml")
    parser.add_argument("--application-id", default="kill-test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed to the daemons")
    parser.add_argument("--bootstrap", help="a running Kafka, with empty topics; default: an own one")
    parser.add_argument("--keep", action="store_true", help="keep the work directory")
    options = parser.parse_args()
    if min(options.events, options.accounts, options.kills, options.processes, options.threads) < 1:
        parser.error("numbers must be positive")
    if options.seed is None:
        options.seed = time.time_ns() // 1_000_000 % 1_000_000
    options.rate = options.rate or max(500, options.events // (4 * options.kills))
    return options


def main():
    options = parse()
    replay = (
        f"scripts/kill-test --events {options.events} --accounts {options.accounts} --kills {options.kills} "
        f"--processes {options.processes} --threads {options.threads} --rate {options.rate} --seed {options.seed}"
        + "".join(f" --set '{setting}'" for setting in options.set)
    )
    say(f"seed {options.seed}; to run the same again: {replay}")
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="millstream-kill."))
    keep = options.keep
    try:
        kills = run(options, work)
    except Failed as error:
        keep = True
        print(f"\nFAILED: {error}\nreplay: {replay}", flush=True)
        return 1
    finally:
        if keep:
            print(f"logs and state are kept in {work}", flush=True)
        else:
            shutil.rmtree(work, ignore_errors=True)
    say(
        f"passed: {options.events} events, {options.accounts} accounts, {kills} kills -9 of "
        f"{options.processes} processes, seed {options.seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
