"""What the azure-eventhub client is called with, and what it does that nobody promised."""

import logging
from typing import Final

from azure.core.exceptions import AzureError
from azure.eventhub import TransportType
from azure.eventhub.exceptions import EventHubError

TRANSPORTS: Final = {"amqp": TransportType.Amqp, "websocket": TransportType.AmqpOverWebsocket}
BROKEN: Final = (EventHubError, AzureError, OSError, TimeoutError, KeyError, AttributeError)
"""What the client raises when its link breaks; the last two when the link goes away under its hands."""


def said(error: BaseException) -> str:
    """An error of the client in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def quieten() -> None:
    """The client logs each frame and each try of its own; the Bridge tells the story once, its errors included."""
    for name, level in (("azure", logging.WARNING), ("azure.eventhub", logging.ERROR), ("uamqp", logging.WARNING)):
        logging.getLogger(name).setLevel(max(level, logging.getLogger(name).level))
