"""The recipes: every conversion method as a record."""

from __future__ import annotations

from rheobase.convert.recipe import (
    NeuronRule,
    Recipe,
    Statistic,
)

__all__ = ["RECIPES"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "rueckauer_max",
            "Rueckauer et al. 2017, Frontiers in Neuroscience 11:682",
            statistic=Statistic("max"),
        ),
        Recipe(
            "qcfs",
            "Bu et al. 2022, ICLR (QCFS)",
            source=("qcfs",),
            statistic=Statistic("learned"),
            neuron=NeuronRule(start=0.5),
            needs=("training",),
        ),
    )
}
