"""Checks at the door, and the layer to blame when numbers stop being numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rheobase.surrogate import Surrogate

__all__ = [
    "TrainingDiverged",
    "answer_of",
    "check_images",
    "check_known_labels",
    "check_labels",
    "check_surrogates",
    "check_weights",
    "first_nonfinite",
    "time_first",
]


class TrainingDiverged(RuntimeError):
    """Training stopped because the loss or a gradient became NaN, infinite or huge."""


def check_weights(model: nn.Module) -> None:
    """Raise ValueError if a parameter or buffer is NaN or infinite, naming it."""
    for name, tensor in _tensors(model):
        if not _finite(tensor):
            raise ValueError(f"the model's {name!r} holds {_count(tensor)}; mend the weights first")


def check_surrogates(model: nn.Module) -> None:
    """Raise ValueError if a surrogate has learnt a parameter out of its range, naming it."""
    for name, module in model.named_modules():
        if isinstance(module, Surrogate):
            try:
                module.check()
            except ValueError as error:
                raise ValueError(f"the model's {name!r}: {error}") from None


def check_images(images: Tensor) -> None:
    """Raise for a batch that is empty (ValueError), or neither floating nor texts (TypeError).

    Texts are numbers of words, int64 `[N, L]`.
    """
    if images.numel() == 0:
        raise ValueError(f"empty batch: images have shape {list(images.shape)}")
    texts = images.dtype == torch.int64 and images.dim() == 2
    if not images.is_floating_point() and not texts:
        raise TypeError(f"images are {images.dtype}; expected a floating type (images.float()/255)")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError for labels outside `0 ... classes-1`."""
    low, high = map(int, labels.aminmax()) if labels.numel() else (0, 0)
    if low < 0 or high >= classes:
        needed = high + 1
        mend = "number its classes from 0 on" if low < 0 else (
            f"build it with at least {needed} classes (of a run: "
            f"model.overrides.num_classes={needed}, or vocabulary={needed} of a language model)"
        )  # fmt: skip
        raise ValueError(
            f"the data has labels {low}...{high} but the model has {classes} outputs, for labels "
            f"0...{classes - 1}; {mend}"
        )


def check_known_labels(dataset: object, classes: int) -> None:
    """`check_labels` of a dataset that keeps them in memory as ``labels``, as ours do."""
    labels = getattr(dataset, "labels", None)
    if isinstance(labels, Tensor) and labels.dtype == torch.int64:
        check_labels(labels, classes)


def answer_of(model: nn.Module, sample: tuple[Any, Any], device: torch.device) -> tuple[int, int]:
    """Run one sample through the model; return T and its classes.

    Args:
        model: The network.
        sample: An image `[C, H, W]`, a recording `[T, C, H, W]` or a text `[L]`, and its label.
        device: Where the model is.

    Raises:
        TypeError: The dataset does not give a floating tensor.
        ValueError: The model does not return `[T, N, classes]`.
    """
    image, label = sample
    if not isinstance(image, Tensor):
        raise TypeError(f"the dataset gives {type(image).__name__} images; expected a torch.Tensor")
    batch = image.unsqueeze(0)
    check_images(batch)
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(time_first(batch, torch.as_tensor(label)[None])[0].to(device))
    model.train(training)
    if logits.dim() != 3 or logits.shape[1] != 1:
        raise ValueError(
            f"the model returns shape {list(logits.shape)} for one image; "
            "expected every time step, [T, N, classes]"
        )
    return int(logits.shape[0]), int(logits.shape[-1])


def time_first(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and labels as networks and losses take them, time first where there is time.

    A loader stacks event recordings `[T, C, H, W]` to `[N, T, C, H, W]`, and texts that have a
    label at every word to `[N, T]`, as their labels. Images, and texts with one label each, stay.
    """
    if labels.dim() == 2:
        return images.T, labels.T
    return images.transpose(0, 1) if images.dim() == 5 else images, labels


def first_nonfinite(model: nn.Module, rerun: Callable[[], object]) -> str:
    """Name the parameter, layer or gradient that is the first not to be finite, or the largest.

    Args:
        model: The network.
        rerun: Repeats the forward and backward pass that went wrong, without an update.
    """
    for name, tensor in model.named_parameters():
        if not _finite(tensor):
            return f"parameter {name!r} holds {_count(tensor)}"
    found: list[str] = []
    largest = (0.0, "")

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            nonlocal largest
            tensors = _flatten(output)
            bad = [tensor for tensor in tensors if not _finite(tensor)]
            largest = max(largest, *((float(t.detach().abs().max()), name) for t in tensors))
            if bad and not found:
                kind = type(module).__name__
                found.append(f"layer {name!r} ({kind}) is the first whose output holds "
                             f"{_count(bad[0])}")  # fmt: skip

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        rerun()
    finally:
        for hook in hooks:
            hook.remove()
    return (
        found[0]
        if found
        else _first_gradient(model)
        or (
            f"all numbers are finite; the largest, {largest[0]:g}, is an output of layer "
            f"{largest[1]!r}; lower optim.lr or set optim.clip"
        )
    )


def _first_gradient(model: nn.Module) -> str | None:
    # Gradients flow from the last layer to the first: the last bad one went wrong first.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of {name!r} is the first that holds {_count(parameter.grad)}"
    return None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _flatten(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [tensor for item in output for tensor in _flatten(item)]
    return []


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(_whole(tensor)).all())


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    whole: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole


def _count(tensor: Tensor) -> str:
    tensor = _whole(tensor)
    nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return f"{nans} NaN and {infinities} infinite of {tensor.numel()} values"
