"""The commands `plantward buffer ...`: they look after the log's file, on this machine or on another."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from appliance.buffer.buffer import Buffer
from appliance.buffer.renewal import renew
from appliance.buffer.salvage import Report, cursors, forget_cursor, last_numbers, pieces
from appliance.buffer.schema import StoreError
from appliance.buffer.viewing import viewed
from appliance.buffer.wal import mended
from appliance.contract.reading import Reading, Stream, message_id
from appliance.folder import FolderError, FolderInUseError, owned

app = typer.Typer(help="Look after the log's file: check, export, import, repair.", no_args_is_help=True)
FAILED, WRONG_USAGE = 1, 2
IMPORT_ENTRIES = 5_000

FileArgument = Annotated[Path, typer.Argument(help="The log: buffer.db of the plant's folder, or a copy of it.")]
RootOption = Annotated[str, typer.Option(help="The root of the namespace, below which gaps are said.")]


@app.command()
def check(file: FileArgument) -> None:
    """Read every block and chunk; say what is there, what is missing, and what is damaged."""
    report = Report()
    with _mistakes(), _view(file, report) as view:
        for _ in pieces(view, report):
            pass
    _tell(report)
    if report.faults or any(report.missing(stream) for stream in Stream):
        raise typer.Exit(FAILED)


@app.command("export")
def export_entries(
    file: FileArgument, out: Annotated[Path, typer.Argument(help="A file of one JSON object a line.")]
) -> None:
    """Write all that can be read as JSON, an entry a line, with its name in the lake."""
    report, count = Report(), 0
    with _mistakes(), _view(file, report) as view, out.open("w", encoding="utf-8") as lines:
        for piece in pieces(view, report):
            for seq, entry in enumerate(piece.entries, piece.first):
                name = message_id(report.plant, report.epoch, piece.stream, seq)
                lines.write(json.dumps({"id": name, "stream": piece.stream, **entry._asdict()}) + "\n")
                count += 1
    typer.echo(f"{count:,} entries written to {out}")
    if report.faults:
        _tell(report)
        raise typer.Exit(FAILED)


@app.command("import")
def import_entries(
    source: Annotated[Path, typer.Argument(help="A file that `export` has written.")],
    file: FileArgument,
    plant: Annotated[str, typer.Option(help="The plant the log belongs to.")],
) -> None:
    """Append exported entries to a log that no appliance is using; they get new numbers there."""
    with _mistakes(), owned(file.parent):
        count = asyncio.run(_imported(source, file, plant))
    typer.echo(f"{count:,} entries appended to {file}")


@app.command()
def repair(file: FileArgument, root: RootOption = "acme") -> None:
    """Set the file aside, and make a new one, of a new epoch, of all that can be read."""
    with _mistakes(), owned(_existing(file).parent):
        mended(file)  # Before anything opens the database and takes damage in its write-ahead log for the end.
        report = Report()
        next(iter(pieces(file, report)), None)
        if not report.plant:
            raise FolderError(f"{file} does not say whose it is; start the appliance, it goes on with what is left")
        report, aside = asyncio.run(renew(file, report.plant, root))
    _tell(report)
    typer.echo(f"{file} is a new log of a new epoch; the old one is kept as {aside.name}")


@app.command("cursors")
def list_cursors(
    file: FileArgument, forget: Annotated[str, typer.Option(help="Remove the cursors of this name.")] = ""
) -> None:
    """Say how far each follower of the log has come; or remove one that is no more."""
    with _mistakes():
        if forget:
            with owned(_existing(file).parent):
                count = forget_cursor(file, forget)
            if not count:
                raise FolderError(f"{file} has no cursor {forget!r}; without --forget the command lists them")
            typer.echo(f"{forget} is forgotten; should it follow again, it begins at the front")
        with _view(file, Report()) as view:
            lasts, found = last_numbers(view), cursors(view)
        for name, stream, seq, _ in found:
            typer.echo(f"{name}: {stream} up to {seq:,}, {lasts[stream] - seq:,} wait for it")


async def _imported(source: Path, file: Path, plant: str) -> int:
    count = 0
    async with Buffer.open(file, plant) as buffer:
        with source.open(encoding="utf-8") as lines:
            while group := list(islice(lines, IMPORT_ENTRIES)):
                entries: dict[Stream, list[Reading]] = {stream: [] for stream in Stream}
                for line in group:
                    fields = json.loads(line)
                    fields.pop("id")
                    entries[Stream(fields.pop("stream"))].append(Reading(**fields))
                for stream, of_stream in entries.items():
                    if of_stream:
                        await buffer.append(of_stream, stream)
                count += len(group)
    return count


def _tell(report: Report) -> None:
    typer.echo(f"plant {report.plant or 'unknown'}, epoch {report.epoch}")
    for stream in Stream:
        typer.echo(f"{stream}: {report.entries[stream]:,} entries up to number {report.last[stream]:,}")
        for first, last in report.missing(stream):
            typer.echo(f"  not there, and no gap says why: {first:,} to {last:,}")
        for first, last in report.explained[stream]:
            typer.echo(f"  dropped, as a gap says: {first:,} to {last:,}")
    for fault in report.faults:
        typer.echo(f"damaged: {fault}", err=True)


@contextmanager
def _view(file: Path, report: Report) -> Iterator[Path]:
    """The log itself while an appliance is at work on it, otherwise a view of it: a look changes nothing."""
    with ExitStack() as stack:
        try:
            stack.enter_context(owned(_existing(file).parent))
        except FolderInUseError:
            yield file
            return
        except FolderError:
            pass  # Nobody can write there, so nobody is at work.
        view, damage = stack.enter_context(viewed(file))
        if damage:
            report.faults.append(damage)
        yield view


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FolderError(f"{file} does not exist; name the buffer.db of a plant's folder, or a copy of it")
    return file


@contextmanager
def _mistakes() -> Iterator[None]:
    """What the user can mend is one clear line, and exit code 2."""
    try:
        yield
    except (FolderError, StoreError, OSError, KeyError, TypeError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WRONG_USAGE) from error
