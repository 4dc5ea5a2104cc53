"""Takes the pictures of docs/images from a demo of its own. `make screenshots`; needs Chromium."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

HTTP, MQTT, AMQP, OPCUA = 18_480, 18_481, 18_482, 18_483
RUN_S = 150
"""At speed 60 enough plant time for trends and the first alarms."""
LEDGER_S = 480
"""Until two windows of five minutes are closed and the cloud has confirmed the first of them."""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
PAGES = {
    "overview": ("/", "light", (1600, 1000)),
    "equipment": ("/equipment/pmp-204", "light", (1600, 1120)),
    "overview-dark": ("/", "dark", (1600, 1000)),
    "overview-phone": ("/", "light", (390, 844)),
}
LATER = {"ledger": ("/ledger", "light", (1600, 1000))}


def main() -> None:
    """Run the demo, wait until there is something to see, take the pictures."""
    images = Path(__file__).with_name("images")
    images.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        plantward = str(Path(sys.executable).with_name("plantward"))
        ports = [f"--http-port={HTTP}", f"--mqtt-port={MQTT}", f"--amqp-port={AMQP}", f"--opcua-port={OPCUA}"]
        demo = subprocess.Popen([plantward, "demo", "--data", data, "--no-browser", *ports])
        try:
            time.sleep(RUN_S)
            urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/readyz", timeout=5).close()
            take(images, PAGES)
            time.sleep(LEDGER_S)
            take(images, LATER)
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(15)


def take(images: Path, pages: dict[str, tuple[str, str, tuple[int, int]]]) -> None:
    """One picture of each page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, (path, scheme, (width, height)) in pages.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(f"http://127.0.0.1:{HTTP}{path}")
            page.wait_for_timeout(3_000)
            page.screenshot(path=images / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
