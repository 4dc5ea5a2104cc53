"""The outage rehearsal: its phases with the time passed in, what it refuses, what its report says and withstands."""

import re
import sqlite3
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from appliance.bridge.link import LinkState
from appliance.bridge.pacing import Clock
from appliance.bridge.status import BridgeStatus, LaneStatus, StreamStatus
from appliance.contract.ledger import WINDOW_US
from appliance.contract.reading import Stream
from appliance.contract.sent import Sent
from appliance.ledger.accounts import Account, Window, WindowState
from appliance.rehearsal.rates import Rates, drain_s, full_s
from appliance.rehearsal.rehearsal import CONFIRM_S_MAX, RECEIPT_S_MAX, STALL_S, Rehearsal
from appliance.rehearsal.report import Course, Verdict, concerned, covers, facts_of, judged
from appliance.rehearsal.report_file import ReportError, Shelf, signed, verified
from appliance.rehearsal.seams import Phase, Refused, Room
from appliance.rehearsal.signing import Signer, SigningError, public_key_of

NOON_US = 1_790_000_100_000_000 // WINDOW_US * WINDOW_US


def window(
    number: int, first: int, last: int, state: WindowState = WindowState.GREEN, dropped: int = 0, missing: int = 0
) -> Window:
    """A window of one pump; with `missing`, its last numbers are."""
    count = last - first + 1
    in_lake = count - dropped - missing
    account = Account("a/n/u/b/f/pmp-1", count, count, count, count - dropped, in_lake, {"size": dropped}, missing)
    lost = ((last - missing + 1, last),) if missing else ()
    start_us = NOON_US + number * WINDOW_US
    return Window(7, start_us, first, last, state, False, f"{number:016x}", lost, (account,))


@dataclass
class World:
    """A plant, its link and its cloud, as the rehearsal sees them; ten readings come in each second."""

    now_s: float = 0.0
    set_by_s: float = 0.0
    link: LinkState = LinkState.UP
    reason: str = ""
    last: int = 1_000
    acknowledged: int = 1_000
    windows_known: list[Window] = field(default_factory=list)
    receipt_age_s: float | None = None
    is_full: bool = False
    days_to_full: float | None = 40.0
    size_max_bytes: int = 10_000_000
    out_per_s: int = 100
    plant: str = "northfield"
    epoch: int = 7
    error: Exception | None = None

    def last_of(self, stream: Stream = Stream.READINGS) -> int:
        return self.last

    def hold(self, reason: str) -> None:
        self.reason, self.link = reason, LinkState.DOWN

    def release(self) -> None:
        self.reason = ""

    def sent(self, stream: Stream) -> Sent:
        return Sent(((1, self.acknowledged),), ())

    def bridge_status(self) -> BridgeStatus:
        lanes = {"live": LaneStatus(10, 1_000, 4_000)}
        readings = StreamStatus(self.acknowledged, self.last - self.acknowledged)
        return BridgeStatus(
            "folder", self.link, 0, None, 0, 0, 0, 0, 0, None, StreamStatus(0, 0), readings, lanes, self.reason
        )

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        if self.error:
            raise self.error
        return [each for each in self.windows_known if from_us <= each.start_us < to_us]


class Log:
    def __init__(self, world: World) -> None:
        self.plant, self.epoch, self.last = world.plant, world.epoch, world.last_of


class Link:
    def __init__(self, world: World) -> None:
        self.hold, self.release, self.sent, self.status = world.hold, world.release, world.sent, world.bridge_status


@dataclass
class Books:
    world: World

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        return await self.world.windows(from_us, to_us)

    def status(self) -> World:
        return self.world


async def rest(seconds: float) -> None:
    """The clock's sleep, which these tests do not use: they call each turn themselves."""


def rehearsal_of(world: World, path: Path, with_ledger: bool = True) -> Rehearsal:
    clock = Clock(lambda: NOON_US + round((world.now_s + world.set_by_s) * 1e6), lambda: world.now_s, rest)
    room = lambda: Room(world.size_max_bytes, world.days_to_full, world.is_full)  # noqa: E731
    return Rehearsal(Log(world), room, Link(world), Books(world) if with_ledger else None, path, "1.0", clock=clock)


