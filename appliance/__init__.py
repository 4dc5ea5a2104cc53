"""Plantward's plant process: the UNS door, the durable log, inference and the page."""

__version__ = "0.1.0"
