"""The models by name: presets of the families, and how to build one with changes."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from rheobase._errors import unknown_name
from rheobase.neurons import neuron_factory

__all__ = [
    "Family",
    "Official",
    "Untold",
    "create_model",
    "families",
    "list_models",
    "model_family",
]

MakeNeuron = Callable[..., nn.Module]

# One module a family, each with a FAMILY; imported when a model is first asked for.
_MODULES = (
    "rheobase.models.spikformer",
    "rheobase.models.spikformer_ann",
    "rheobase.models.spikformer_v2",
    "rheobase.models.plif_net",
    "rheobase.models.seven_b_net",
    "rheobase.models.sew_resnet",
    "rheobase.models.autosnn",
    "rheobase.models.glif_resnet",
    "rheobase.models.mpbn_resnet",
    "rheobase.models.equilibrium_net",
    "rheobase.models.ms_resnet",
    "rheobase.models.snasnet",
    "rheobase.models.snn_supernet",
    "rheobase.models.spike_prop_net",
    "rheobase.models.spike_response_net",
    "rheobase.models.spiking_densenet",
    "rheobase.models.spiking_mlp",
    "rheobase.models.spiking_vgg",
    "rheobase.models.tdbn_resnet",
    "rheobase.models.tet_resnet",
    "rheobase.models.spike_driven_transformer",
    "rheobase.models.spike_driven_transformer_v2",
    "rheobase.models.meta_spikeformer_dense",
    "rheobase.models.spike_driven_transformer_v3",
    "rheobase.models.spike_driven_transformer_v3_large",
    "rheobase.models.spikingformer",
    "rheobase.models.qkformer",
    "rheobase.models.spiking_resformer",
    "rheobase.models.sglformer",
    "rheobase.models.tim",
    "rheobase.models.max_former",
    "rheobase.models.ann_resnet",
    "rheobase.models.ann_vgg",
    "rheobase.models.mst",
    "rheobase.models.rate_coded_vit",
    # Less-known spiking transformers.
    "rheobase.models.swformer",
    "rheobase.models.ost",
    "rheobase.models.revs_resnet",
    "rheobase.models.revsformer",
    "rheobase.models.spikeformer_ct",
    "rheobase.models.autost",
    "rheobase.models.sts_transformer",
    "rheobase.models.sstformer",
    "rheobase.models.spikformer_lt",
    "rheobase.models.spiking_vit_dts",
    "rheobase.models.dista",
    "rheobase.models.mast",
    "rheobase.models.te_spikformer",
    "rheobase.models.stnet",
    "rheobase.models.spike_t",
    "rheobase.models.sst",
    "rheobase.models.spike_clip",
    "rheobase.models.smmt",
    "rheobase.models.spiking_physformer",
    "rheobase.models.spiking_conformer",
    "rheobase.models.sdit",
    # Of texts.
    "rheobase.models.spikegpt",
    "rheobase.models.spikebert",
    "rheobase.models.spikingbert",
)


class Untold(ValueError):
    """A checkpoint does not tell all of its configuration: official keywords must be given too.

    Args:
        message: what is not told, and which keywords tell it.
        stand_ins: keyword -> some value of it that makes a network of the same parameters.
    """

    def __init__(self, message: str, **stand_ins: Any) -> None:
        super().__init__(message)
        self.stand_ins = stand_ins


@dataclass(frozen=True)
class Official:
    """How the released checkpoints of one system become a network of a family.

    Args:
        config: the config from the official state dict and the official keyword arguments; it
            raises `Untold` for arguments it needs besides.
        rename: our name of an official parameter or neuron; None where the official code never
            uses it.
        mark: a key that tells its checkpoints from another family's, where several families load
            checkpoints of one system.
        sign: a key by which its own released code spells weights that others' has too, to know
            them by when no system is named.
    """

    config: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Any]
    rename: Callable[[str], str | None]
    mark: str | None = None
    sign: str | None = None


@dataclass(frozen=True)
class Family:
    """A model family: a network class and its published configurations.

    A config may have ``neuron_options``: keyword arguments that it gives the paper's neuron.

    Args:
        name: of the family.
        network: ``network(config, make_neuron)``, or ``network(config)`` if it has no neurons.
        presets: config by model name.
        neuron: keyword arguments -> factory of the neuron the paper used; None: no neurons.
        official: how released checkpoints load, by system id.
    """

    name: str
    network: Callable[..., nn.Module]
    presets: Mapping[str, Any]
    neuron: Callable[..., MakeNeuron] | None = None
    official: Mapping[str, Official] = field(default_factory=dict)

    def build(
        self,
        config: Any,
        neuron: str | MakeNeuron | None = None,
        neuron_kwargs: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """The network of a config, with another neuron if one is given."""
        if self.neuron is None:
            if neuron is not None or neuron_kwargs:
                raise ValueError(f"{self.name} has no spiking neurons: leave out neuron=")
            return self.network(config)
        options = dict(neuron_kwargs or {})
        if neuron is None:
            own = getattr(config, "neuron_options", {})
            return self.network(config, self.neuron(**(own | options)))
        return self.network(config, neuron_factory(neuron, **options))


def families() -> list[Family]:
    """All model families."""
    return [importlib.import_module(module).FAMILY for module in _MODULES]


def create_model(
    name: str,
    *,
    neuron: str | MakeNeuron | None = None,
    neuron_kwargs: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a registered model, with changes.

    Args:
        name: one of `list_models`.
        neuron: class, factory or name of another neuron, which then has its own defaults; left
            out, the model has the neuron of its paper.
        neuron_kwargs: keyword arguments of the neuron (of the paper's too).
        overrides: fields of the family's config, such as ``num_classes`` or ``T``.

    Raises:
        ValueError: unknown model, override or neuron (the nearest names are offered), or a value
            that the config refuses.

    >>> net = create_model("spikformer_mnist_2_64", T=2, neuron="plif")
    >>> net.T
    2
    """
    family = _family_of(name)
    preset = family.presets[name]
    fields = [f.name for f in dataclasses.fields(preset)]
    for key in overrides:
        if key not in fields:
            raise ValueError(unknown_name(f"override of {name}", key, fields))
    return family.build(dataclasses.replace(preset, **overrides), neuron, neuron_kwargs)


def list_models(pattern: str = "*") -> list[str]:
    """Names of registered models that match a shell pattern, sorted.

    >>> list_models("spikformer_cifar10_*")
    ['spikformer_cifar10_2_384', 'spikformer_cifar10_4_256', 'spikformer_cifar10_4_384']
    """
    names = (name for family in families() for name in family.presets)
    return sorted(name for name in names if fnmatchcase(name, pattern))


def model_family(name: str) -> str:
    """The family that a model belongs to.

    >>> model_family("sew_resnet18")
    'sew_resnet'
    """
    return _family_of(name).name


def _family_of(name: str) -> Family:
    for family in families():
        if name in family.presets:
            return family
    raise ValueError(unknown_name("model", name, list_models()))
