"""The command `plantward`."""

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance import __version__, cli_buffer, cli_ledger, cli_rehearsal
from appliance.config import Config, ConfigError, address, load, schema
from appliance.folder import FolderError, owned
from appliance.logs import start_logging
from appliance.rehearsal.report_file import ReportError
from appliance.rehearsal.signing import SigningError

app = typer.Typer(
    name="plantward",
    help="The plant appliance: every sample accounted for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_buffer.app, name="buffer")
FAILED, WRONG_USAGE = 1, 2
STATUS_TIMEOUT_S = 5.0

DataOption = Annotated[Path, typer.Option("--data", help="The folder that holds everything the plant keeps.")]
ConfigOption = Annotated[Path, typer.Option("--config", help="The plant's configuration.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command; a user's mistake is one line and exit code 2."""
    app()


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"plantward {__version__}")
        raise typer.Exit


@app.command()
def demo(
    data: DataOption = Path("plantward-data"),
    http_port: Annotated[int, typer.Option(help="The page.")] = 8080,
    mqtt_port: Annotated[int, typer.Option(help="The UNS broker.")] = 1883,
    amqp_port: Annotated[int, typer.Option(help="The Event Hubs emulator.")] = 5672,
    opcua_port: Annotated[int, typer.Option(help="The machines' OPC UA server.")] = 4840,
    speed: Annotated[float, typer.Option(min=0.1, max=1000, help="Plant time runs this much faster.")] = 60,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 1,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """A whole plant and a local cloud on loopback, from machine to lake."""
    from appliance import demo as whole_plant

    ports = whole_plant.Ports(http=http_port, mqtt=mqtt_port, amqp=amqp_port, opcua=opcua_port)
    with _usage_errors():
        whole_plant.prepare(data, ports)
        with owned(data, "demo.lock"):
            asyncio.run(whole_plant.run(data.resolve(), ports, speed, seed, browser, typer.echo))


@app.command()
def run(config: ConfigOption = Path("plant.toml")) -> None:
    """Run the appliance until it is asked to stop."""
    from appliance import assembly
    from appliance import main as appliance
    from appliance.buffer.damage import again_when_damaged

    with _usage_errors():
        settings = load(config)
        start_logging(settings.log.level)
        with owned(settings.plant.data):
            assembly.check_ports(settings)
            again_when_damaged(lambda: asyncio.run(appliance.main(settings)))


@app.command()
def check(
    config: ConfigOption = Path("plant.toml"),
    schema_only: Annotated[bool, typer.Option("--schema", help="Print all keys as JSON Schema.")] = False,
) -> None:
    """Say what is wrong with a configuration, with line and hint."""
    from appliance.bridge import identity

    if schema_only:
        typer.echo(json.dumps(schema(), indent=2))
        return
    with _usage_errors():
        settings = load(config)
        if not settings.plant.data.is_dir():
            raise FolderError(f"the folder {settings.plant.data} of [plant] data does not exist; create it")
        if settings.uplink.kind == "eventhubs":
            identity.check(settings.uplink)
    typer.echo(
        f"{config}: fine; plant {settings.plant.name}, {len(settings.source)} sources, "
        f"{len(settings.equipment)} equipment, uplink {settings.uplink.kind}"
    )


@app.command()
def status(
    config: Annotated[Path | None, typer.Option("--config", help="The plant's configuration.")] = None,
    data: DataOption = Path("plantward-data"),
    as_json: JsonOption = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="The ledger: what became of every reading.")] = False,
    hours: Annotated[float, typer.Option(min=0.1, max=24, help="How far back the ledger is asked for.")] = 24,
) -> None:
    """What every part of the running appliance says of itself."""
    with _usage_errors():
        settings = load(config or data / "plant.toml")
    answer = _ask(settings, f"/api/ledger?hours={hours:g}" if ledger else "/api/status")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        for line in cli_ledger.lines(answer, hours) if ledger else _lines(answer):
            typer.echo(line)


@app.command("rehearse-outage")
def rehearse_outage(
    minutes: Annotated[int, typer.Option(min=1, max=240, help="How long the cloud link is cut.")] = 30,
    config: Annotated[Path | None, typer.Option("--config", help="The plant's configuration.")] = None,
    data: DataOption = Path("plantward-data"),
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Break off the one that runs, and restore the link.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Cut the cloud link in software, restore it, and have the ledger prove that nothing got lost."""
    with _usage_errors():
        settings = load(config or data / "plant.toml")
    host, port = address(settings.http.bind)
    base_url = f"http://{host}:{port}"
    try:
        if cancel:
            answer = cli_rehearsal.call(f"{base_url}/api/rehearsal/cancel", {})
        else:
            answer = cli_rehearsal.rehearse(base_url, minutes, lambda line: typer.echo(line, err=as_json))
    except cli_rehearsal.RehearsalFailed as error:
        _fail(str(error), FAILED)
    except OSError as error:
        _fail(f"plant {settings.plant.name} does not answer on {settings.http.bind} ({error}); is it running?", FAILED)
    except KeyboardInterrupt:
        _fail("the rehearsal goes on without this command; --cancel breaks it off", FAILED)
    report = settings.plant.data / "rehearsals" / answer["report"]
    lines = [f"{answer['verdict']}: {answer['sentence']}", f"report: {report}"]
    typer.echo(json.dumps(answer | {"report": str(report)}, indent=2) if as_json else "\n".join(lines))
    if answer["verdict"] != "PASSED" and not cancel:
        raise typer.Exit(FAILED)


@app.command("verify-report")
def verify_report(
    file: Annotated[Path, typer.Argument(help="A report of an outage rehearsal.")],
    key: Annotated[
        Path | None, typer.Option(help="The plant's keys/plant-signing.pub.pem, got from the plant.")
    ] = None,
) -> None:
    """Say whether a report shows what the plant has signed."""
    try:
        report = cli_rehearsal.verify(file, key)
    except SigningError as error:
        _fail(str(error), WRONG_USAGE)
    except ReportError as error:
        _fail(f"NOT VALID: {error}", FAILED)
    typer.echo(f"valid: plant {report.facts['plant']}, {report.facts['verdict']}: {report.facts['sentence']}")
    whose = "the key that was given" if key else "a key to compare with the plant's"
    typer.echo(f"signed by {whose}, fingerprint {report.fingerprint}")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file of recorded values.")],
    mqtt: Annotated[str, typer.Option(help="HOST:PORT of the broker.")] = "127.0.0.1:1883",
    topic_template: Annotated[str, typer.Option(help="Such as acme/pdm/hall/line1/cell1/m{machineID}/{column}.")] = "",
    time_column: Annotated[str, typer.Option(help="The column that holds the recorded time.")] = "time",
    speed: Annotated[float, typer.Option(min=0, help="N times as fast as recorded; 0: as the broker accepts.")] = 0,
) -> None:
    """Publish recorded data on the UNS, at a speed; the recorded time becomes the source time."""
    from rich.progress import Progress

    from appliance import replay as recorded

    host, _, port = mqtt.rpartition(":")
    if not host or not port.isdecimal():
        _fail(f"--mqtt {mqtt!r} is not HOST:PORT; write for example 127.0.0.1:1883", WRONG_USAGE)
    with Progress(disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("acknowledged", total=None)
        try:
            count = asyncio.run(
                recorded.replay(
                    file, host, int(port), topic_template, time_column, speed,
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
            )  # fmt: skip
        except recorded.ReplayError as error:
            bar.stop()
            _fail(str(error), FAILED)
        except KeyboardInterrupt:
            bar.stop()
            _fail("stopped", FAILED)
    typer.echo(f"{count:,} values of {file.name} published and acknowledged")


@contextmanager
def _usage_errors() -> Iterator[None]:
    """What the user can mend is one clear line each, and exit code 2."""
    from appliance.bridge.identity import IdentityError
    from appliance.buffer.store import StoreError
    from appliance.inference.model import ModelError

    try:
        yield
    except (ConfigError, FolderError, IdentityError, StoreError, ModelError) as error:
        _fail(str(error), WRONG_USAGE)


def _fail(text: str, code: int) -> None:
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _ask(settings: Config, path: str) -> dict[str, Any]:
    host, port = address(settings.http.bind)
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=STATUS_TIMEOUT_S) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            _fail(f"plant {settings.plant.name} answers {error.code} to {path}: {error.read(500).decode()}", FAILED)
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        _fail(f"plant {settings.plant.name} does not answer on {settings.http.bind} ({error}); is it running?", FAILED)
    return answer


def _lines(answer: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in answer.items():
        if isinstance(value, dict):
            yield f"{indent}{key}"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key.replace('_', ' ')}: {f'{value:,}' if type(value) is int else value}"
