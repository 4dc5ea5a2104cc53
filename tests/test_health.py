"""Health: one mapping for status, page and Prometheus."""

from dataclasses import dataclass

from appliance.health import Health
from appliance.supervisor import Part, PartState


@dataclass(frozen=True, slots=True)
class Saying:
    readings: int
    connected: bool
    last_error: str


def test_numbers_become_metrics_and_text_stays_in_the_status() -> None:
    """Prometheus sees every number under the name of its part."""
    health = Health()
    health.ask("connector plant", lambda: Saying(7, True, "none"))
    health.parts = [Part("web")]
    assert health.status()["connector plant"] == {"readings": 7, "connected": True, "last_error": "none"}
    assert "plantward_connector_plant_readings 7.0\n" in health.metrics()
    assert "last_error" not in health.metrics()


def test_ready_means_that_every_part_runs() -> None:
    """A part that waits to be started again makes the appliance unready."""
    health = Health()
    assert not health.ready()
    health.parts = [Part("web"), Part("bridge")]
    assert health.ready()
    health.parts[1].state = PartState.WAITING
    assert not health.ready()
