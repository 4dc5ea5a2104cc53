"""The ledger's page and the rehearsal's: one sentence, a grid readable without colour, and honest refusals."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import pytest

from appliance.bridge.link import LinkState
from appliance.bridge.pacing import Clock
from appliance.bridge.status import BridgeStatus, LaneStatus, StreamStatus
from appliance.buffer.schema import StoreError
from appliance.contract.ledger import WINDOW_US
from appliance.contract.reading import Stream
from appliance.contract.sent import Sent
from appliance.ledger.accounts import Account, Window, WindowState
from appliance.rehearsal.rehearsal import Rehearsal
from appliance.rehearsal.report_file import verified
from appliance.rehearsal.seams import Room
from appliance.supervisor import supervise
from appliance.ui import ledger_api, words
from appliance.ui.app import create_app
from appliance.ui.ledger import HOUR_US, first_us, headline, words_of
from appliance.ui.ledger_grid import COLUMNS, ROWS_MAX, grid, paths
from appliance.ui.server import WebServer

NOW_US = 1_790_000_100_000_000 // HOUR_US * HOUR_US + 40 * 60_000_000
BERLIN = words.Clock(ZoneInfo("Europe/Berlin"))
GREEN, EXPLAINED, WAITING, MISSING = WindowState
LINES = ("utilities/boiler-house/feed/pmp-204", "packaging/line-3/labelling/mtr-332", "utilities/cooling/tower/fan-311")


@dataclass
class Says:
    """What a Ledger says of itself."""

    missing_readings: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    receipt_age_s: float | None = 12.0


def account(equipment: str, produced: int, in_lake: int | None = None, dropped: int = 0, missing: int = 0) -> Account:
    held = produced - dropped - missing if in_lake is None else in_lake
    return Account(
        equipment, produced, produced, produced, produced, held, {"size": dropped} if dropped else {}, missing
    )


def day(now_us: int = NOW_US, lines: tuple[str, ...] = LINES) -> list[Window]:
    """24 hours, newest first: two wait, 40 min ago three readings got lost, six hours ago some were dropped."""
    windows = []
    for back in range(270):
        start_us, first = now_us - now_us % WINDOW_US - back * WINDOW_US, (270 - back) * 1_000
        names = [f"acme/northfield/{line}" for line in lines]
        last = first + 300 * len(names) - 1
        state, missing = GREEN, ()
        accounts = [account(name, 300) for name in names]
        if back < 2:
            state, accounts = WAITING, [account(name, 300, in_lake=100) for name in names]
        elif back == 8:
            state, missing = MISSING, ((first + 10, first + 11), (first + 20, first + 20))
            accounts[0] = account(names[0], 300, missing=3)
        elif 70 <= back < 76:
            state, accounts[1] = EXPLAINED, account(names[1], 300, dropped=50)
        windows.append(Window(3, start_us, first, last, state, False, f"{first:016x}", missing, tuple(accounts)))
    return windows


@dataclass
class Books:
    """A ledger with fixed windows; `error` is what reading its file gives."""

    known: list[Window] = field(default_factory=list)
    says: Says = field(default_factory=Says)
    error: Exception | None = None

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        if self.error:
            raise self.error
        return [each for each in self.known if from_us <= each.start_us < to_us]

    def status(self) -> Says:
        return self.says


@dataclass
class Link:
    """A bridge with nothing behind it: all is acknowledged as long as it is not held."""

    last: int = 5_000
    acknowledged: int = 5_000
    state: LinkState = LinkState.UP
    plant: str = "northfield"
    epoch: int = 3
    rates: int = 0

    def hold(self, reason: str) -> None:
        self.state = LinkState.DOWN

    def release(self) -> None:
        self.state = LinkState.UP

    def sent(self, stream: Stream) -> Sent:
        return Sent(((1, self.acknowledged),), ())

    def status(self) -> BridgeStatus:
        if self.state is LinkState.UP:
            self.acknowledged = self.last
        lanes, readings = (
            {"live": LaneStatus(9, 900, 3_600)},
            StreamStatus(self.acknowledged, self.last - self.acknowledged),
        )
        return BridgeStatus("hub", self.state, 0, None, 0, 0, 0, 0, 0, None, StreamStatus(0, 0), readings, lanes, "")


class Log:
    def __init__(self, link: Link) -> None:
        self._link, self.plant, self.epoch = link, link.plant, link.epoch

    def last(self, stream: Stream = Stream.READINGS) -> int:
        return self._link.last


@dataclass
class Site:
    """The page of a plant with a ledger and a rehearsal, whose time the test passes."""

    app: object
    books: Books
    link: Link
    rehearsal: Rehearsal
    status: dict[str, object]
    plant: object
    now_s: float = 0.0
    url: str = ""

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.link.last += 10
            await self.rehearsal.turn()


@pytest.fixture
async def site(plant, tmp_path: Path) -> AsyncIterator[Site]:
    books, link = Books(), Link()
    made: list[Site] = []
    now_s = lambda: made[0].now_s  # noqa: E731
    clock = Clock(lambda: plant.view.now_us() + round(now_s() * 1e6), now_s, asyncio.sleep)
    rehearsal = Rehearsal(Log(link), lambda: Room(10**9, 40.0, False), link, books, tmp_path, "1.0", clock=clock)
    status = plant.status
    status["buffer"] = {"days_to_full": 12.25}
    app = create_app(
        plant.view, "Northfield", lambda: status, lambda: "", lambda: True, ledger=books, rehearsal=rehearsal
    )
    made.append(Site(app, books, link, rehearsal, status, plant))
    books.known = day(plant.view.now_us())
    server = WebServer("127.0.0.1:0", app)
    async with supervise() as parts:
        parts.start("web", server.run)
        while server.port is None:  # noqa: ASYNC110 - a port has no event
            await asyncio.sleep(0.01)
        made[0].url = f"http://127.0.0.1:{server.port}"
        yield made[0]


@pytest.fixture
async def client(site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url) as client:
        yield client


def said(windows: list[Window], says: Says, *, has_uplink: bool = True) -> str:
    head = headline(windows, says, NOW_US, BERLIN, has_uplink=has_uplink)
    return f"{head.text}. {head.more}"


def test_the_headline_says_the_worst_first() -> None:
    """Missing goes before a silent cloud, that before what waits too long, and what is on its way is no worry."""
    well = [each for each in day() if each.state in (GREEN, WAITING)]
    late = [replace(each, state=WAITING) if index == 12 else each for index, each in enumerate(well)]
    assert said(well, Says()).startswith("Every reading is accounted for. The cloud has confirmed it. What came since")
    assert "300 were dropped, and gaps say why" in said([each for each in day() if each.state is not MISSING], Says())
    assert said(day(), Says(3, ((7, 8), (9, 9)))).startswith("3 readings are missing in the lake. Numbers 7–8, 9.")
    assert said(day(), Says()).startswith("3 readings are missing in the lake. Numbers 262010–262011, 262020.")
    assert said(late, Says()).startswith("1\u202f200 readings wait for the cloud since")
    assert said(late, Says(receipt_age_s=10_900)).startswith(
        "The cloud has not said anything for 3 h 1 min. 1\u202f200"
    )
    assert said(well, Says(receipt_age_s=None)).startswith(
        "The cloud has not said anything since the appliance started"
    )
    assert said([], Says()).startswith("Nothing has been counted yet")
    assert said([replace(well[9], is_differing=True, state=MISSING)], Says()).startswith("1 window in the lake differ")
    assert said(day(), Says(), has_uplink=False).startswith("No cloud is configured")


def test_a_bar_tells_its_state_by_its_height_too() -> None:
    """Runs of one state are one bar; the four states have four shapes; no data has none."""
    drawn = paths([GREEN, GREEN, None, MISSING, WAITING, EXPLAINED])
    assert drawn["green"] == "M0 4h2v8h-2z"
    assert drawn["missing"] == "M3 0h1v16h-1z"
    assert drawn["waiting"] == "M4 7h1v2h-1z"
    assert drawn["explained"] == "M5 3h1v3h-1zM5 10h1v3h-1z"
    assert paths([None] * 4) == {}


def test_the_grid_puts_the_worst_on_top_and_is_bounded() -> None:
    """Three machines are three rows; five hundred are areas of at most sixty rows, and the rest is counted."""
    drawn = grid(day(), NOW_US)
    [area] = drawn.areas
    assert [row.title for row in area.rows] == ["pmp-204", "mtr-332", "fan-311"]
    assert area.rows[0].summary.startswith("3 missing, 400 waiting")
    assert (drawn.totals.missing, drawn.totals.dropped) == (3, {"size": 300})
    assert drawn.totals.produced == drawn.totals.in_lake + drawn.totals.waiting + 303
    assert drawn.from_us == first_us(NOW_US) and len(drawn.hours) == 24
    assert drawn.hours[23].state is MISSING and drawn.hours[0].state is None
    many = tuple(f"area-{number % 7}/line/cell/m-{number:03}" for number in range(500))
    big = grid(day(lines=many)[:5], NOW_US)
    assert sum(len(area.rows) for area in big.areas) == ROWS_MAX and big.more == 440 and len(big.areas) == 1
    assert big.areas[0].row is not None and big.areas[0].row.title == "Area 0 · 60"
    assert big.areas[0].row.summary == f"{words.count(60 * 400)} waiting"
    assert [len(area.rows) for area in grid(day(lines=many)[:5], NOW_US, skip=480).areas] == [20]
    assert grid([], NOW_US).areas[0].rows == () and COLUMNS == 288


def test_one_machine_is_green_beside_another_that_waits_only_on_the_clouds_word() -> None:
    """In a window that the cloud has not compared, nothing is green; where numbers are missing, they are another's."""
    whole, lacking = account("a/b/c/d/e/f", 10), account("a/b/c/d/e/g", 10, missing=1)
    for state, differing, wanted in (
        (WAITING, False, "waiting"),
        (MISSING, False, "green"),
        (MISSING, True, "missing"),
    ):
        window = Window(1, NOW_US - WINDOW_US, 1, 20, state, differing, "0" * 16, (), (whole, lacking))
        rows = {row.title: row for row in grid([window], NOW_US).areas[0].rows}
        assert list(rows["f"].windows) == [wanted] and rows["g"].state is MISSING


