"""Ctrl-C that waits for the end of the current step."""

from __future__ import annotations

import signal
import threading
from types import FrameType

__all__ = ["Interrupt"]


class Interrupt:
    """While open, the first Ctrl-C only sets `pending`; a second one interrupts at once.

    An exception in the middle of an optimiser step would leave weights that no uninterrupted run
    ever has, and nothing worth saving. Several may be open at a time; all see the same Ctrl-C.
    Outside the main thread, where signals cannot be handled, it never becomes pending.
    """

    _open = 0
    _pressed = False
    _before: object = None

    def __enter__(self) -> Interrupt:
        cls = type(self)
        if threading.current_thread() is threading.main_thread():
            if cls._open == 0:
                cls._pressed = False
                cls._before = signal.signal(signal.SIGINT, cls._handle)
            cls._open += 1
            self._mine = True
        else:
            self._mine = False
        return self

    def __exit__(self, *_: object) -> None:
        cls = type(self)
        if self._mine:
            cls._open -= 1
            if cls._open == 0:
                signal.signal(signal.SIGINT, cls._before)  # type: ignore[arg-type]

    @property
    def pending(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._mine and type(self)._pressed

    @classmethod
    def _handle(cls, number: int, frame: FrameType | None) -> None:
        if cls._pressed:
            raise KeyboardInterrupt
        cls._pressed = True
