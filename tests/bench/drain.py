"""The drain measured: what a backlog needs to leave for a hub. The second half of `make bench-buffer`.

The hub is the emulator. It, whoever fills the log and whoever drains it are processes of their own, so that memory
and processor time are those of the appliance's side alone; all of them share the machine's cores.
"""

import argparse
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import drain_parts
from bench.drain_parts import FULL
from bench.journey import row
from processes import Program, free_port, listens, resident_mb, status, until, write_plant

from appliance.contract.envelope import Lane, Sealed, open_sealed
from cloud_sync.emulator.amqp import decode
from cloud_sync.emulator.eventhubs import STORE_NAME

REPORT: Final = Path("build/bench/buffer.json")
MQTT_PER_S: Final = 10_000
EVENTS_PER_S: Final = 1_000
"""What one throughput unit takes."""


@contextmanager
def hub(folder: Path, units: int = 0, port: int = 0) -> Iterator[int]:
    """An emulator of its own; gives its port."""
    port = port or free_port()
    arguments = ("emulate", "--port", str(port), "--data", folder / "hub", "--throughput-units", str(units))
    with Program("plantward-cloud", *arguments, log=folder / "hub.log"):
        until(lambda: listens(port), "the emulator")
        yield port


@contextmanager
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def begun(*arguments: object) -> "subprocess.Popen[bytes]":
    """Start a part as a process of its own."""
    return subprocess.Popen([sys.executable, drain_parts.__file__, *map(str, arguments)], stdout=subprocess.PIPE)