def test_ranges_are_cut_after_some() -> None:
    assert words_of(((1, 1), (3, 9), (12, 13)), 2) == "1, 3–9 and 1 more ranges"


async def test_the_page_tells_a_window_by_its_numbers(site, client) -> None:
    """The window with three lost readings: its accounts, its digest, its first and last number, and the three."""
    text = (await client.get("/ledger")).text
    assert "3 readings are missing in the lake" in text and "12.2 days" in text and "style=" not in text
    lost = next(window for window in site.books.known if window.state is MISSING)
    text = (await client.get(f"/ledger?window={lost.start_us + 17}")).text
    assert "Missing in the lake: 262010–262011, 262020" in text
    assert (
        f"Numbers {words.count(262_000)} to {words.count(262_899)} of epoch 3 · digest <code>{262_000:016x}</code>"
        in text
    )
    assert re.search(
        r'title="acme/northfield/utilities/boiler-house/feed/pmp-204">pmp-204.*?297.*?<td class="num">3</td>', text
    )
    assert (
        "Nothing came in between"
        in (await client.get(f"/ledger?window={site.books.known[-1].start_us - WINDOW_US}")).text
    )
    assert "Choose a window" in (await client.get(f"/ledger?hour={lost.start_us}")).text


async def test_what_is_not_there_is_said_in_a_sentence(site, client, plant) -> None:
    """No data yet, no uplink, a ledger that cannot be read, no ledger at all: never an empty page."""
    site.books.known = []
    site.status["buffer"] = {"days_to_full": 0.5}
    assert "full in 12 h" in (await client.get("/ledger")).text
    assert "Nothing has been counted yet" in (await client.get("/ledger")).text
    site.status.pop("bridge")
    text = (await client.get("/ledger")).text
    assert "No cloud is configured" in text and "No cloud link" in text
    for wrong in (
        "/ledger?window=x",
        "/ledger?hour=-1",
        f"/ledger?window={10**30}",
        "/ledger?skip=-1",
        "/api/ledger?hours=0",
        "/api/ledger?hours=25",
    ):
        assert (await client.get(wrong)).status_code == 422
    bare = httpx.ASGITransport(app=plant.app)
    async with httpx.AsyncClient(transport=bare, base_url="http://page") as other:
        assert "keeps no ledger" in (await other.get("/ledger")).text
        assert (await other.get("/api/ledger")).status_code == 404
        assert "no cloud link to rehearse with" in (await other.get("/rehearsals")).text
        assert (await other.post("/api/rehearsal/start", json={"minutes": 5})).status_code == 404


