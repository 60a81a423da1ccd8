"""``rheobase convert``: an ANN by name, its weights, a data set, recipes; a table and a page."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase._paths import write_text
from rheobase.convert import RECIPES, convert, recipes
from rheobase.data import get_dataset
from rheobase.experiments.conversion_curve import conversion_curves, table
from rheobase.experiments.conversion_page import curve_page
from rheobase.models.foreign import load_module

__all__ = ["convert_from_options", "load_images"]


def convert_from_options(options: argparse.Namespace) -> int:
    """What the command does."""
    given = _numbers(options.T, "--T")
    steps = [int(number) for number in given]
    if steps != given or min(steps) < 1:
        raise ValueError(f"--T takes whole numbers of at least 1 with commas, got {options.T!r}")
    if options.calibration < 1 or options.test < 1:
        raise ValueError(
            f"--calibration and --test are at least 1, got {options.calibration}, {options.test}"
        )
    for name in options.recipe or []:
        if name not in (*RECIPES, "training_free"):
            raise ValueError(unknown_name("recipe", name, [*RECIPES, "training_free"]))
    ann = load_module(options.model, options.weights)
    mean = _numbers(options.mean, "--mean")
    deviation = _numbers(options.std, "--std")
    calibration, _ = load_images(options.data, True, options.calibration, mean, deviation)
    images, labels = load_images(options.data, False, options.test, mean, deviation)
    names = options.recipe or ["calibration_light"]
    if names == ["training_free"]:
        names = [one.name for one in recipes() if "training" not in one.needs]
    accuracy = _accuracy(ann, images, labels, options)
    curves = conversion_curves(
        ann, calibration, images, labels, steps, names, results=options.results
    )
    print(f"ANN: {accuracy:.2f} % of {len(images)} test images")
    print(table(curves, steps))
    for curve in curves:
        for note in filter(None, (curve.why_not, *curve.warned)):
            print(f"{curve.recipe}: {note}")
    fitting = [curve.recipe for curve in curves if max(steps) in curve.accuracy]
    if not options.report and not options.train:
        return 0 if fitting else 2
    shown = fitting[0] if fitting else names[0]
    net = convert(ann, calibration, recipe=shown, T=max(steps))
    if options.report:
        title = f"{options.model} converted"
        page = curve_page(title, accuracy, len(images), curves, net, steps)
        write_text(Path(options.report), page)
        print(f"report: {options.report}")
    if options.train:
        _train_further(net, options.train, options.data, mean, deviation)
    return 0


def _accuracy(ann: nn.Module, images: Tensor, labels: Tensor, options: argparse.Namespace) -> float:
    """Of the network itself, in percent."""
    try:
        with torch.no_grad():
            right = torch.cat([ann(x).argmax(1) for x in torch.split(images, 250)]) == labels
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        shape = ", ".join(["N", *map(str, images.shape[1:])])
        raise ValueError(
            f"{options.model} does not take the images of {options.data}, [{shape}]: {error}; "
            "take another data set, or a network that gives [N, classes] for them"
        ) from error
    return 100.0 * right.double().mean().item()


def _train_further(
    net: nn.Module, settings: list[str], data: str, mean: list[float], deviation: list[float]
) -> None:
    """Train on images that are normalised as those of the conversion."""
    # Takes a second, which conversion alone need not wait for.
    from rheobase.train import load_config, train

    cfg = load_config(None, settings)
    images = replace(cfg.data, name=data)
    if mean != [0.0] or deviation != [1.0]:
        images = replace(images, mean=tuple(mean), std=tuple(deviation))
    done = train(replace(cfg, data=images), net)
    print(f"trained further: {100.0 * done.accuracy:.2f} % of all test images in {done.run}")


def load_images(
    data: str, train: bool, count: int, mean: list[float], deviation: list[float]
) -> tuple[Tensor, Tensor]:
    """The first ``count`` images, normalised, and their labels."""
    dataset = get_dataset(data, train=train)
    pairs = [dataset[i] for i in range(min(count, len(dataset)))]
    images = torch.stack([image for image, _ in pairs])
    channels = images.shape[1]
    if {len(mean), len(deviation)} - {1, channels} or 0.0 in deviation:
        raise ValueError(
            f"--mean and --std take one number, or one for each of the {channels} channels of "
            f"{data}, and no deviation of 0; got {mean} and {deviation}"
        )
    shape = (-1, 1, 1)
    images = (images - torch.tensor(mean).view(shape)) / torch.tensor(deviation).view(shape)
    return images, torch.tensor([label for _, label in pairs])


def _numbers(words: str, option: str) -> list[float]:
    try:
        return [float(word) for word in words.split(",")]
    except ValueError as error:
        raise ValueError(f"{option} takes numbers with commas, got {words!r}") from error
