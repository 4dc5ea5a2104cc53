"""The routes, asked as a client asks them."""

import asyncio
import json
from collections.abc import AsyncIterator
from time import monotonic
from urllib.parse import quote

import httpx
import pytest

from appliance.supervisor import supervise
from appliance.ui.headers import CONTENT_SECURITY_POLICY
from appliance.ui.server import WebServer


@pytest.fixture
async def client(plant) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=plant.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
        yield client


async def test_every_page_answers_and_its_links_lead_somewhere(plant, paths, client) -> None:
    """From the overview, every link and every file of every page exists."""
    await plant.feeder.past(60)
    await plant.feeder.alarm()
    await plant.caught_up()
    seen, waiting = set(), ["/"]
    while waiting:
        url = waiting.pop()
        seen.add(url)
        answer = await client.get(url)
        assert answer.status_code == 200, url
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        if "text/html" in answer.headers["content-type"]:
            text = answer.text.replace("&amp;", "&")
            assert "style=" not in text and "onclick" not in text
            links = [part.split('"')[0].split("#")[0] for part in text.split('href="')[1:]]
            links += [part.split('"')[0] for part in text.split('src="')[1:]]
            for link in links:
                whole = url.partition("?")[0] + link if link.startswith("?") else link
                if whole and whole not in seen and whole not in waiting:
                    waiting.append(whole)
    assert {"/", "/alarms", "/system", f"/equipment/{paths.PUMP}"} <= seen


async def test_an_equipment_is_found_by_path_or_by_its_last_level(plant, paths, client) -> None:
    """An unknown name is a page that says so, not a stack trace."""
    await plant.feeder.past(30)
    await plant.caught_up()
    assert (await client.get(f"/equipment/{paths.PUMP}")).status_code == 200
    assert "Boiler feed pump B" in (await client.get("/equipment/pmp-204")).text
    missing = await client.get("/equipment/<script>alert(1)</script>")
    assert missing.status_code == 404
    assert "<script>alert" not in missing.text


async def test_hostile_names_and_texts_are_only_text(plant, paths, client) -> None:
    """Topic names and payloads come from anybody on the broker."""
    bad = "<script>alert(1)</script>"
    machine = 'acme/northfield/utilities/x/y/"><img src=x onerror=alert(1)>?#&'
    await plant.feeder.say(f"{machine}/{bad}", bad)
    await plant.caught_up()
    for url in ("/", "/system", f"/equipment/{quote(machine)}"):
        answer = await client.get(url)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text and "<img" not in answer.text
    assert bad.replace("<", "&lt;").replace(">", "&gt;") in answer.text


async def test_the_page_reads_without_javascript(plant, paths, client) -> None:
    """Values, alarms and advice stand in the HTML itself."""
    await plant.feeder.past()
    await plant.feeder.alarm()
    await plant.caught_up()
    text = (await client.get("/")).text
    assert all(words in text for words in ("1 machine needs attention", "Bearing wear", "4 – 7 h", "mm/s", "noscript"))
    text = (await client.get("/equipment/pmp-204")).text
    assert all(words in text for words in ("Why the model says this", "Change over to the standby pump", "Message id"))


async def test_readings_of_one_moment_are_searched(plant, paths, client) -> None:
    """The search shows both replays of a moment; a text that is no time gets a hint."""
    for _ in range(2):
        await plant.feeder.say(f"{paths.REPLAYED}/voltage", 176.25, 1_420_092_000_000_000)
    await plant.feeder.say(f"{paths.REPLAYED}/voltage", 199.0, 1_420_095_600_000_000)
    await plant.caught_up()
    text = (await client.get(f"/equipment/{paths.REPLAYED}", params={"at": "2015-01-01T06:00:00Z"})).text
    assert text.count('<th scope="row">voltage</th>') == 2
    assert "all there is" in text
    assert "is not a time" in (await client.get("/equipment/m1", params={"at": "noon"})).text


async def test_a_trend_has_columns_gaps_and_its_own_end(plant, paths, client) -> None:
    """Columns with null where data is missing; unknown topics and ranges are refused in JSON."""
    await plant.feeder.past()
    await plant.caught_up()
    answer = (
        await client.get("/api/trend", params={"topic": f"{paths.PUMP}/vibration_de", "range": "8h", "w": 300})
    ).json()
    assert len(answer["t"]) == len(answer["v"]) <= 304
    assert answer["v"].count(None) == len(answer["gaps"]) == 1
    assert (answer["unit"], answer["to"]) == ("mm/s", plant.feeder.end_us / 1e6)
    risk = (await client.get("/api/trend", params={"topic": f"{paths.PUMP}/_prediction"})).json()
    assert max(value for value in risk["v"] if value is not None) > 50
    assert (await client.get("/api/trend", params={"topic": "nobody/here"})).status_code == 404
    assert (await client.get("/api/trend", params={"topic": f"{paths.PUMP}/flow", "range": "9y"})).status_code == 422


async def test_probes_and_metrics(plant, paths, client) -> None:
    """What an orchestrator and Prometheus ask for."""
    assert (await client.get("/healthz")).text == "ok\n"
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/metrics")).headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (await client.get("/api/status")).json()["bridge"]["link"] == "up"


async def test_the_cloud_chip_says_since_when_and_how_much(plant, paths, client) -> None:
    """Offline is told with its age and what waits; it is no alarm."""
    from appliance.supervisor import now_us

    plant.status["bridge"] = {
        "link": "down", "since_us": now_us() - 4_330_000_000, "readings": {"backlog": 184_220}, "events": {"backlog": 3}
    }  # fmt: skip
    text = (await client.get("/")).text
    assert "Cloud offline" in text and "1 h 12 min" in text and "184\u202f223" in text


async def test_live_values_arrive_and_the_stream_ends_with_the_server(served_plant, paths) -> None:
    """A changed value reaches an open stream within a second or two; stopping does not wait for the browser."""
    plant = served_plant
    await plant.feeder.say(f"{paths.PUMP}/vibration_de", 2.5)
    await plant.caught_up()
    key, seen, beats = f"v/{paths.PUMP}/vibration_de", [], 0
    async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", f"{plant.url}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event = ""
        async for line in answer.aiter_lines():
            event = line.removeprefix("event: ") if line.startswith("event: ") else event
            beats += line == "event: beat"
            if line.startswith("data: ") and event == "v" and key in (texts := json.loads(line[6:])):
                seen.append(texts[key])
                if len(seen) == 2:
                    break
                await plant.feeder.say(f"{paths.PUMP}/vibration_de", 6.84)
    assert seen == ["2.50", "6.84"]
    assert beats >= 1


async def test_the_server_stops_at_once_with_streams_open(plant, paths) -> None:
    """Ctrl-C with a browser watching: the part is gone within two seconds, and its port with it."""
    server = WebServer("127.0.0.1:0", plant.app)
    async with httpx.AsyncClient(timeout=10) as client:
        async with supervise(grace_s=5) as parts:
            parts.start("web", server.run)
            await paths.until(lambda: server.port is not None)
            port = server.port
            answer = await client.send(client.build_request("GET", f"http://127.0.0.1:{port}/events"), stream=True)
            began_s = monotonic()
        assert monotonic() - began_s < 2
        await answer.aclose()
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{port}/healthz")


async def test_a_taken_port_is_an_error_not_an_exit(served_plant, paths) -> None:
    """The supervisor can say it and try again; the process lives."""
    port = served_plant.url.rpartition(":")[2]
    with pytest.raises(OSError, match="in use"):
        await asyncio.wait_for(WebServer(f"127.0.0.1:{port}", served_plant.app).run(), 5)