async def test_a_damaged_ledger_is_said_with_what_to_do(site, client) -> None:
    site.books.error = StoreError("ledger.db is damaged")
    answer = await client.get("/ledger")
    assert answer.status_code == 200 and "cannot be read: ledger.db is damaged" in answer.text
    assert (await client.get("/api/ledger")).status_code == 503


async def test_a_program_reads_the_same(site, client) -> None:
    """Status, states, totals and the windows as they are, newest first; one hour when one is asked for."""
    answer = (await client.get("/api/ledger?hours=24")).json()
    assert answer["status"]["receipt_age_s"] == 12.0 and answer["states"]["missing"] == 1
    assert answer["totals"]["missing"] == 3 and answer["totals"]["dropped"] == {"size": 300}
    assert answer["windows"][0] == json.loads(json.dumps(asdict(site.books.known[0])))
    assert len((await client.get("/api/ledger?hours=1")).json()["windows"]) in (12, 13)


async def test_many_machines_are_told_in_bounds(site, client, monkeypatch) -> None:
    """The newest windows are told whole, and how many are left out is said; the grid stays at sixty rows."""
    many = tuple(f"area-{number % 40}/line/cell/m-{number:05}" for number in range(400))
    monkeypatch.setattr(ledger_api, "ACCOUNTS_MAX", 1_000)
    site.books.known = day(site.plant.view.now_us(), many)[:4]
    answer = (await client.get("/api/ledger")).json()
    assert (len(answer["windows"]), answer["left_out"]) == (2, 2)
    assert answer["totals"]["produced"] == 4 * 300 * 400
    text = (await client.get("/ledger?skip=60")).text
    assert text.count('class="lrow of"') == ROWS_MAX and "280 more" in text


