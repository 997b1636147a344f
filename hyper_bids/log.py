"""The log: one line a message, on the standard error."""

from __future__ import annotations

import logging

LOG = logging.getLogger("hyper_bids")


def start(level: int) -> None:
    """Log messages of ``level`` and above; called again, only the level changes."""
    if not LOG.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
        )
        LOG.addHandler(handler)
        LOG.propagate = False
    LOG.setLevel(level)
