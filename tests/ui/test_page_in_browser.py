"""The page in a real browser: live, within its policy, on any width, and honest when the appliance is gone."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: the page was not tried in a browser"
)

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
    event => violations.push(event.violatedDirective + " " + event.blockedURI));
"""


@dataclass
class Tab:
    """One open page, and all that went wrong in it."""

    page: object
    problems: list[str] = field(default_factory=list)

    async def is_clean(self) -> None:
        self.problems += await self.page.evaluate("window.violations")
        assert self.problems == []


@pytest.fixture
async def browser() -> AsyncIterator[object]:
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


async def open_tab(browser, url: str, width: int = 1366, scheme: str = "light") -> Tab:
    """A tab where every error, policy violation and foreign request is noted."""
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, timezone_id="Asia/Tokyo"
    )
    page = await context.new_page()
    tab, origin = Tab(page), "/".join(url.split("/")[:3])
    await page.add_init_script(WATCH_POLICY)
    page.on("pageerror", lambda error: tab.problems.append(f"error: {error}"))
    page.on("console", lambda said: tab.problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((origin, "data:")) else tab.problems.append(f"foreign: {asked.url}"),
    )
    await page.goto(url)
    return tab


async def has_text(page, selector: str, text: str, within_s: float = 8) -> None:
    """Wait for a text; not `wait_for_function`, which a strict policy forbids."""
    await playwright.expect(page.locator(selector).first).to_have_text(text, timeout=within_s * 1000)


async def test_values_change_live_and_an_alarm_appears_by_itself(served_plant, paths, browser) -> None:
    """Nobody reloads a wall panel: new values, a new alarm and its card come by themselves."""
    plant = served_plant
    await plant.feeder.past()
    await plant.caught_up()
    tab = await open_tab(browser, f"{plant.url}/")
    await has_text(tab.page, "h1", "No machine needs attention")
    await plant.feeder.say(f"{paths.PUMP}/vibration_de", 7.77)
    await has_text(tab.page, f'[data-v="v/{paths.PUMP}/vibration_de"]', "7.77")
    await has_text(tab.page, "#live span", "Live")
    await plant.feeder.alarm()
    await has_text(tab.page, "h1", "1 machine needs attention")
    await has_text(tab.page, ".alarmchip b", "1")
    await plant.feeder.say(f"{paths.PUMP}/vibration_de", 6.66)
    await has_text(tab.page, f'[data-v="v/{paths.PUMP}/vibration_de"]', "6.66")
    await tab.page.fill("#find", "labeller")
    await playwright.expect(tab.page.locator(".tile:visible")).to_have_count(1)
    await tab.is_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_trends_are_drawn_and_stay_while_the_rest_is_renewed(served_plant, paths, browser, scheme) -> None:
    """Curves with ink in them, in both themes, in the plant's zone; a refresh of the page leaves them alone."""
    plant = served_plant
    await plant.feeder.past()
    await plant.feeder.alarm()
    await plant.caught_up()
    tab = await open_tab(browser, f"{plant.url}/equipment/pmp-204", scheme=scheme)
    await tab.page.wait_for_selector("html[data-ready]", timeout=10_000)
    assert await tab.page.locator(".uh canvas").count() == 4
    await tab.page.evaluate("document.querySelector('.uh canvas').dataset.mine = '1'")
    await plant.feeder.alarm(key="limit/vibration_de")
    await playwright.expect(tab.page.locator(".al li")).to_have_count(2, timeout=8_000)
    assert await tab.page.locator(".uh canvas[data-mine]").count() == 1
    inks = await tab.page.evaluate(
        """[...document.querySelectorAll('.uh canvas')].map(canvas => {
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return new Set(new Uint32Array(pixels.buffer)).size; })"""
    )
    assert all(colours > 8 for colours in inks)
    await tab.is_clean()


async def test_hostile_text_stays_text(served_plant, paths, browser) -> None:
    """A payload that is markup is read, not run, also when it comes live."""
    plant = served_plant
    topic = "acme/northfield/utilities/x/y/z/<b>note"
    await plant.feeder.say(topic, "first")
    await plant.caught_up()
    tab = await open_tab(browser, f"{plant.url}/")
    await plant.feeder.say(topic, "<img src=x onerror=alert(1)>")
    await has_text(tab.page, f'[data-v="v/{topic}"]', "<img src=x onerror=alert(1)>")
    assert await tab.page.locator("img").count() == 0
    await tab.is_clean()


async def test_no_page_is_wider_than_a_phone(served_plant, paths, browser) -> None:
    """At 390 px nothing scrolls sideways, whatever the names are."""
    plant = served_plant
    await plant.feeder.past(60)
    await plant.feeder.alarm()
    await plant.feeder.say(f"acme/northfield/utilities/x/y/{'long-name-' * 6}/{'tag' * 20}", "text" * 60)
    await plant.caught_up()
    for path in (
        "/",
        "/equipment/pmp-204",
        "/alarms",
        "/system",
        f"/equipment/{'long-name-' * 6}",
        "/equipment/nobody",
    ):
        for width in (390, 1024):
            tab = await open_tab(browser, f"{plant.url}{path}", width)
            assert await tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
            if path != "/equipment/nobody":  # The browser itself reports its 404.
                await tab.is_clean()
            await tab.page.context.close()


SERVE = """
import asyncio, sys
from pathlib import Path
from appliance.buffer.buffer import Buffer
from appliance.supervisor import now_us, supervise
from appliance.ui.app import create_app
from appliance.ui.server import WebServer
from appliance.ui.view import PlantView

async def main():
    async with Buffer.open(Path(sys.argv[1]), "northfield") as buffer:
        view = PlantView(buffer, [], now_us)
        server = WebServer("127.0.0.1:0", create_app(view, "Northfield", dict, str, lambda: True))
        async with supervise() as parts:
            parts.start("view", view.run)
            parts.start("web", server.run)
            while server.port is None:
                await asyncio.sleep(0.01)
            sys.stdout.write(f"{server.port}\\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
async def test_a_frozen_appliance_is_told_within_seconds_and_forgiven_when_it_is_back(tmp_path: Path, browser) -> None:
    """The server is stopped, sockets stay open: the bar appears, values grey out; it thaws, and all is live again."""
    command = [sys.executable, "-c", SERVE, str(tmp_path / "buffer.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = (await asyncio.to_thread(server.stdout.readline)).strip()
            tab = await open_tab(browser, f"http://127.0.0.1:{port}/")
            await has_text(tab.page, "#live span", "Live")
            assert not await tab.page.locator("#lost").is_visible()
            os.kill(server.pid, signal.SIGSTOP)
            await tab.page.wait_for_selector("#lost", state="visible", timeout=9_000)
            assert "Connection to the appliance lost" in await tab.page.locator("#lost").inner_text()
            bar = await tab.page.locator("#lost").bounding_box()
            assert bar["width"] == 1366
            assert float(await tab.page.locator("[data-v]").first.evaluate("it => getComputedStyle(it).opacity")) < 0.5
            await tab.page.screenshot(path=str(tmp_path / "lost.png"))
            os.kill(server.pid, signal.SIGCONT)
            await tab.page.wait_for_selector("#lost", state="hidden", timeout=9_000)
            await has_text(tab.page, "#live span", "Live")
            await tab.is_clean()
        finally:
            os.kill(server.pid, signal.SIGCONT)
            server.kill()