async def pass_time(rehearsal: Rehearsal, world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.now_s += 1
        world.last += 10
        if not world.reason and world.link is not None:
            world.acknowledged = min(world.last, world.acknowledged + world.out_per_s)
            world.link = LinkState.UP
        if world.receipt_age_s is not None:
            world.receipt_age_s += 1
        await rehearsal.turn()


async def test_an_outage_is_rehearsed_from_the_cut_to_the_clouds_word(tmp_path: Path) -> None:
    """The link is held, released after the minutes, drained, confirmed; the report says PASSED with all the figures."""
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    await pass_time(rehearsal, world, 20)
    await rehearsal.start(2, "a test")
    assert (world.reason, rehearsal.status().phase) == ("outage rehearsal", Phase.CUT)
    await pass_time(rehearsal, world, 60)
    said = rehearsal.status()
    assert (said.readings, said.waiting, said.left_s, said.readings_per_s) == (600, 600, 60, 10.0)
    assert said.full_s == round((10_000_000 - 600 * 4) / 40)
    await pass_time(rehearsal, world, 60)
    assert rehearsal.status().phase is Phase.DRAINING and not world.reason
    await pass_time(rehearsal, world, 20)
    assert rehearsal.status().phase is Phase.CONFIRMING
    world.windows_known = [window(0, 1_000, 2_600, WindowState.WAITING)]
    await pass_time(rehearsal, world, 60)
    assert (rehearsal.status().phase, rehearsal.status().windows) == (Phase.CONFIRMING, 1)
    world.windows_known = [window(0, 1_000, 2_600)]
    await pass_time(rehearsal, world, 6)
    said = rehearsal.status()
    assert (said.phase, said.verdict) == (Phase.DONE, "PASSED")
    facts = verified(rehearsal.shelf.text(said.report) or "").facts
    assert (facts["first"], facts["last"], facts["count"]) == (1_201, 2_400, 1_200)
    assert (facts["length_s"], facts["peak_waiting"], facts["live_s"]) == (120.0, 1_200, 13.0)
    assert facts["totals"]["produced"] == facts["totals"]["in_lake"] == 1_601
    assert facts["totals"]["difference"] == 0 and facts["drain_s"] == 12.0
    assert facts["windows"][0]["digest"] == "0" * 16
    assert stat.S_IMODE((tmp_path / "keys" / "plant-signing.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("step_s", [-86_400, 86_400])
async def test_a_wall_clock_that_is_set_amid_a_rehearsal_changes_no_length(tmp_path: Path, step_s: int) -> None:
    """The windows are found where the new time has put them, and the report says how long it really took."""
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    await pass_time(rehearsal, world, 20)
    await rehearsal.start(2, "a test")
    await pass_time(rehearsal, world, 60)
    world.set_by_s = step_s
    await pass_time(rehearsal, world, 80)
    world.windows_known = [replace(window(0, 1_000, 2_600), start_us=NOON_US + step_s * 1_000_000)]
    await pass_time(rehearsal, world, 6)
    facts = verified(rehearsal.shelf.text(rehearsal.status().report) or "").facts
    assert facts["verdict"] == "PASSED"
    assert (facts["length_s"], facts["drain_s"], facts["live_s"]) == (120.0, 12.0, 13.0)


async def test_the_next_forecast_knows_how_fast_the_last_one_drained(tmp_path: Path) -> None:
    """The best rate of leaving is in the report, so a new process has it."""
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    await rehearsal.start(1, "a test")
    await pass_time(rehearsal, world, 90)
    world.windows_known = [window(0, 900, 9_999)]
    await pass_time(rehearsal, world, 10)
    assert rehearsal.status().phase is Phase.DONE
    later = rehearsal_of(world, tmp_path)
    await later._resume()
    await pass_time(later, world, 10)
    await later.start(10, "a test")
    drain = later.status().drain_s
    assert drain is not None and 55 < drain < 85  # 6,000 readings at 100/s less the 10/s that come in.


@pytest.mark.parametrize(
    ("change", "minutes", "reason"),
    [
        ({}, 0, "takes 1 to 240 minutes"),
        ({}, 241, "takes 1 to 240 minutes"),
        ({}, float("nan"), "takes 1 to 240 minutes"),
        ({"link": LinkState.DOWN, "reason": "no route"}, 5, "the link is down already (no route)"),
        ({"link": LinkState.UNTRIED}, 5, "nothing has been acknowledged yet"),
        ({"is_full": True}, 5, "the log is full"),
        ({"days_to_full": 0.01}, 30, "the log would be full in 14 min"),
        ({"size_max_bytes": 40_000}, 30, "the log would be full in 17 min"),
    ],
)
async def test_what_cannot_be_done_now_is_refused_with_the_reason(tmp_path: Path, change, minutes, reason) -> None:
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    await pass_time(rehearsal, world, 10)
    for name, value in change.items():
        setattr(world, name, value)
    with pytest.raises(Refused, match=re.escape(reason)):
        await rehearsal.start(minutes, "a test")
    assert rehearsal.status().phase is Phase.IDLE and world.reason in ("", "no route")


async def test_only_one_runs_and_none_without_an_uplink(tmp_path: Path) -> None:
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    await rehearsal.start(5, "a test")
    with pytest.raises(Refused, match="runs already"):
        await rehearsal.start(5, "a test")
    alone = Rehearsal(Log(world), lambda: Room(1, None, False), None, None, tmp_path, "1.0")
    with pytest.raises(Refused, match="no uplink"):
        await alone.start(5, "a test")
    await alone.turn()
    assert alone.status().waiting == 0


async def test_a_cancelled_rehearsal_gives_the_link_back_at_once(tmp_path: Path) -> None:
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    with pytest.raises(Refused, match="no rehearsal runs"):
        await rehearsal.cancel("a test")
    await rehearsal.start(5, "a test")
    await pass_time(rehearsal, world, 30)
    await rehearsal.cancel("the operator")
    assert (world.reason, rehearsal.status().phase) == ("", Phase.BROKEN_OFF)
    [shelved] = rehearsal.shelf.list()
    assert (shelved.verdict, shelved.sentence, shelved.count) == ("BROKEN OFF", "Broken off by the operator.", 300)
    assert rehearsal.shelf.noted() is None
    assert (rehearsal.shelf.text(shelved.name) or "").count("<b>–</b>") == 3  # No window is known: no figure is shown.


async def test_a_restart_frees_the_link_and_records_the_rehearsal_as_broken_off(tmp_path: Path) -> None:
    """The link is held in memory alone; the note on disk tells the next process what there was."""
    world = World()
    before = rehearsal_of(world, tmp_path)
    await before.start(5, "a test")
    await pass_time(before, world, 30)
    world.reason = ""
    after = rehearsal_of(world, tmp_path)
    await after._resume()
    said = after.status()
    assert (said.phase, said.verdict, world.reason) == (Phase.BROKEN_OFF, "BROKEN OFF", "")
    assert "started again" in said.sentence
    again = rehearsal_of(world, tmp_path)
    await again._resume()
    assert again.status().phase is Phase.IDLE
    (tmp_path / "rehearsals" / "running.json").write_text("{damaged")
    await rehearsal_of(world, tmp_path)._resume()
    assert len(again.shelf.names()) == 1


async def test_without_receipts_nothing_is_proven(tmp_path: Path) -> None:
    """All is acknowledged, and the cloud never says what it holds."""
    for with_ledger, note in ((True, "No receipt came"), (False, "No ledger is kept")):
        world = World()
        rehearsal = rehearsal_of(world, tmp_path / note, with_ledger)
        await rehearsal.start(1, "a test")
        await pass_time(rehearsal, world, 60)
        world.windows_known = [window(0, 900, 9_999, WindowState.WAITING)]
        await pass_time(rehearsal, world, round(RECEIPT_S_MAX) + 30)
        assert rehearsal.status().verdict == "NOT PROVEN"
        facts = rehearsal.shelf.newest()
        assert facts is not None and note in facts["notes"][0]


async def test_a_ledger_that_cannot_be_read_ends_in_not_proven(tmp_path: Path) -> None:
    """The rehearsal neither hangs nor fails with it, and the report says what was wrong, once."""
    world = World(error=sqlite3.DatabaseError("database disk image is malformed"))
    rehearsal = rehearsal_of(world, tmp_path)
    await rehearsal.start(1, "a test")
    await pass_time(rehearsal, world, 80 + round(RECEIPT_S_MAX))
    assert rehearsal.status().verdict == "NOT PROVEN" and not world.reason
    facts = rehearsal.shelf.newest()
    assert facts is not None and sum("malformed" in note for note in facts["notes"]) == 1


async def test_what_the_lake_lacks_fails_the_rehearsal_after_it_was_sent_again_in_vain(tmp_path: Path) -> None:
    """Missing numbers are waited for, because the appliance sends them again; in the end they are named."""
    world = World(receipt_age_s=0.0)
    rehearsal = rehearsal_of(world, tmp_path)
    await rehearsal.start(1, "a test")
    await pass_time(rehearsal, world, 60)
    world.windows_known = [window(0, 900, 9_999, WindowState.MISSING, missing=3)]
    await pass_time(rehearsal, world, 600)
    assert rehearsal.status().phase is Phase.CONFIRMING
    world.receipt_age_s = 0.0
    for _ in range(round(CONFIRM_S_MAX) // 60):
        world.receipt_age_s = 0.0
        await pass_time(rehearsal, world, 60)
    said = rehearsal.status()
    assert (said.verdict, said.sentence) == ("FAILED", "3 readings are missing in the lake.")
    assert "Missing: 9997–9999" in (rehearsal.shelf.text(said.report) or "")


async def test_a_link_that_does_not_come_back_fails_the_rehearsal(tmp_path: Path) -> None:
    world = World()
    rehearsal = rehearsal_of(world, tmp_path)
    await rehearsal.start(1, "a test")
    world.out_per_s = 0
    await pass_time(rehearsal, world, 60 + round(STALL_S) + 5)
    said = rehearsal.status()
    assert said.verdict == "FAILED" and "has not acknowledged" in said.sentence


def course(first: int = 1_001, last: int = 1_500) -> Course:
    return Course("northfield", 7, "folder", "a test", 1, NOON_US, first, last, NOON_US + 1, NOON_US + 2)


def test_the_verdict_follows_from_the_windows() -> None:
    _, explained, waiting, missing = WindowState
    cases = [
        ([window(0, 1_000, 1_600)], course(), Verdict.PASSED),
        ([window(0, 1_000, 1_200), window(1, 1_201, 1_600, explained, dropped=5)], course(), Verdict.PASSED),
        ([window(0, 1_000, 1_200), window(1, 1_201, 1_600, waiting)], course(), Verdict.NOT_PROVEN),
        ([window(0, 1_000, 1_200)], course(), Verdict.NOT_PROVEN),
        ([], course(), Verdict.NOT_PROVEN),
        ([], course(1_001, 1_000), Verdict.NOT_PROVEN),
        ([window(0, 1_000, 1_600, missing, missing=2)], course(), Verdict.FAILED),
        ([replace(window(0, 1_000, 1_600, missing), is_differing=True)], course(), Verdict.FAILED),
        ([window(0, 1_000, 1_600)], replace(course(), drained_us=0), Verdict.FAILED),
    ]
    for windows, of, verdict in cases:
        assert judged(windows, of)[0] is verdict
    lacking = replace(window(0, 1_000, 1_600).accounts[0], in_lake=590)
    assert judged([replace(window(0, 1_000, 1_600), accounts=(lacking,))], course())[0] is Verdict.FAILED


def test_only_windows_that_hold_its_numbers_are_of_a_rehearsal() -> None:
    """Not those of another epoch, not silence, not those before and after; a hole between two is noticed."""
    silence = replace(window(2, 1_300, 1_400), first=1_300, last=1_299)
    others = [window(0, 1, 1_000), replace(window(1, 1_001, 1_200), epoch=6), silence, window(4, 1_501, 1_700)]
    assert concerned([window(1, 1_000, 1_600), *others], course()) == [window(1, 1_000, 1_600)]
    assert not covers([window(0, 1_000, 1_200), window(2, 1_400, 1_600)], course())


def report(tmp_path: Path) -> str:
    windows = [window(0, 1_000, 1_200), window(1, 1_201, 1_600, WindowState.EXPLAINED, dropped=5)]
    verdict, sentence = judged(windows, course())
    facts = facts_of(course(), windows, verdict, sentence, "1.0", "Europe/Berlin", NOON_US + 900_000_000)
    return signed(facts, Signer.of(tmp_path))


def test_each_changed_digit_of_a_report_is_noticed(tmp_path: Path) -> None:
    """In what is shown, in the facts, in the seal: every digit of the file is changed once, and every one is found."""
    page = report(tmp_path)
    assert verified(page).public_key == public_key_of(tmp_path / "plant-signing.pub.pem")
    digits = [at for at, sign in enumerate(page) if sign.isdigit() and at > page.index("<body>")]
    assert len(digits) > 500
    for at in digits:
        changed = page[:at] + str((int(page[at]) + 1) % 10) + page[at + 1 :]
        with pytest.raises(ReportError):
            verified(changed)


def test_a_report_can_be_altered_in_no_other_way_either(tmp_path: Path) -> None:
    """Words, markup, a second block of facts, another key, or nothing at all."""
    page, other = report(tmp_path / "a"), report(tmp_path / "b")
    facts = page[
        page.index('<script type="application/json" id="facts">') : page.index(
            '<script type="application/json" id="seal">'
        )
    ]
    seal = other[other.index('<script type="application/json" id="seal">') :]
    for changed in (
        page.replace("PASSED", "FAILED", 1),
        page.replace("</body>", "<p>And more</p></body>"),
        page.replace("<style>", "<style>.verdict{display:none}"),
        page.replace(facts, facts + facts),
        page[: page.index('<script type="application/json" id="seal">')] + seal,
        page.replace('"schema":"plantward.rehearsal/1"', '"schema":"plantward.rehearsal/2"'),
        page.replace('"zone":"Europe/Berlin"', '"zone":"../../etc/passwd"'),
        page[:-1],
        "",
        "<html></html>",
    ):
        assert changed != page
        with pytest.raises(ReportError):
            verified(changed)
    assert verified(other).fingerprint != verified(page).fingerprint


def test_hostile_words_in_a_report_stay_words(tmp_path: Path) -> None:
    """Who asked, and what an uplink says of its failure, come from outside."""
    hostile = replace(course(), by="</script><script>alert(1)</script>", notes=["<b>&</b>"])
    facts = facts_of(hostile, [], Verdict.NOT_PROVEN, "</style>", "1.0", "UTC", NOON_US)
    page = signed(facts, Signer.of(tmp_path))
    assert "<script>alert" not in page and "<b>&" not in page
    assert verified(page).facts["by"] == hostile.by


async def test_a_key_that_cannot_be_used_is_known_before_the_link_is_cut(tmp_path: Path) -> None:
    """Not at the end, when the report is to be signed."""
    world = World()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "plant-signing.pem").write_text("nonsense")
    rehearsal = rehearsal_of(world, tmp_path)
    with pytest.raises(SigningError):
        await rehearsal.start(5, "a test")
    assert world.reason == "" and not rehearsal.is_running


def test_a_damaged_key_is_said_with_a_hint(tmp_path: Path) -> None:
    first = Signer.of(tmp_path)
    assert Signer.of(tmp_path).public_key == first.public_key
    (tmp_path / "plant-signing.pem").write_text("nonsense")
    with pytest.raises(SigningError, match="restore it from a backup"):
        Signer.of(tmp_path)
    with pytest.raises(SigningError, match="no public key"):
        public_key_of(tmp_path / "plant-signing.pem")


def test_the_shelf_gives_nothing_but_its_reports(tmp_path: Path) -> None:
    """A name is no path, and a report that was altered says so in the list."""
    shelf = Shelf(tmp_path)
    (tmp_path / "secret.html").write_text("secret")
    assert shelf.names() == [] and shelf.newest() is None
    facts = facts_of(course(), [], Verdict.NOT_PROVEN, "Nothing.", "1.0", "UTC", NOON_US)
    name = shelf.put(facts)
    assert re.fullmatch(r"rehearsal-\d{8}T\d{6}Z\.html", name) and shelf.names() == [name]
    for wrong in ("../secret.html", "running.json", "rehearsal-20260101T000000Z.html", name + "\n"):
        assert shelf.text(wrong) is None
    (shelf.folder / name).write_text((shelf.text(name) or "").replace("Nothing.", "All is well."))
    assert [each.verdict for each in shelf.list()] == ["NOT VALID"]


def test_rates_and_forecasts_by_hand() -> None:
    """Rates look a minute back; what never ends has no time."""
    rates = Rates()
    assert rates.in_per_s == 0.0
    for second in range(100):
        rates.saw(second, 10 * second, 0 if second < 50 else 40 * (second - 50))
    assert rates.in_per_s == 10.0 and rates.best_out_per_s == 40.0
    assert drain_s(0, 10, 5) == 0.0 and drain_s(100, 10, 10) is None and drain_s(100, 10, 60) == 2.0
    assert full_s(10, 2, 5, 150) == 10.0 and full_s(10, 0, 5, 150) is None and full_s(100, 2, 5, 150) == 0.0
