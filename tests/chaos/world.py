"""A world to break: the plant, its publisher, the line, the hub and the lake, as real processes on loopback."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from chaos.account import Balance, Row, balance
from chaos.line import Line
from chaos.publisher import Publisher
from processes import Program, free_port, listens, rows, status, until

from appliance.contract.gap import Gap
from appliance.contract.reading import Quality, Reading, Value

LAUNCHER: Final = Path(__file__).with_name("plant.py")
FAKETIME: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)  # fmt: skip
SETTLED_S: Final = 90.0
READINGS_SQL: Final = """SELECT epoch, seq, topic, epoch_us(event_ts), value_type, value, value_int, value_text, quality
FROM t"""
GAPS_SQL: Final = "SELECT gap FROM t"


@dataclass(frozen=True, slots=True)
class Setting:
    """What one world is like; worlds of the same setting are alike."""

    plant: Mapping[str, Any] = field(default_factory=dict)
    """The launcher's wishes, see `plant.py`."""
    toml: str = ""
    """More of plant.toml."""
    uplink: str = "eventhubs"
    access_key: str = ""
    """The hub takes only tokens made with this key, and looks at their ends."""
    jwt_issuer: str = ""
    """The hub takes JWTs of this issuer too, and the plant signs in with them."""
    has_own_clock: bool = False
    """The plant's clock can be set, by libfaketime."""
    data_mb: int = 0
    """The plant's data stand on a disk of this size; 0 is the one that is there."""
    text_chars: int = 12