def test_what_got_lost_after_a_window_was_settled_counts_as_missing() -> None:
    """Its accounts are those of the day it was settled; its missing numbers are those of today."""
    settled = Window(1, NOW_US - WINDOW_US, 1, 10, MISSING, False, "0" * 16, ((4, 5),), (account("a/b/c/d/e/f", 10),))
    total = grid([settled], NOW_US).totals
    assert (total.missing, total.in_lake, total.waiting) == (2, 10, 0)


async def test_a_rehearsal_by_form_and_by_json(site, client) -> None:
    """A form leads back to the page, JSON gives the status; a second one is refused with 409 and the reason."""
    page = (await client.get("/rehearsals?minutes=2")).text
    assert "Cut the link for 2 min" in page and "Nothing in the plant stops" in page
    answer = await client.post("/api/rehearsal/start", data={"minutes": "2"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/rehearsals")
    assert site.link.state is LinkState.DOWN
    await site.pass_time(30)
    page = (await client.get("/rehearsals")).text
    assert "it comes back in 1 min" in page and ">300<" in page
    answer = await client.post("/api/rehearsal/start", json={"minutes": 5})
    assert answer.status_code == 409 and "runs already" in answer.json()["error"]
    answer = await client.post("/api/rehearsal/start", data={"minutes": "5"})
    assert answer.status_code == 409 and "A rehearsal runs already" in answer.text
    answer = await client.post("/api/rehearsal/cancel", json={})
    assert answer.json()["phase"] == "broken off" and site.link.state is LinkState.UP
    name = answer.json()["report"]
    report = await client.get(f"/rehearsals/{name}")
    assert verified(report.text).facts["by"] == "a command at 127.0.0.1"
    assert "style-src 'sha256-" in report.headers["content-security-policy"]
    assert name in (await client.get("/rehearsals")).text
    assert (await client.get("/rehearsals/..%2Fplant.toml")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"sec-fetch-site": "cross-site"}, b"minutes=5", 403),
        ({"sec-fetch-site": "same-site"}, b"minutes=5", 403),
        ({"origin": "http://evil.example"}, b"minutes=5", 403),
        ({"origin": "null"}, b"minutes=5", 403),
        ({"content-type": "text/plain"}, b'{"minutes": 5}', 415),
        ({"content-type": "application/json"}, b"{", 422),
        ({"content-type": "application/json"}, b"[5]", 422),
        ({}, b"minutes=soon", 422),
        ({}, b"minutes=0", 409),
        ({}, b"minutes=" + b"5" * 20_000, 413),
    ],
)
async def test_other_sites_and_nonsense_cut_nothing(site, client, headers, body, code) -> None:
    """A page that an operator happens to visit must not be able to cut the link."""
    fields = {"content-type": "application/x-www-form-urlencoded"} | headers
    answer = await client.post("/api/rehearsal/start", content=body, headers=fields)
    assert answer.status_code == code and site.link.state is LinkState.UP
    assert (await client.post("/api/rehearsal/cancel", content=b"", headers=headers | fields)).status_code >= 400


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync".split()
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", event => violations.push(event.violatedDirective));
"""
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page was not tried in it")


@pytest.fixture
async def browser() -> AsyncIterator[object]:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


async def open_page(browser, url: str, width: int, scheme: str) -> tuple[object, list[str]]:
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, problems = await context.new_page(), []
    page.set_default_timeout(10_000)
    await page.add_init_script(WATCH_POLICY)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
    await page.goto(url)
    return page, problems


@in_browser
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")])
async def test_a_click_on_a_bar_shows_the_window_under_it(site, browser, tmp_path, width, scheme) -> None:
    """On a desk and on a phone: the grid fits, the lost readings are one click away, and by keys too."""
    page, problems = await open_page(browser, f"{site.url}/ledger", width, scheme)
    await page.wait_for_selector(".lrow.of")
    assert await page.locator(".bars:visible").count() == 3
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.screenshot(path=str(tmp_path / "grid.png"), full_page=True)
    lost = next(window for window in site.books.known if window.state is MISSING)
    step_us = HOUR_US if width < 1000 else WINDOW_US  # On a phone a bar is an hour.
    middle_us = lost.start_us - lost.start_us % step_us + step_us / 2
    part = (middle_us - first_us(site.plant.view.now_us())) / (24 * HOUR_US)
    bar = page.locator(".lrow.of .lb").first
    box = await bar.bounding_box()
    await bar.click(position={"x": box["width"] * part, "y": 8})
    if width < 1000:
        await page.locator(".lsteps li a:has-text('missing')").click()
    await page.wait_for_selector("text=Missing in the lake: 262010")
    await page.screenshot(path=str(tmp_path / "window.png"), full_page=True)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.locator(".lsteps li a").first.focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".lsteps li:nth-child(2) a[aria-current]")
    assert problems + await page.evaluate("window.violations") == []


@in_browser
async def test_a_rehearsal_from_the_button_to_the_printed_report(site, browser, tmp_path) -> None:
    """Asked, confirmed, watched live without a reload, done; the report opens and prints on A4."""
    page, problems = await open_page(browser, f"{site.url}/ledger", 1440, "light")
    await page.click("text=Rehearse an outage")
    await page.fill("#minutes", "1")
    await page.click("text=Other length")
    await page.screenshot(path=str(tmp_path / "ask.png"))
    await page.click("text=Cut the link for 1 min")
    await page.wait_for_selector("text=The link is cut; it comes back in")
    await site.pass_time(20)
    await page.wait_for_selector("dd:has-text('200, at most 200')", timeout=8_000)
    await page.screenshot(path=str(tmp_path / "cut.png"))
    await site.pass_time(45)
    await page.wait_for_selector("text=All is acknowledged", timeout=8_000)
    newest = site.books.known[0]
    held = account("acme/northfield/utilities/boiler-house/feed/pmp-204", 6_000)
    site.books.known = [replace(newest, first=4_000, last=9_999, state=GREEN, accounts=(held,))]
    await site.pass_time(10)
    await page.wait_for_selector("text=PASSED", timeout=8_000)
    await page.screenshot(path=str(tmp_path / "done.png"), full_page=True)
    await page.click(".reports a")
    await page.wait_for_selector("h1:has-text('Plant northfield')")
    await page.screenshot(path=str(tmp_path / "report.png"), full_page=True)
    weight = await page.locator(".verdict").evaluate("it => getComputedStyle(it).borderLeftWidth")
    assert weight == "8px"  # The policy lets the report's own style in.
    assert (await page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)).startswith(b"%PDF")
    assert problems + await page.evaluate("window.violations") == []
