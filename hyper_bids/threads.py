"""Small matrices on one thread: more threads wait for each other longer than they compute."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np


def on_one_thread(function: Callable) -> Callable:
    """Let a function's linear algebra use one thread.

    The decomposition of a design of 300 x 60 takes 0.9 ms with one thread. With two it took 8 ms
    beside another process, and up to 0.8 s.
    """

    @functools.wraps(function)
    def limited(*args, **kwargs):
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@on_one_thread
def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, ascending, and eigenvectors of a symmetric matrix.

    One of 1,050 x 1,050 takes 0.18 s with one thread, and beside other processes 0.45 s with two;
    one of 300 x 300 takes 8 ms, and with two up to 1.5 s.
    """
    return np.linalg.eigh(matrix)


@functools.cache
def _controller():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
