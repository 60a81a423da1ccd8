"""SpikingBERT: a BERT whose every layer fires, trained at its equilibrium.

Bal & Sengupta 2024, "SpikingBERT: Distilling BERT to Train Spiking Language Models Using Implicit
Differentiation", AAAI, arXiv 2308.10873; released code: NeuroCompLab-psu/SpikingBERT. The
embedding is a constant current; behind each part of an encoder (keys, values, attention, its
output, the MLP's two layers) stands an integrate-and-fire neuron with soft reset. What a layer
says is its average spiking rate (ASR) over many steps.

Training goes back through no step. At equilibrium rates satisfy, layer by layer, ``a = clip(f(a) /
threshold, 0, 1)``, and by the implicit function theorem the gradient is that of this map. The
released code has no feedback (it is switched off), so there is nothing to solve: the gradient is
that of an ordinary network with clipped activations, in whose place the measured rates are read.
Beyond the first layer those are not its activations, however long one waits: norms, GELU and
softmax act on spikes, not on their means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.layers import repeat
from rheobase.models._inputs import check_divides, check_positive
from rheobase.models._names import heads_of, need_layers
from rheobase.models._text import check_ids
from rheobase.models.bert import BertConfig, Embeddings, Intermediate, Output, split_words
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.neurons import IF, neuron_factory

__all__ = ["FAMILY", "PRESETS", "SpikingBERT", "SpikingBERTConfig", "spikingbert_neuron"]

_NEVER = -1e4  # added to the scores of padding


@dataclass(frozen=True)
class SpikingBERTConfig:
    """One SpikingBERT; the defaults are the released ones, with four encoders.

    Dropout, which the released training has, is left out.

    Args:
        vocabulary: pieces of words that it knows; number 0 is padding.
        dim: width, a multiple of ``heads``.
        depth: encoders.
        heads: of the attention.
        hidden: width of the hidden layer of the MLP.
        positions: the longest text.
        num_classes: outputs.
        T: time steps; from 80 on in the paper.
        v_threshold: of the neurons.
        distilled: whether a layer turns the rates of embedding and encoders into what layers of
            BERT are compared with (``representations.0`` and on).
        init_std: deviation of the weights that it starts with. Much narrower networks need more:
            with BERT's own, too little comes through their attention to learn from.

    Raises:
        ValueError: a size that is not positive, or ``heads`` that do not divide ``dim``.
    """

    vocabulary: int = 30522
    dim: int = 768
    depth: int = 4
    heads: int = 12
    hidden: int = 3072
    positions: int = 512
    num_classes: int = 2
    T: int = 100
    v_threshold: float = 1.0
    distilled: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_positive(
            vocabulary=self.vocabulary, dim=self.dim, depth=self.depth, hidden=self.hidden,
            positions=self.positions, num_classes=self.num_classes, T=self.T,
            v_threshold=self.v_threshold, init_std=self.init_std,
        )  # fmt: skip
        check_divides("heads", self.heads, self.dim, f"dim={self.dim}")

    @property
    def neuron_options(self) -> dict[str, Any]:
        """Of the paper's neuron."""
        return {"v_threshold": self.v_threshold}

    @property
    def bert(self) -> BertConfig:
        """Of the parts that are BERT's own."""
        return BertConfig(
            self.vocabulary, self.dim, self.depth, self.heads, self.hidden, self.positions
        )


def spikingbert_neuron(**kwargs: Any) -> MakeNeuron:
    """Integrate-and-fire with soft reset."""
    return neuron_factory(IF, **({"v_reset": None} | kwargs))


class Fires(nn.Module):
    """A neuron, and what its rate is for a constant current.

    Args:
        neuron: it.
        v_threshold: the current at which it fires at every step.
    """

    def __init__(self, neuron: nn.Module, v_threshold: float) -> None:
        super().__init__()
        self.neuron = neuron
        self.v_threshold = v_threshold

    def forward(self, x: Tensor, settled: bool) -> Tensor:
        """Currents ``[T, N, ...]`` to spikes, or, where all have settled, to rates."""
        y: Tensor = (x / self.v_threshold).clamp(0.0, 1.0) if settled else self.neuron(x)
        return y


