"""The Folder uplink where folders differ from networks."""

from pathlib import Path

import pytest

from appliance.bridge.folder import FolderUplink
from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import EnvelopeError, Lane, envelopes
from appliance.contract.envelope_file import from_bytes
from appliance.contract.reading import Quality, Reading, Stream

READING = Reading("acme/northfield/a/l/c/pmp-1/flow", 1.5, Quality.GOOD, 1, 1, 1, "test")


def test_damaged_files_are_named_as_such() -> None:
    for data in (b"", b"no json\nbody", b"[]\nbody", b'{"schema": "plantward.envelope/1"}'):
        with pytest.raises(EnvelopeError):
            from_bytes(data)


async def test_a_plant_cannot_name_itself_out_of_the_folder(tmp_path: Path) -> None:
    """A plant called `../..` gets a folder like any other."""
    (sealed,) = envelopes("../..", 1, Stream.READINGS, 1, [READING])
    await FolderUplink(tmp_path / "out").send(sealed, Lane.LIVE)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


async def test_a_folder_that_cannot_be_written_is_an_uplink_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file stands where the folder should be")
    (sealed,) = envelopes("northfield", 1, Stream.READINGS, 1, [READING])
    with pytest.raises(UplinkError) as failure:
        await FolderUplink(tmp_path / "out").send(sealed, Lane.LIVE)
    assert failure.value.retryable
    assert "writable" in failure.value.hint
