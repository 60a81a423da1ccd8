"""All that a report says of one trained network, measured and turned into plain JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rheobase.measure import CONVENTIONS, count_operations, energy, firing_rates
from rheobase.measure import wall_time_per_image as wall_time
from rheobase.neurons import Neuron
from rheobase.train import evaluate
from rheobase.train.augment import normalize
from rheobase.train.config import DataConfig

__all__ = ["portrait"]

_COUNTED = 200  # images that rates and operations are averaged over
_ROWS = 24  # neurons of every layer that the raster shows at most


class _Attentive(Protocol):
    def attention_maps(self, x: Tensor) -> list[Tensor]: ...


def portrait(
    net: nn.Module, test_set: Dataset[Any], data: DataConfig, shown: int
) -> dict[str, Any]:
    """Measure a classifier of static images that has ``attention_maps``.

    Args:
        net: takes ``[N, C, H, W]``, returns ``[T, N, classes]``.
        test_set: of ``(float image [C, H, W], label)``.
        data: how images are normalised.
        shown: index of the test image whose spikes and attention are shown.

    Returns:
        values that `json.dumps` takes; a network without neurons has no ``rates`` and no
        ``raster``.
    """
    net.eval()
    found = evaluate(net, test_set, data=data)
    assert found.confusion is not None  # ten classes
    count = min(_COUNTED, len(cast(Sized, test_set)))
    images = normalize(torch.stack([test_set[i][0] for i in range(count)]), data)
    one = normalize(test_set[shown][0].unsqueeze(0), data)
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "accuracy": found.accuracy,
        "loss": found.loss,
        "accuracy_at": found.accuracy_at,
        "confusion": found.confusion.tolist(),
        "milliseconds_per_image": {
            "1": 1e3 * wall_time(net, one, repeats=15),
            str(count): 1e3 * wall_time(net, images),
        },
        "counted_images": count,
        **_operations(net, images),
        "attention": _attention(net, one),
        "answer": int(_logits(net, one).mean(0).argmax()),
    }
    if any(isinstance(module, Neuron) for module in net.modules()):
        result["rates"] = firing_rates(net, images)
        result["raster"] = _raster(net, one)
    return result


def _operations(net: nn.Module, images: Tensor) -> dict[str, Any]:
    report = count_operations(net, images)
    charged = {name: energy(report, convention) for name, convention in CONVENTIONS.items()}
    return {
        "steps": report.steps,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "input": layer.spiking.values,
                "rate": layer.spiking.rate,
                "macs": layer.macs,
                "steps": layer.steps,
                "sops": layer.sops,
                "first": layer.first,
                "pj": {name: charged[name].layers[i].pj for name in charged},
            }
            for i, layer in enumerate(report.layers)
        ],
        "energy": {
            name: {"macs": total.macs, "acs": total.acs, "pj": total.pj}
            for name, total in charged.items()
        },
    }


def _attention(net: nn.Module, image: Tensor) -> list[list[float]]:
    """The last block's map, queries by keys, averaged over time and heads."""
    with torch.no_grad():
        maps = cast(_Attentive, net).attention_maps(image)
    return cast(list[list[float]], maps[-1].mean((0, 1, 2)).tolist())


def _raster(net: nn.Module, image: Tensor) -> list[dict[str, Any]]:
    """When neurons of every layer fire, chosen at even distances among those that fire at all."""
    with _recorded(net) as spikes:
        _logits(net, image)
    layers = []
    for name, fired in spikes.items():
        flat = fired.flatten(1)
        active = flat.any(0).nonzero().flatten()
        rows = active[torch.linspace(0, len(active) - 1, min(_ROWS, len(active))).long()]
        layers.append(
            {
                "name": name,
                "neurons": flat.shape[1],
                "active": len(active),
                "rows": _ROWS,
                "spikes": flat[:, rows].nonzero().tolist(),
            }
        )
    return layers


@contextmanager
def _recorded(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The spikes ``[T, N, ...]`` of every neuron module called within the block."""
    spikes: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: spikes.__setitem__(name, output.detach())

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in net.named_modules()
        if isinstance(module, Neuron)
    ]
    try:
        yield spikes
    finally:
        for handle in handles:
            handle.remove()


def _logits(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return cast(Tensor, net(images))
