"""What a search has done so far, in a file: it goes on from there after it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rheobase._paths import replacing

__all__ = ["Kept"]


class Kept:
    """The parts of a search that are done, and where the random numbers stand.

    Args:
        path: the file, written whole or not at all; None: nothing is kept.
        settings: of the search; another one is not gone on with.

    Raises:
        ValueError: the file is of a search with other settings.
    """

    def __init__(self, path: Path | None = None, settings: dict[str, Any] | None = None) -> None:
        self.path = path
        self.found: dict[str, Any] = {"settings": settings, "parts": {}}
        if path is not None and path.exists():
            self.found = torch.load(path, weights_only=True)
            if self.found["settings"] != settings:
                raise ValueError(
                    f"{path} holds a search that was stopped, with {self.found['settings']}; give "
                    f"those settings again to finish it, or delete the file to search with "
                    f"{settings}"
                )

    def of(self, part: str) -> dict[str, Any]:
        """What `save` was given of a part, nothing if it was not begun.

        Random numbers go on where they stood when the file was written.
        """
        done: dict[str, Any] = self.found["parts"].get(part, {})
        if done:
            torch.set_rng_state(self.found["random"])
        return done

    def save(self, part: str, **state: Any) -> None:
        """Keep how far a part is: numbers, words, tensors, and lists, tuples and dicts of them."""
        if self.path is None:
            return
        self.found["parts"][part] = state
        with replacing(self.path) as unfinished:
            torch.save(self.found | {"random": torch.get_rng_state()}, unfinished)

    def drop(self) -> None:
        """The search is over, and what it found is written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
