"""The command line `plantward-cloud`. What is heavy is imported by the command that needs it."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from cloud_sync.config import Config

FAILED, WRONG_USE = 1, 2

app = typer.Typer(
    name="plantward-cloud",
    help="Drain what plants send into the lake, train the models, and stand in for the cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration, cloud_sync.toml.")]


@app.command()
def run(
    config: ConfigFile = Path("cloud_sync.toml"),
    once: Annotated[bool, typer.Option("--once", help="One pass through all layers, then end.")] = False,
) -> None:
    """Drain, silver and gold, one behind the other, until stopped."""
    settings = _config(config)
    from cloud_sync import service

    _until_done(service.single_pass(settings) if once else service.serve(settings))


@app.command()
def drain(config: ConfigFile = Path("cloud_sync.toml")) -> None:
    """Take what the hub has now into bronze."""
    settings = _config(config)
    from cloud_sync.drain import Drain
    from cloud_sync.lake import Lake
    from cloud_sync.service import source_of

    async def drained() -> None:
        lake = Lake(Path(settings.lake.path))
        events = await Drain(lake, source_of(settings.hub, lake)).once()
        typer.echo(f"{events:,} new envelopes in bronze")

    _until_done(drained())


@app.command()
def silver(config: ConfigFile = Path("cloud_sync.toml")) -> None:
    """Open what bronze has that silver has not."""
    settings = _config(config)
    from cloud_sync.lake import Lake
    from cloud_sync.silver import Silver

    passed = Silver(Lake(Path(settings.lake.path))).run_once()
    typer.echo(
        f"{passed.envelopes:,} envelopes: {passed.readings:,} readings and {passed.events:,} events new, "
        f"{passed.repeated:,} repeated, {passed.dead:,} dead letters"
    )


@app.command()
def gold(config: ConfigFile = Path("cloud_sync.toml")) -> None:
    """Make the days anew that silver has touched."""
    settings = _config(config)
    from cloud_sync.gold import Gold
    from cloud_sync.lake import Lake

    days = Gold(Lake(Path(settings.lake.path)), settings.gold.threshold).refresh()
    typer.echo(f"{days:,} days made anew")


@app.command()
def reconcile(
    config: ConfigFile = Path("cloud_sync.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what silver holds of each plant's log, what is missing below the highest number, and what differs."""
    settings = _config(config)
    from cloud_sync import reconciliation
    from cloud_sync.lake import Lake

    found = reconciliation.of(Lake(Path(settings.lake.path)))
    typer.echo(found.to_json() if as_json else found.to_text())
    if not found.is_fine:
        raise typer.Exit(FAILED)


@app.command()
def emulate(
    data: Annotated[Path, typer.Option(help="The folder that keeps the events.")] = Path("eventhubs"),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 5672,
    hub: Annotated[
        list[str] | None, typer.Option(help="A hub to serve; may be repeated. Without: readings and receipts.")
    ] = None,
    partitions: Annotated[int, typer.Option(min=1, max=32)] = 4,
    websocket_port: Annotated[int | None, typer.Option(min=0, max=65535, help="AMQP over WebSocket too.")] = None,
    cert: Annotated[Path | None, typer.Option(exists=True, help="The certificate for TLS, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(exists=True, help="Its key, PEM.")] = None,
    throughput_units: Annotated[int, typer.Option(min=0, max=40, help="Throttle as Azure does; 0: never.")] = 0,
    access_key: Annotated[str, typer.Option(help="Take only tokens and passwords made with this key.")] = "",
    jwt_issuer: Annotated[str, typer.Option(help="Take only JWTs that name this issuer.")] = "",
    faults_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Switch faults over HTTP.")] = None,
) -> None:
    """Stand in for Event Hubs on loopback."""
    from cloud_sync.emulator.command import Doors
    from cloud_sync.emulator.command import emulate as serve
    from cloud_sync.emulator.eventhubs import HUBS
    from cloud_sync.emulator.tokens import Trust

    doors, trust = Doors(websocket_port, faults_port, cert, key), Trust(access_key, jwt_issuer)
    _until_done(serve(data, port, tuple(hub or HUBS), partitions, doors, trust, throughput_units))


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535)] = 4840,
    data: Annotated[Path, typer.Option(help="The folder that keeps the plant's state.")] = Path("plant"),
    speed: Annotated[float, typer.Option(min=0.01, help="Plant seconds in one second.")] = 60.0,
    seed: int = 1,
    equipment_file: Annotated[Path | None, typer.Option(help="Where the equipment is written as TOML.")] = None,
) -> None:
    """Stand in for the machines, behind a real OPC UA server."""
    from cloud_sync.simulation.server import serve

    _until_done(serve(port=port, data=data, speed=speed, seed=seed, equipment_file=equipment_file))


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="The file that takes the model.")] = Path("model.onnx"),
    seed: int = 1,
) -> None:
    """Train the model and write it as ONNX."""
    from cloud_sync.training.train import train as fit

    fit(out=out, seed=seed)


def main() -> None:
    """The console script."""
    level = os.environ.get("PLANTWARD_LOG", "INFO").upper()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("azure").setLevel(logging.ERROR)
    app()


def _config(path: Path) -> "Config":
    from cloud_sync.config import Config, ConfigError

    try:
        return Config.load(path)
    except ConfigError as error:
        _end(str(error), WRONG_USE)


def _until_done(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, or until SIGTERM or SIGINT; expected errors end the program with one line.

    What cannot start as it was asked to (a taken port, a foreign folder) is wrong usage.
    """
    from cloud_sync.source import SourceError

    async def until_stopped() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
        try:
            await work
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    try:
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(until_stopped())
    except SourceError as error:
        _end(str(error), FAILED)
    except (OSError, ValueError) as error:
        _end(str(error), WRONG_USE)


def _end(text: str, code: int) -> NoReturn:
    typer.echo(f"plantward-cloud: {text}", err=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