class World:
    """Everything of one plant and its cloud. Parts are killed, started again, and cut off by the scenarios."""

    def __init__(self, folder: Path, setting: Setting, seed: int) -> None:
        self.folder, self.setting, self.seed = folder, setting, seed
        self.mqtt, self.http, self.amqp, self.switchboard = (free_port() for _ in range(4))
        self.programs: dict[str, Program] = {}
        self.line = Line(self.amqp, seed)
        self.publisher = Publisher(self.mqtt, seed, setting.text_chars)
        self.data, self.lake = folder / "plant", folder / "lake"
        self.clock_file = folder / "clock"
        self._write_files()

    def __enter__(self) -> Self:
        if self.setting.data_mb:
            options = f"size={self.setting.data_mb}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.data)], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(AssertionError):
            self.publisher.stop()
        for program in self.programs.values():
            program.kill()
        self.line.close()
        if self.setting.data_mb:
            subprocess.run(["umount", str(self.data)], check=True)

    # The parts

    def start(self, *names: str) -> None:
        """Start parts, all when none is named: the hub, the plant, the companion."""
        for name in names or ("hub", "plant", "cloud"):
            self.programs[name] = self._program(name)
        if "plant" in (names or ("plant",)):
            until(self._plant_listens, "the broker", 60)

    def _plant_listens(self) -> bool:
        plant = self.programs["plant"]
        assert plant.process.poll() is None, plant.tail()
        return listens(self.mqtt)

    def kill(self, name: str) -> None:
        self.programs.pop(name).kill()

    def stop(self, name: str, deadline_s: float = 30.0) -> None:
        program = self.programs.pop(name)
        program.stop(deadline_s=deadline_s)
        assert program.process.returncode == 0, program.tail()

    def faults(self, **switches: Any) -> None:
        """Set the hub's switches; those not named are off."""
        self._ask("PUT", "faults", json.dumps(switches).encode())

    def fault_left(self, name: str) -> int:
        """How often a counted fault is still to strike."""
        return int(self._ask("GET", "faults")[name])

    def cut(self) -> None:
        """Cut every connection of the hub, once."""
        self._ask("PUT", "cut")

    def shift_clock(self, days: float) -> None:
        """Set the plant's wall clock, now and for good; its steady clock goes on."""
        unfinished = self.clock_file.with_suffix(".new")
        unfinished.write_text(f"{days * 86_400:+.0f}\n")
        unfinished.replace(self.clock_file)

    # What they say

    def status(self) -> dict[str, Any]:
        """What the plant says of itself; waits until it does."""
        found: dict[str, Any] = until(lambda: status(self.http), "the plant's status", 60)
        return found

    def acknowledged_by_hub(self) -> int:
        return int(self.status().get("bridge", {}).get("readings", {}).get("acknowledged_seq", 0))

    def duplicates(self) -> int:
        """Envelopes of readings in bronze beyond the first of their numbers."""
        sql = "SELECT count(*) - count(DISTINCT (epoch, first)) FROM t WHERE stream = 'readings'"
        found = rows(self.lake, "bronze/events", sql)
        return int(found[0][0]) if found else 0

    def drops(self) -> int:
        """Gaps that have reached the lake."""
        found = rows(self.lake, "silver/gaps", "SELECT count(*) FROM t")
        return int(found[0][0]) if found else 0

    def balance(self) -> Balance:
        """The account as it stands."""
        buffer = self.status()["buffer"]
        gaps = {Gap.from_entry(_event(text)) for (text,) in rows(self.lake, "silver/gaps", GAPS_SQL)}
        found = [_row(*row) for row in rows(self.lake, "silver/readings", READINGS_SQL)]
        return balance(self.publisher.diary, found, list(gaps), {buffer["epoch"]: buffer["readings"]})

    def settled(self, deadline_s: float = SETTLED_S) -> Balance:
        """Wait until all has reached the lake and the account balances; gives it. Fails with the faults."""
        ends, last = time.monotonic() + deadline_s, None
        while time.monotonic() < ends:
            if self._has_drained():
                last = self.balance()
                if not last.faults:
                    return last
            time.sleep(0.3)
        bridge = self.status()["bridge"]
        raise AssertionError(f"seed {self.seed}: {last and last.faults}; {bridge}")

    def final(self) -> Balance:
        """Let the companion catch up with whatever the hub still has, and close the account."""
        if "cloud" in self.programs:
            self.stop("cloud")
        self.once()
        closed = self.balance()
        assert not closed.faults, f"seed {self.seed}: {closed.faults}"
        return closed

    def once(self) -> None:
        """One pass of the companion through all layers."""
        with Program("plantward-cloud", *self._cloud(), "--once", log=self.folder / "cloud.log") as companion:
            assert companion.process.wait(120) == 0, companion.tail()

    def _has_drained(self) -> bool:
        found = status(self.http).get("bridge", {})
        return bool(found) and not (found["readings"]["backlog"] or found["events"]["backlog"] or found["in_flight"])

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.switchboard}/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text[:1] == b"{" else {}

    # How they are started

    def _program(self, name: str) -> Program:
        log = self.folder / f"{name}.log"
        if name == "plant":
            config = str(self.folder / "plant.toml")
            return Program("python", LAUNCHER, "run", "--config", config, log=log, env=self._plant_env())
        if name == "cloud":
            return Program("plantward-cloud", *self._cloud(), log=log)
        program = Program("plantward-cloud", *self._hub(), log=log)
        until(lambda: listens(self.amqp) and listens(self.switchboard), f"the hub; {program.tail()}", 60)
        return program

    def _cloud(self) -> list[str]:
        return ["run", "--config", str(self.folder / "cloud_sync.toml")]

    def _hub(self) -> list[str]:
        ports = ["--port", str(self.amqp), "--faults-port", str(self.switchboard)]
        key = ["--access-key", self.setting.access_key] if self.setting.access_key else []
        issuer = ["--jwt-issuer", self.setting.jwt_issuer] if self.setting.jwt_issuer else []
        return ["emulate", "--data", str(self.folder / "hub"), *ports, *key, *issuer]

    def _plant_env(self) -> dict[str, str]:
        jwt = {"jwt": [f"127.0.0.1:{self.line.port}", self.setting.jwt_issuer]} if self.setting.jwt_issuer else {}
        env = {"CHAOS": json.dumps({**self.setting.plant, **jwt})}
        if self.setting.has_own_clock:
            env |= {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(self.clock_file)}
            env |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
        return env

    def _write_files(self) -> None:
        self.data.mkdir(parents=True)
        self.shift_clock(0)
        key = self.setting.access_key or "dGVzdA=="
        text = "Endpoint=sb://127.0.0.1:{};SharedAccessKeyName=any;SharedAccessKey={};UseDevelopmentEmulator=true"
        uplink, hub = [text.format(port, key) for port in (self.line.port, self.amqp)]
        ends = {
            "eventhubs": f'connection_string = "{uplink}"\nallow_secrets = true',
            "folder": f"path = {json.dumps(str(self.folder / 'envelopes'))}",
        }
        (self.folder / "envelopes").mkdir()
        (self.folder / "plant.toml").write_text(
            f'[plant]\nname = "northfield"\ndata = {json.dumps(str(self.data))}\n'
            f'[[broker.listener]]\nbind = "127.0.0.1:{self.mqtt}"\nanonymous = true\n'
            f'[uplink]\nkind = "{self.setting.uplink}"\n{ends[self.setting.uplink]}\n'
            f'[http]\nbind = "127.0.0.1:{self.http}"\n{self.setting.toml}\n'
        )
        source = {"eventhubs": f'connection_string = "{hub}"\nname = "readings"', "folder": 'folder = "envelopes"'}
        (self.folder / "cloud_sync.toml").write_text(
            f'[hub]\n{source[self.setting.uplink]}\n[lake]\npath = "lake"\n[service]\ninterval_s = 0.2\n'
        )


def faketime() -> str:
    """libfaketime's path; empty when it is not installed."""
    return next((path for path in FAKETIME if Path(path).exists() and sys.platform == "linux"), "")


def _event(text: str) -> Reading:
    return Reading("", text, Quality.GOOD, 0, 0, 0, "")


def _row(
    epoch: int, seq: int, topic: str, at_us: int, kind: str, number: float | None, whole: int | None,
    text: str | None, quality: int,
) -> Row:  # fmt: skip
    values: dict[str, Value] = {"float": number, "int": whole, "text": text, "null": None, "bool": bool(number)}
    return Row(epoch, seq, topic, at_us, values[kind], quality)
