"""The scenarios: each is a page of story about one thing that goes wrong, and leaves the account to be closed."""

import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chaos.line import Weather
from chaos.world import World
from processes import until

from appliance.contract.envelope_file import SUFFIX

IN_FLIGHT: Final = 4
ALWAYS: Final = 1_000_000_000
PAGE_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of it: rounds of the fault, and how many seconds a fault lasts that lasts."""

    rounds: int
    lasts_s: float
    notes: dict[str, Any] = field(default_factory=dict)
    """What the scenario has to say beside the account."""


@contextmanager
def publishing(world: World, rate: float) -> Iterator[None]:
    """A machine publishes for as long as the block lasts, and is answered to the last reading."""
    world.publisher.start(rate)
    yield
    world.publisher.quiet(120)


def starts_without_a_cloud(world: World, chance: random.Random, effort: Effort) -> None:
    """The plant comes up with no hub to speak to, answers its machines, and sends all of it later."""
    for _ in range(effort.rounds):
        for name in ("plant", "hub", "cloud"):
            world.kill(name)
        world.start("plant")
        before = len(world.publisher.diary.acknowledged)
        with publishing(world, 500):
            time.sleep(effort.lasts_s)
        assert len(world.publisher.diary.acknowledged) - before > 100, "the plant waits for its cloud"
        assert world.status()["bridge"]["readings"]["backlog"] > 100
        world.start("hub", "cloud")
        world.settled()


def cut_before_the_answer(world: World, chance: random.Random, effort: Effort) -> None:
    """The hub stores and the line is cut before it says so: what is sent again stands once."""
    before = world.duplicates()
    with publishing(world, 500):
        for _ in range(effort.rounds):
            for fault in ("drop_after_store", "drop_before_store", "detach", "released"):
                world.faults(**{fault: 1})
                until(lambda fault=fault: not world.fault_left(fault), f"{fault} has struck", 60)
            world.cut()
            time.sleep(chance.uniform(0, 0.3))
    world.settled()
    effort.notes["duplicates"] = world.duplicates() - before
    assert effort.notes["duplicates"] >= effort.rounds, "nothing was delivered twice, so nothing was proved"


def mute_peer(world: World, chance: random.Random, effort: Effort) -> None:
    """The hub's connections stand and nothing is said on them."""
    with publishing(world, 300):
        for _ in range(effort.rounds):
            until(lambda: world.status()["bridge"]["link"] == "up", "the link", 120)
            world.faults(black_hole=True)
            until(lambda: world.status()["bridge"]["link"] != "up", "the plant to notice", 200)
            time.sleep(effort.lasts_s)
            world.faults()
    world.settled()


def busy_hub(world: World, chance: random.Random, effort: Effort) -> None:
    """The hub refuses everything as throttled; the plant goes on, and knows how much waits."""
    with publishing(world, 300):
        for _ in range(effort.rounds):
            world.faults(server_busy=ALWAYS)
            until(lambda: world.fault_left("server_busy") < ALWAYS, "a refusal", 60)
            before = len(world.publisher.diary.acknowledged)
            time.sleep(effort.lasts_s)
            assert len(world.publisher.diary.acknowledged) - before > 100 * effort.lasts_s
            effort.notes["refused"] = ALWAYS - world.fault_left("server_busy")
            world.faults()
    world.settled()


def bad_line(world: World, chance: random.Random, effort: Effort) -> None:
    """30 % of the segments are lost and the rest is late, now and then the line is cut; then it is clean."""
    with publishing(world, 300):
        for _ in range(effort.rounds):
            world.line.weather = Weather(delay_s=min(2.0, effort.lasts_s / 20), loss=0.3, cut=0.03)
            time.sleep(effort.lasts_s)
            world.line.weather = Weather()
    world.settled()
    effort.notes["stalls"], effort.notes["cuts"] = world.line.stalls, world.line.cuts
    assert world.line.stalls > 0


def restarts_in_the_drain(world: World, chance: random.Random, effort: Effort) -> None:
    """Stopped and killed while it sends what has waited, the plant sends again at most what was under way."""
    for _ in range(effort.rounds):
        before = world.duplicates()
        world.kill("hub")
        world.publisher.start(4_000, 6_000)
        world.publisher.finish()
        world.start("hub")
        world.faults(latency_s=0.4)
        for end in (world.stop, world.kill):
            sent = world.acknowledged_by_hub()
            until(lambda sent=sent: world.acknowledged_by_hub() > sent, "the drain to begin", 120)
            waits = world.status()["bridge"]["readings"]["backlog"]
            assert waits, "all had been sent before the restart"
            end("plant")
            world.start("plant")
        world.faults()
        world.settled()
        again = world.duplicates() - before
        effort.notes["sent again"] = max(again, effort.notes.get("sent again", 0))
        assert again <= 2 * IN_FLIGHT, f"{again} envelopes were sent again, {IN_FLIGHT} were under way each time"


