"""The data folder has one owner."""

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.folder import FolderError, owned


def test_a_second_owner_is_refused_with_the_first_ones_number(tmp_path: Path) -> None:
    """Two appliances on one folder would both write the log."""
    with owned(tmp_path):
        script = "import sys, pathlib, appliance.folder as f\nwith f.owned(pathlib.Path(sys.argv[1])): pass"
        second = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert second.returncode == 1
    assert "is in use by process" in second.stderr
    with owned(tmp_path):
        pass


def test_a_missing_folder_is_named() -> None:
    """The path is in the message."""
    with pytest.raises(FolderError, match="/nowhere/at/all does not exist"), owned(Path("/nowhere/at/all")):
        pass
