"""The ANN run on calibration data, each activation seen by its meter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name, warn_caller
from rheobase.convert.activations import Site
from rheobase.convert.bounds import BY_GRAPH
from rheobase.convert.recipe import Recipe
from rheobase.convert.statistics import STATISTICS, Meter
from rheobase.convert.trace import Traced

__all__ = ["broadcasting", "calibrated_thresholds", "check_calibration"]


_MOST = 40  # times through the data


class _Metered(nn.Module):
    """An activation with its meter."""

    def __init__(self, activation: nn.Module, meter: Meter) -> None:
        super().__init__()
        self.activation = activation
        self.meter = meter

    def forward(self, z: Tensor) -> Tensor:
        """What the meter passes on."""
        before = z.clone() if getattr(self.activation, "inplace", False) else z
        a = self.activation(z)
        if not a.is_floating_point():
            raise ValueError(
                f"{self.meter.site.name!r} ({self.meter.site.line}) is to send {a.dtype}, which no "
                "spikes can: a comparison of what changes over time; write it as an activation"
            )
        # A finite sum has finite terms, and takes one pass.
        if not bool(a.sum().isfinite()) and not bool(torch.isfinite(a).all()):
            site = self.meter.site
            raise ValueError(
                f"activations of {site.name!r} ({site.line}) are not finite on the calibration "
                "data; look at the data, and at the weights of the layers before it"
            )
        self.meter.site.shape = tuple(a.shape[1:])
        return self.meter.pass_on(before, a)


def check_calibration(calibration: Tensor | None, recipe: Recipe) -> Tensor:
    """The calibration data, if it is what a recipe needs.

    Raises:
        ValueError: there is none, or no sample in it.
        TypeError: it is no floating point tensor.
    """
    if calibration is None:
        what = "calibration inputs" if "data" in recipe.needs else "one input, for its shape,"
        raise ValueError(
            f"recipe {recipe.name!r} needs {what} as [N, ...]: convert(ann, inputs, ...)"
        )
    # Numbers of words are inputs too: an embedding takes them.
    if not isinstance(calibration, Tensor) or calibration.dtype is torch.bool:
        named = isinstance(calibration, Tensor)
        given = calibration.dtype if named else type(calibration).__name__
        raise TypeError(
            f"calibration inputs must be a tensor [N, ...] of numbers, or a tuple of them for a "
            f"network of several inputs; got {given}"
        )
    if calibration.dim() < 2 or 0 in calibration.shape:
        raise ValueError(
            f"calibration inputs are [N, ...] with at least one sample, got shape "
            f"{list(calibration.shape)}; one sample alone is sample.unsqueeze(0)"
        )
    return calibration


def calibrated_thresholds(
    traced: Traced, sites: list[Site], recipe: Recipe, steps: int, inputs: Tensor, batch_size: int
) -> dict[str, Tensor]:
    """A threshold for every site, in a shape that broadcasts to one step's neurons.

    Raises:
        ValueError: an activation is not finite.
    """
    kind = recipe.statistic.kind
    if kind not in STATISTICS:
        raise ValueError(unknown_name("statistic", kind, STATISTICS))
    meters = {site.name: STATISTICS[kind](site, recipe, steps) for site in sites}
    for site in sites:
        traced.module.set_submodule(site.name, _Metered(site.activation, meters[site.name]))
    try:
        count = recipe.statistic.iterations
        for _ in range(_MOST if count is None else count):
            for batch in torch.split(inputs, recipe.statistic.batch_size or batch_size):
                for meter in meters.values():
                    meter.announce(len(inputs), len(batch))
                with torch.no_grad():
                    traced.module(batch)
            if count is None and all(meter.done for meter in meters.values()):
                break
    finally:
        for site in sites:
            traced.module.set_submodule(site.name, site.activation)
    found = {site.name: _checked(meters[site.name], site) for site in sites}
    return BY_GRAPH[kind](traced, sites, recipe, found) if kind in BY_GRAPH else found


def _checked(meter: Meter, site: Site) -> Tensor:
    """The meter's threshold; units that were never active get one that keeps them near 0."""
    threshold = meter.threshold()
    dead = ~(threshold > 0.0)
    if bool(dead.all()):
        warn_caller(
            f"{site.name!r} ({site.line}) is never active on the calibration data: its neurons "
            "get threshold 1 and stay silent; give more or other data",
        )
        threshold = torch.ones_like(threshold)
    elif bool(dead.any()):
        instead = "are silenced" if meter.silences else "get a thousandth of the layer's largest"
        warn_caller(
            f"{site.name!r} ({site.line}): {int(dead.sum())} of {dead.numel()} thresholds belong "
            f"to units that are never active on the calibration data; they {instead}",
        )
        small = 1e-30 if meter.silences else 1e-3 * threshold.max()
        threshold = torch.where(dead, small, threshold)
    return broadcasting(threshold, site)


def broadcasting(value: Tensor, site: Site) -> Tensor:
    """A scalar, ``[C]`` or ``[C, ...]`` so that it broadcasts to ``[C, ...]``."""
    if value.dim() == 1 and len(site.shape) > 1:
        return value.view(-1, *[1] * (len(site.shape) - 1))
    return value
