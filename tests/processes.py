"""Plantward's own programs as processes, for the tests and benchmarks of the whole way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote


def free_port() -> int:
    """A port on 127.0.0.1 that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], Any], what: str, deadline_s: float = 30.0) -> Any:
    """Wait until something holds, and give it; fails with what was awaited."""
    ends = time.monotonic() + deadline_s
    while time.monotonic() < ends:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {deadline_s:.0f} s")


def listens(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """One running `plantward` or `plantward-cloud`; ends with the block."""

    def __init__(self, *arguments: str | Path, log: Path, env: Mapping[str, str] | None = None) -> None:
        program, *rest = map(str, arguments)
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *rest],
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline_s: float = 10.0) -> float:
        """Ask it to stop; gives the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not stop within {deadline_s} s; {self.tail()}") from None
        return time.monotonic() - started

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def tail(self) -> str:
        """Its last words."""
        return self.log.read_text("utf-8", "replace")[-3_000:]


def connection_string(amqp_port: int) -> str:
    """How the SDK finds the emulator."""
    key = "SharedAccessKeyName=test;SharedAccessKey=dGVzdA=="
    return f"Endpoint=sb://127.0.0.1:{amqp_port};{key};UseDevelopmentEmulator=true"


def write_plant(folder: Path, mqtt: int, http: int, amqp: int, more: str = "") -> Path:
    """A plant.toml that sends to the emulator; gives its path."""
    (folder / "plant").mkdir(exist_ok=True)
    path = folder / "plant.toml"
    path.write_text(
        f"""
[plant]
name = "northfield"
data = {json.dumps(str(folder / "plant"))}
[[broker.listener]]
bind = "127.0.0.1:{mqtt}"
anonymous = true
[uplink]
kind = "eventhubs"
connection_string = "{connection_string(amqp)}"
allow_secrets = true
[http]
bind = "127.0.0.1:{http}"
{more}
""",
        "utf-8",
    )
    return path


def write_cloud(folder: Path, amqp: int) -> Path:
    """A cloud_sync.toml that drains the emulator into `folder/lake`; gives its path."""
    path = folder / "cloud_sync.toml"
    lake = json.dumps(str(folder / "lake"))
    path.write_text(
        f'[hub]\nconnection_string = "{connection_string(amqp)}"\nname = "readings"\n[lake]\npath = {lake}\n', "utf-8"
    )
    return path


def status(http: int) -> dict[str, Any]:
    """What the appliance says of itself; empty when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/api/status", timeout=2) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except (urllib.error.URLError, OSError, ValueError):
        return {}


def rows(lake: Path, table: str, sql: str) -> list[tuple[Any, ...]]:
    """Ask a table of the lake, which the SQL calls `t`; nothing when the table is not there yet."""
    import duckdb
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    try:
        files = [unquote(file) for file in DeltaTable(str(lake / table)).file_uris()]
    except TableNotFoundError:
        return []
    if not files:
        return []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE VIEW t AS SELECT * FROM read_parquet({files!r}, hive_partitioning = true)")
        found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        return found


def delete(lake: Path, table: str, where: str) -> None:
    """Delete rows of a table of the lake, whatever its writers do meanwhile."""
    from deltalake import DeltaTable
    from deltalake.exceptions import CommitFailedError

    for _ in range(20):
        try:
            DeltaTable(str(lake / table)).delete(where)
        except CommitFailedError:
            continue
        return
    raise AssertionError(f"{table}: others were faster each time")


def resident_mb(pid: int) -> float:
    """Resident memory of a process, by the operating system (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