class Encoder(nn.Module):
    """Attention and MLP of BERT; behind each of six parts a neuron."""

    def __init__(self, config: SpikingBERTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.heads = config.heads
        self.key = nn.Linear(config.dim, config.dim)
        self.value = nn.Linear(config.dim, config.dim)
        self.query = nn.Linear(config.dim, config.dim)
        self.attention_output = Output(config.bert, config.dim)
        self.intermediate = Intermediate(config.bert)
        self.output = Output(config.bert, config.hidden)
        self.fires = nn.ModuleList(Fires(make_neuron(), config.v_threshold) for _ in range(6))

    def forward(self, x: Tensor, mask: Tensor, settled: bool) -> Tensor:
        """Spikes (or rates) ``[T, N, L, dim]`` and what is added to scores, to the same shape."""
        keys, values, attends, attended, widens, narrows = self.fires
        k, v = keys(self.key(x), settled), values(self.value(x), settled)
        y = attends(self._attend(self.query(x), k, v, mask), settled)
        x = attended(self.attention_output(y, x), settled)
        y = widens(self.intermediate(x), settled)
        out: Tensor = narrows(self.output(y, x), settled)
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (split_words(one, self.heads) for one in (q, k, v))
        scores = q @ k.mT / q.shape[-1] ** 0.5 + mask
        y: Tensor = (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)
        return y


class SpikingBERT(nn.Module):
    """SpikingBERT: words to logits.

    Args:
        config: sizes.
        make_neuron: makes each neuron.

    >>> import torch
    >>> config = SpikingBERTConfig(100, dim=32, depth=1, heads=2, hidden=64, T=10)
    >>> SpikingBERT(config, spikingbert_neuron())(torch.randint(100, (3, 16))).shape
    torch.Size([10, 3, 2])
    """

    def __init__(self, config: SpikingBERTConfig, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.config = config
        self.T = config.T
        self.embeddings = Embeddings(config.bert)
        self.fires = Fires(make_neuron(), config.v_threshold)
        self.encoders = nn.ModuleList(Encoder(config, make_neuron) for _ in range(config.depth))
        taps = config.depth + 1 if config.distilled else 0
        self.fit = nn.Linear(config.dim, config.dim) if config.distilled else None
        self.representations = nn.ModuleList(nn.Identity() for _ in range(taps))
        self.head = nn.Linear(config.dim, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.init_std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self, ids: Tensor, segments: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Logits; their mean over the first axis is the paper's output.

        Args:
            ids: numbers of words, int64 ``[N, L]``.
            segments: 0 for the first sentence, 1 for the second, likewise; None: all 0.
            mask: 1 for words, 0 for padding, likewise; None: what is not number 0 is a word.

        Returns:
            ``[T, N, num_classes]``.

        Raises:
            TypeError, ValueError: ``ids`` are no such matrix, too long, or hold what is no word.
        """
        config = self.config
        check_ids(ids, config.vocabulary)
        if ids.shape[1] > config.positions:
            raise ValueError(
                f"the text has {ids.shape[1]} words, the network positions={config.positions}; cut "
                "it, or build the network with more"
            )
        words = ids.ne(0) if mask is None else mask.ne(0)
        current = self.embeddings(ids, segments)
        never = (~words)[:, None, None, :].to(current.dtype) * _NEVER
        with torch.no_grad():
            spikes = self._layers(repeat(current, self.T), never, settled=False)
        rates = [layer.mean(0) for layer in spikes]
        if torch.is_grad_enabled():
            settled = self._layers(current.unsqueeze(0), never, settled=True)
            # The value is the measured rate, the gradient that of the equilibrium.
            ahead = [a[0] - a[0].detach() for a in settled]
            rates = [rate + zero for rate, zero in zip(rates, ahead, strict=True)]
            last = spikes[-1][:, :, 0] + ahead[-1][:, 0]
        else:
            last = spikes[-1][:, :, 0]
        if self.fit is not None:
            for tap, rate in zip(self.representations, rates, strict=True):
                tap(self.fit(rate))  # for who watches it: a teacher
        logits: Tensor = self.head(last)
        return logits

    def _layers(self, current: Tensor, mask: Tensor, *, settled: bool) -> list[Tensor]:
        """What embedding and encoders fire, ``[T, N, L, dim]`` each; or their settled rates."""
        layers = [self.fires(current, settled)]
        for encoder in self.encoders:
            layers.append(encoder(layers[-1], mask, settled))
        return layers


# Parts of an encoder in the order of the official numbers, and its neurons.
_PARTS = ("key", "value", "query", "attention_output", "intermediate", "output")
_NUMBERED = re.compile(r"^network_s(\d+)\.(?:dense\.|query\.)?(.*)$")
_SPARE = ("snn_func", "snn_ide_conv", "pooler_layer", "network_s")


def rename(key: str) -> str | None:
    """Our name of an official one; None for copies, and for feedback and pooler, never used.

    >>> rename("network_s10.LayerNorm.bias"), rename("network_s9.query.weight")
    ('encoders.1.attention_output.LayerNorm.bias', 'encoders.1.query.weight')
    """
    numbered = _NUMBERED.match(key)
    if numbered is not None and ".fc." not in key:
        encoder, part = divmod(int(numbered[1]) - 1, 6)
        dense = "dense." if part > 2 and ".dense." in key else ""
        return f"encoders.{encoder}.{_PARTS[part]}.{dense}{numbered[2]}"
    if key.startswith(_SPARE):
        return None
    key = re.sub("^network_x", "embeddings", key)
    return re.sub("^fit_dense", "fit", re.sub("^classification", "head", key))


def config_from_official(
    weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]
) -> SpikingBERTConfig:
    """The config of an official state dict and the official arguments.

    Those are of its constructor (``t_conv``, ``vth``) and its ``config.json``.
    """
    words, middle = "network_x.word_embeddings", "network_s5.dense"
    need_layers(weights, "a SpikingBERT", words, middle, "network_s3.query", "classification")
    vocabulary, dim = weights[f"{words}.weight"].shape
    dense = (re.match(r"network_s(\d+)\.dense", key) for key in weights)
    return SpikingBERTConfig(
        vocabulary,
        dim,
        max(int(match[1]) for match in dense if match is not None) // 6,
        heads_of(kwargs, (12,), dim, name="num_attention_heads"),
        len(weights[f"{middle}.weight"]),
        len(weights["network_x.position_embeddings.weight"]),
        len(weights["classification.weight"]),
        T=kwargs.get("t_conv", 100),
        v_threshold=kwargs.get("vth", 1.0),
        distilled="fit_dense.weight" in weights,
    )


PRESETS = {"spikingbert_4_768": SpikingBERTConfig()}

FAMILY = Family(
    "spikingbert",
    network=SpikingBERT,
    presets=PRESETS,
    neuron=spikingbert_neuron,
    official={"spikingbert": Official(config_from_official, rename)},
)
