"""Fixtures that every room's tests share."""

import logging

import numpy as np
import pytest

from hyper_bids import log


@pytest.fixture
def rng():
    """Return a seeded random generator, the same for each test."""
    return np.random.default_rng(20220114)


@pytest.fixture
def said(caplog, monkeypatch):
    """Return caplog with the app's messages, which it keeps from other loggers otherwise."""
    log.start(logging.INFO)
    monkeypatch.setattr(log.LOG, "propagate", True)
    caplog.set_level(logging.INFO, logger=log.LOG.name)
    return caplog
