"""What the browser sees, as two paths: templates for the server to fill, and static files."""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