def ended(part: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Wait for a part; gives what it has measured."""
    output, _ = part.communicate(timeout=1_800)
    assert part.returncode == 0, f"{part.args!r} failed"
    said: dict[str, float] = json.loads(output)
    return said


def filled(folder: Path, count: int, decimals: int = FULL) -> Path:
    """A log of so many readings of 1,000 tags, which only the Bridge has not read yet."""
    path = folder / f"log-{count}-{decimals}" / "buffer.db"
    ended(begun("fill", path, count, decimals))
    return path


def drained(log_file: Path, units: int = 0, count: int = sys.maxsize) -> dict[str, float]:
    """Drain a copy of a log, up to so many readings."""
    with temporary() as folder, hub(folder, units) as port:
        copy = shutil.copyfile(log_file, folder / "buffer.db")
        return ended(begun("drain", copy, port, units, count))


def each(seconds: int, units: int = 0, per_s: int = 0) -> dict[str, float]:
    """One event for each reading."""
    with temporary() as folder, hub(folder, units) as port:
        return ended(begun("each", port, seconds, per_s))


def median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def ceiling(log_file: Path, rounds: int) -> list[dict[str, Any]]:
    """(a) As fast as two cores go, by the wall and by the appliance's own processor time; both ways in turn."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(drained(log_file))
        theirs.append(each(2))
    peer = "one event a reading, same SDK"
    return [
        row(work, "readings/s", median(ours, name), target, peer, median(theirs, name))
        for work, name, target in (
            ("drain, no delay", "per_s", 1_000_000),
            ("the same for each second of processor time", "per_cpu_s", None),
        )
    ]


def one_unit(logs: dict[str, Path]) -> list[dict[str, Any]]:
    """(b) Through one throughput unit: 1 MB/s and 1,000 events/s."""
    theirs = each(3, 1, EVENTS_PER_S)["per_s"]
    table = []
    for values, log_file in logs.items():
        ours = drained(log_file, 1)
        work = f"drain through 1 throughput unit, {values}, {ours['bytes_each']:.2f} B a reading"
        table.append(row(work, "readings/s", ours["per_s"], 150_000, "one event a reading", theirs))
    return table


def evenness(large: Path, small: Path, rounds: int) -> dict[str, Any]:
    """(c) The same number of readings from a long backlog and from a short one, in turn."""
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(drained(small))
        ours.append(drained(large, 0, int(theirs[-1]["waiting"])))
    many, few = median(ours, "waiting") / 1e6, median(theirs, "waiting") / 1e6
    work = f"drain with {many:g} M readings waiting"
    return row(work, "readings/s", median(ours, "per_s"), None, f"{few:g} M waiting", median(theirs, "per_s"))


def outage(log_file: Path, seconds: int) -> list[dict[str, Any]]:
    """(d) A real appliance with all of that waiting: its memory while 10,000 messages a second come in without a
    link, and how long new readings take to the hub once the link is back, through one throughput unit.
    """
    mqtt, http, amqp = free_port(), free_port(), free_port()
    with temporary() as folder:
        config = write_plant(folder, mqtt, http, amqp)
        config.write_text(config.read_text().replace("[uplink]\n", "[uplink]\nthroughput_units = 1\n"))
        for name in ("buffer.db", "history.db"):
            shutil.copyfile(log_file.with_name(name), folder / "plant" / name)
        with Program("plantward", "run", "--config", config, log=folder / "plant.log") as appliance:
            until(lambda: listens(mqtt), "the appliance")
            waiting = until(lambda: status(http).get("bridge"), "its status")["readings"]["backlog"]
            memory = [resident_mb(appliance.process.pid)]
            down = begun("load", mqtt, seconds, MQTT_PER_S)
            while down.poll() is None:
                time.sleep(0.1)
                memory.append(resident_mb(appliance.process.pid))
            with hub(folder, 1, amqp):
                until(lambda: status(http)["bridge"]["link"] == "up", "the link", 120)
                since_us = time.time_ns() // 1000
                up = begun("load", mqtt, seconds, MQTT_PER_S)
                while up.poll() is None:
                    time.sleep(0.1)
                    memory.append(resident_mb(appliance.process.pid))
                left = status(http)["bridge"]["readings"]["backlog"]
                time.sleep(3)  # What came last is on its way.
            waits_s = sorted(waits(folder / "hub" / STORE_NAME, since_us))
    came, went = ended(down)["per_s"], ended(up)["per_s"]
    assert left > 0, "nothing waited any more, so the latency is not that of an outage"
    return [
        row(f"resident memory, {waiting / 1e6:g} M waiting, {came:,.0f} msg/s coming in", "MB", max(memory), 250,
            less_is_better=True),
        row(f"arrival to hub, p95 of {len(waits_s):,} at {went:,.0f} msg/s, {left / 1e6:.1f} M still waiting", "s",
            waits_s[int(len(waits_s) * 0.95)], 5, less_is_better=True),
    ]  # fmt: skip


def waits(hub_file: Path, since_us: int) -> Iterator[float]:
    """Seconds from arrival to where the hub acknowledges, of each reading that arrived since."""
    with sqlite3.connect(hub_file) as db:
        stored = db.execute("SELECT enqueued_ms, body FROM transfer WHERE hub = 'readings'").fetchall()
    db.close()
    for enqueued_ms, transfer in stored:
        properties, body = opened(transfer)
        if str(properties.get("lane", "")) == Lane.LIVE:
            for entry in open_sealed(Sealed.from_wire(properties, body)).entries:
                if entry.arrival_us >= since_us:
                    yield enqueued_ms / 1e3 - entry.arrival_us / 1e6


def opened(transfer: bytes) -> tuple[dict[str, Any], bytes]:
    """Properties and body of the one event of a transfer."""
    batch, position = decode(transfer, 0)
    message = batch.value if position == len(transfer) and batch.descriptor == 0x75 else transfer
    sections, position = {}, 0
    while position < len(message):
        section, position = decode(message, position)
        sections[int(section.descriptor)] = section.value
    return sections[0x74], sections[0x75]


def measured(quick: bool) -> list[dict[str, Any]]:
    """All rows; the quick form has shorter logs and fewer rounds."""
    rounds, seconds, unit = (1, 4, 250_000) if quick else (5, 60, 1_000_000)
    short, large, long = (600_000, 600_000, 600_000) if quick else (2_000_000, 10_000_000, 5_000_000)
    with temporary() as folder:
        plain, small = filled(folder, short), filled(folder, 100_000)
        logs = {"simulated plant": filled(folder, unit), "3 decimals": filled(folder, 2 * unit, 3)}
        table = ceiling(plain, rounds) + one_unit(logs)
        biggest = plain if quick else filled(folder, large)
        table.append(evenness(biggest, small, rounds))
        if not quick:
            memory, _ = outage(biggest, seconds)
            return [*table, memory, outage(filled(folder, long), seconds)[1]]
        return table + outage(plain, seconds)


def main() -> None:
    """Measure, print the table, put the rows into build/bench/buffer.json in the place of earlier ones."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="end within a minute")
    table = measured(options.parse_args().quick)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report = json.loads(REPORT.read_text("utf-8")) if REPORT.exists() else {"bench": "buffer", "rows": []}
    REPORT.write_text(json.dumps({**report, "drain": table}, indent=2) + "\n", "utf-8")
    for line in table:
        beside = f"  {line['theirs']:>12,.1f} {line['peer']}, ratio {line['ratio']:.2f}" if line["peer"] else ""
        print(f"{line['work']:<75} {line['ours']:>12,.2f} {line['unit']:<11}{beside}")


if __name__ == "__main__":
    main()
