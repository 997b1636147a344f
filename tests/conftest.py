"""Fixtures that every room's tests share."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """Return a seeded random generator, the same for each test."""
    return np.random.default_rng(20220114)
