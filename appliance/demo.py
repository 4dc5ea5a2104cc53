"""The demo: a whole plant and a local cloud on loopback, as the real programs beside each other.

The launcher starts what a plant and its cloud are made of, each as a process of its own: simulated machines behind an
OPC UA server, an Event Hubs endpoint, the appliance, and the cloud companion. It starts again what ends unasked,
so the appliance may be killed while the plant goes on.
"""

import asyncio
import ctypes
import json
import logging
import signal
import socket
import sys
import urllib.request
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from appliance.folder import FolderError
from appliance.logs import start_logging
from appliance.supervisor import stop_requested, supervise

log = logging.getLogger(__name__)

READY_S_MAX = 60.0
STOP_S_MAX = 3.0
STATUS_EVERY_S = 5.0
WRONG_USAGE = 2
"""The exit code of a program that cannot start as it was asked to."""
ROOT, PLANT = "acme", "northfield"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the demo listens, all on 127.0.0.1."""

    http: int
    mqtt: int
    amqp: int
    opcua: int


class ChildEnded(Exception):
    """A program of the demo has ended unasked."""


class Refusal:
    """What a program of the demo said when it would not start; the whole demo ends with it."""

    def __init__(self, asked_to_stop: asyncio.Event, say: Callable[[str], None]) -> None:
        self.text = ""
        self.say = say
        self._asked_to_stop = asked_to_stop

    def ended(self, name: str, code: int, last_words: str) -> None:
        """A program has ended: wrong usage ends the demo, anything else is said, and the program starts again."""
        if code == WRONG_USAGE:
            self.text = last_words
            self._asked_to_stop.set()
        else:
            self.say(f"{name} has ended with code {code} and is started again; its last words: {last_words[:500]}")


def prepare(data: Path, ports: Ports) -> None:
    """Make sure the folder is there and the ports are free; raises `FolderError` with one clear line."""
    if not data.parent.is_dir():
        raise FolderError(f"the folder {data.parent} does not exist; create it, or name another with --data")
    try:
        data.mkdir(exist_ok=True)
        (data / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise FolderError(f"the folder {data} cannot be used ({error.strerror}); name another with --data") from error
    if len(set(asdict(ports).values())) < len(asdict(ports)):
        raise FolderError("two of the ports are the same; give each of --http-port --mqtt-port ... its own")


def check_ports(ports: Ports) -> None:
    """Raises `FolderError` for the first port that somebody else has."""
    for name, port in asdict(ports).items():
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
        except (OSError, OverflowError) as error:
            hint = f"name another with --{name}-port"
            raise FolderError(f"port {port} ({name}) on 127.0.0.1 cannot be used ({error}); {hint}") from error


async def run(data: Path, ports: Ports, speed: float, seed: int, browser: bool, say: Callable[[str], None]) -> None:
    """Run the whole demo until it is asked to stop."""
    check_ports(ports)
    start_logging("CRITICAL")  # What is worth knowing is said, and each program has a log of its own.
    asked_to_stop = stop_requested()
    refusal = Refusal(asked_to_stop, say)
    async with supervise(grace_s=STOP_S_MAX) as parts:
        equipment = data / "equipment.toml"
        equipment.unlink(missing_ok=True)
        plant = ["cloud_sync.cli", "simulate", "--port", str(ports.opcua), "--data", str(data / "plant")]
        plant += ["--speed", str(speed), "--seed", str(seed), "--equipment-file", str(equipment)]
        hub = ["cloud_sync.cli", "emulate", "--port", str(ports.amqp), "--data", str(data / "hub")]
        parts.start("plant", partial(_child, "plant", plant, data, refusal))
        parts.start("hub", partial(_child, "hub", hub, data, refusal))
        welcome = partial(_welcome, data, ports, speed, browser, say)
        parts.start("start", partial(_start_rest, data, ports, parts.start, refusal, welcome))
        await asked_to_stop.wait()
        if not refusal.text:
            say("stopping ...")
    if refusal.text:
        raise FolderError(refusal.text)
    say(f"stopped; everything is in {data}, the same command goes on from here")


async def _start_rest(
    data: Path,
    ports: Ports,
    start: Callable[[str, Callable[[], Any]], None],
    refusal: Refusal,
    welcome: Callable[[], Any],
) -> None:
    """Start the appliance and the cloud companion as soon as what they need is there, then say that they run."""
    equipment = data / "equipment.toml"
    await _until(equipment.exists, "the machines")
    await _until(partial(_listens, ports.opcua), "the machines' OPC UA server")
    await _until(partial(_listens, ports.amqp), "the Event Hubs emulator")
    (data / "plant.toml").write_text(_plant_toml(data, ports) + equipment.read_text("utf-8"), "utf-8")
    (data / "cloud_sync.toml").write_text(_cloud_toml(data, ports), "utf-8")
    cloud = ["cloud_sync.cli", "run", "--config", str(data / "cloud_sync.toml")]
    start("cloud", partial(_child, "cloud", cloud, data, refusal))
    appliance = ["appliance.cli", "run", "--config", str(data / "plant.toml")]
    start("appliance", partial(_child, "appliance", appliance, data, refusal))
    await _until(partial(_listens, ports.http), "the page")
    start("status", welcome)


async def _child(name: str, arguments: list[str], data: Path, refusal: Refusal) -> None:
    """Run one program until cancelled; raises `ChildEnded` when it ends by itself."""
    module, *rest = arguments
    command = [sys.executable, "-c", f"from {module} import main; main()", *rest]
    path = data / "logs" / f"{name}.log"
    with path.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the launcher, which stops them in order.
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S_MAX - 0.5)
            except TimeoutError:
                process.kill()
                await process.wait()
            raise
    refusal.ended(name, code, path.read_text("utf-8", "replace").strip().rpartition("\n")[2])
    raise ChildEnded(f"{name} has ended with code {code}; its last words are in {path}")


def _end_with_parent() -> None:
    """Have the kernel end a child whose launcher has died (Linux: PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


async def _until(holds: Callable[[], bool], what: str) -> None:
    for _ in range(int(READY_S_MAX / 0.1)):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise ChildEnded(f"{what}: not there after {READY_S_MAX:.0f} s; see the folder logs")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _connection_string(ports: Ports) -> str:
    return (
        f"Endpoint=sb://127.0.0.1:{ports.amqp};SharedAccessKeyName=demo;SharedAccessKey=ZGVtbw==;"
        "UseDevelopmentEmulator=true"
    )


def _plant_toml(data: Path, ports: Ports) -> str:
    return f"""# Written by `plantward demo` at each start.
[plant]
name = "{PLANT}"
data = {json.dumps(str(data))}

[namespace]
root = "{ROOT}"
enforce = "refuse"

[[broker.listener]]
bind = "127.0.0.1:{ports.mqtt}"
anonymous = true

[uplink]
kind = "eventhubs"
connection_string = "{_connection_string(ports)}"
allow_secrets = true
hub = "readings"

[http]
bind = "127.0.0.1:{ports.http}"

[[source]]
name = "plant"
kind = "opcua"
endpoint = "opc.tcp://127.0.0.1:{ports.opcua}"
browse = "ns=2;s={ROOT}/{PLANT}"

"""


def _cloud_toml(data: Path, ports: Ports) -> str:
    return f"""# Written by `plantward demo` at each start.
[hub]
connection_string = "{_connection_string(ports)}"
name = "readings"

[lake]
path = {json.dumps(str(data / "lake"))}
"""


async def _welcome(data: Path, ports: Ports, speed: float, browser: bool, say: Callable[[str], None]) -> None:
    """Say where everything is, then now and then what came in, what the cloud has, and what stands out."""
    page = f"http://127.0.0.1:{ports.http}"
    say(f"plant {PLANT}: running, plant time {speed:g} times as fast; Ctrl-C stops it")
    say(f"  page      {page}")
    say(f"  UNS       mqtt://127.0.0.1:{ports.mqtt}    try: mosquitto_sub -p {ports.mqtt} -t '{ROOT}/#' -v")
    say(f"  machines  opc.tcp://127.0.0.1:{ports.opcua}")
    say(f"  cloud     Event Hubs endpoint on port {ports.amqp}, lake in {data / 'lake'}")
    say(f"  status    plantward status --data {data}")
    if browser:
        await asyncio.to_thread(webbrowser.open, page)
    while True:
        await asyncio.sleep(STATUS_EVERY_S)
        try:
            status = await asyncio.to_thread(_status, ports.http)
        except (OSError, ValueError) as error:
            say(f"appliance: no answer ({error})")
        else:
            say(_sentence(status))


def _status(port: int) -> Mapping[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=2) as response:
        answer: Mapping[str, Any] = json.load(response)
        return answer


def _sentence(status: Mapping[str, Any]) -> str:
    buffer, view, sent = status["buffer"], status["view"], status["bridge"]["readings"]["acknowledged_seq"]
    alarms = "; ".join(view["standing"]) or "none"
    return (
        f"plant time {view['plant_time']}: {buffer['readings']:,} readings and {buffer['events']:,} events written "
        f"down, {sent:,} readings acknowledged by the cloud; alarms: {alarms}"
    )