def killed_at_random(world: World, chance: random.Random, effort: Effort) -> None:
    """kill -9 of the plant, the hub and the companion during ingest, sealing, draining and retention."""
    names = ("plant", "plant", "plant", "hub", "cloud")
    for start in range(0, effort.rounds, 20):
        world.publisher.start(400)
        for _ in range(min(20, effort.rounds - start)):
            name = chance.choice(names)
            time.sleep(chance.uniform(0.0, 1.2))
            world.kill(name)
            time.sleep(chance.choice((0.0, 0.0, 1.0)))
            world.start(name)
            effort.notes[name] = effort.notes.get(name, 0) + 1
        world.publisher.quiet()
        found = world.settled()
    effort.notes.update({"drops": world.drops(), "not in silver, named by gaps": found.gaps})
    assert world.drops(), "nothing was dropped, so retention was not tried"


def full_disk(world: World, chance: random.Random, effort: Effort) -> None:
    """Somebody fills the disk to the last byte for a while. Nobody is promised what is not written down."""
    filler, plant = world.data / "somebody-else", world.programs["plant"].process
    for _ in range(effort.rounds):
        with publishing(world, 500):
            time.sleep(1)
            ends, refused = time.monotonic() + effort.lasts_s, 0
            with filler.open("wb", buffering=0) as file:
                while time.monotonic() < ends:  # Whatever the plant gives up is taken too.
                    try:
                        file.write(bytes(PAGE_BYTES))
                    except OSError:
                        refused += 1
                        time.sleep(0.02)
            assert refused > 10, "the disk was never full"
            assert plant.poll() is None, world.programs["plant"].tail()
            before = len(world.publisher.diary.acknowledged)
            filler.unlink()
            until(lambda before=before: len(world.publisher.diary.acknowledged) > before + 500, "answers again", 60)
        world.settled()
    assert plant.poll() is None, world.programs["plant"].tail()
    said = (world.folder / "plant.log").read_text("utf-8", "replace")
    effort.notes["full"] = said.count("cannot write (database or disk is full)")
    assert effort.notes["full"], "the log never felt it"


def flipped_bytes(world: World, chance: random.Random, effort: Effort) -> None:
    """Bytes of the log's file change while the plant is off: it starts, and what is lost has a name."""
    for number in range(effort.rounds):
        place = ("head", "middle", "tail", "wal")[number % 4]
        epoch = world.status()["buffer"]["epoch"]
        world.publisher.start(2_000, 2_000)
        world.publisher.finish()
        world.settled()
        world.kill("hub")
        world.publisher.start(2_000, 2_000)
        world.publisher.finish()
        time.sleep(0.5)
        world.kill("plant")
        damage(world.data / "buffer.db", place, chance)
        world.start("plant", "hub")
        world.publisher.start(500, 200)
        world.publisher.finish()
        found = world.settled()
        is_new = world.status()["buffer"]["epoch"] != epoch
        effort.notes[f"{place} {number}"] = f"{'new' if is_new else 'same'} epoch, {found.lost} lost so far"


def damage(path: Path, place: str, chance: random.Random) -> None:
    """Flip bytes of a file that nobody has open; but for the write-ahead log, after an orderly end of SQLite."""
    if place == "wal":
        path = Path(f"{path}-wal")
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    size = len(data)
    spans = {
        "head": (0, 100),
        "middle": (size * 3 // 10, size * 7 // 10),
        "tail": (size - PAGE_BYTES, size),
        "wal": (size * 3 // 10, size * 7 // 10),
    }
    for _ in range(8):
        data[chance.randrange(*spans[place])] ^= chance.randrange(1, 256)
    path.write_bytes(data)


def expired_token(world: World, chance: random.Random, effort: Effort) -> None:
    """The plant's clock is five days late, so its tokens have ended before they are shown; then it is set right."""
    for _ in range(effort.rounds):
        world.shift_clock(-5)
        world.kill("plant")
        world.start("plant")
        with publishing(world, 300):
            until(lambda: world.status()["bridge"]["last_error"], "a refusal", 60)
            sent = world.acknowledged_by_hub()
            time.sleep(effort.lasts_s)
            assert world.acknowledged_by_hub() == sent, "the hub took a token that has ended"
            world.shift_clock(0)
            time.sleep(1)
        found = world.settled()
        assert found.gaps == 0


def stepped_clock(world: World, chance: random.Random, effort: Effort) -> None:
    """The wall clock goes back five days and forward a year while the plant runs: nothing is dropped, order stays."""
    with publishing(world, 300):
        for days in (-5, 365, -5, 0) * effort.rounds:
            world.shift_clock(days)
            time.sleep(effort.lasts_s)
    found = world.settled()
    assert found.gaps == 0, "something was dropped by age"


def carried_twice(world: World, chance: random.Random, effort: Effort) -> None:
    """Envelopes as files, carried by hand: some come twice under other names, some late, in any order."""
    folder, copies = world.folder / "envelopes", 0
    with publishing(world, 500):
        for _ in range(effort.rounds):
            time.sleep(effort.lasts_s)
            files = sorted(folder.rglob(f"*{SUFFIX}"))
            for file in chance.sample(files, min(8, len(files))):
                copies += 1
                shutil.copyfile(file, folder / f"stick-{copies}{SUFFIX}")
            late = chance.choice(files)
            kept = world.folder / "late"
            late.rename(kept)
            time.sleep(0.5)
            kept.rename(folder / f"late-{copies}{SUFFIX}")
    world.settled()
    effort.notes["copies"] = copies
    assert copies >= effort.rounds
