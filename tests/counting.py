"""Counting calls: they do not depend on the machine, as time does."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Count the calls of functions in this thread; what is given tells how many there were."""
    calls = 0

    def see(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    # A collection calls what others, as Hypothesis does, want to be told of it.
    gc.disable()
    sys.setprofile(see)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(before)
        gc.enable()
