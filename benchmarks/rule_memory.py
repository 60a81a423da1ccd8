"""Memory of learning rules by the number of steps: what a batch needs beyond network and images.

    python -m benchmarks.rule_memory

A MNIST batch of 50 through the network each rule is for. Counted are the bytes of all tensors alive
at one time while the rule runs, kept for backward or not, that were not there before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rheobase.learn import Lesson, learning_rule
from rheobase.models import create_model
from rheobase.train import cross_entropy_of_mean

STEPS = (4, 16, 64)
ROWS = (
    ("bptt", "spiking_mlp_mnist"),
    ("truncated_bptt", "spiking_mlp_mnist"),
    ("ottt", "spiking_mlp_mnist"),
    ("sltt", "spiking_mlp_mnist"),
    ("eprop", "eprop_mnist"),
    ("decolle", "decolle_mnist"),
    ("superspike", "superspike_mnist"),
)


class PeakBytes(TorchDispatchMode):
    """The most bytes of new tensors that were alive at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and count what it leaves."""
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and _key(leaf) not in given:
                storage = leaf.untyped_storage()
                self.alive[_key(leaf)] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return found


def measure(rule: str, model: str, T: int) -> int:
    """Peak bytes of one batch."""
    torch.manual_seed(0)
    net = create_model(model, T=T)
    images, labels = torch.rand(50, 1, 28, 28), torch.randint(10, (50,))
    lesson = Lesson(net, images, labels, cross_entropy_of_mean, repeats=T)
    _learn(rule, lesson)  # the gradients, and whatever is made once, are there from now on
    with PeakBytes() as found:
        _learn(rule, lesson)
    return found.peak


def _learn(rule: str, lesson: Lesson) -> None:
    if rule == "bptt":
        lesson.loss(lesson.net(lesson.inputs), lesson.target).backward()  # type: ignore[no-untyped-call]
    else:
        learning_rule(rule)(lesson)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def main() -> None:
    """Print the table."""
    print("| rule | network | " + " | ".join(f"T = {T}" for T in STEPS) + " |")
    print("|---|---|" + "---|" * len(STEPS))
    for rule, model in ROWS:
        sizes = (f"{measure(rule, model, T) / 2**20:.2f}" for T in STEPS)
        print(f"| `{rule}` | `{model}` | {' | '.join(sizes)} |", flush=True)


if __name__ == "__main__":
    main()
