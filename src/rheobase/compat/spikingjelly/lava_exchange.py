"""``spikingjelly.clock_driven.lava_exchange``: code that imports it runs; Lava itself does not."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"lava_exchange.{name}: rheobase has no Lava; give backend='torch'")
