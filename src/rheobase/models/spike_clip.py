"""SpikeCLIP: images and sentences to one space, by spiking encoders; names of classes are enough.

Li et al. 2023, "SpikeCLIP: A Contrastive Language-Image Pretrained Spiking Neural Network", arXiv
2310.06488; released code: Lvchangze/SpikeCLIP. Images go through a Spikingformer that pools
membranes; sentences, in CLIP's frozen embedding, through two spiking layers. Each encoder sums its
four steps with learnt weights. An image is of the class whose sentences it is most like.

The released weights are two checkpoints, one of each encoder. Images are scaled to 32 x 32 pixels,
bilinearly, and normalised as CLIP's. `rheobase.models.clip_words` has CLIP's tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from rheobase.layers import over_time, repeat
from rheobase.models._inputs import check_positive
from rheobase.models._names import Replacements, depth_of, need_layers, replace_in_turn, split_units
from rheobase.models.registry import Family, MakeNeuron, Official
from rheobase.models.spikingformer import Spikingformer, SpikingformerConfig, spikingformer_neuron

__all__ = [
    "FAMILY", "PRESETS", "ImageEncoder", "ImageEncoderConfig", "SpikeCLIP", "SpikeCLIPConfig",
    "TextEncoder", "TextEncoderConfig", "class_embeddings",
]  # fmt: skip

# The logarithms of 0.1, 0.2, 0.4 and 0.8: one weight a step, so T is four.
_WEIGHTS = (-2.3026, -1.6094, -0.9163, -0.2231)
T = len(_WEIGHTS)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """The image encoder: a Spikingformer's sizes, see `SpikingformerConfig`."""

    embedding: int = 512
    depth: int = 4
    dim: int = 384
    heads: int = 8
    mlp_ratio: float = 4.0
    image_size: int = 32
    channels: int = 3

    @property
    def spikingformer(self) -> SpikingformerConfig:
        """What it is made of."""
        return SpikingformerConfig(
            self.depth, self.dim, self.heads, self.image_size, self.channels, self.embedding, T,
            mlp_ratio=self.mlp_ratio, cml=True,
        )  # fmt: skip

    def __post_init__(self) -> None:
        _ = self.spikingformer  # which checks the sizes


@dataclass(frozen=True)
class TextEncoderConfig:
    """The text encoder.

    Args:
        embedding: channels of a piece's embedding, and of the output.
        hidden: neurons of the second layer.
        length: pieces of a sentence, start, end and padding with them.
        vocabulary: pieces; 0: there is no embedding, and what comes in is embedded.
        positions: of the embedding, of which the first ``length`` are used.

    Raises:
        ValueError: sizes that are not positive; fewer positions than pieces.
    """

    embedding: int = 512
    hidden: int = 2048
    length: int = 20
    vocabulary: int = 49408
    positions: int = 77

    def __post_init__(self) -> None:
        check_positive(embedding=self.embedding, hidden=self.hidden, length=self.length)
        if self.positions < self.length:
            raise ValueError(
                f"positions={self.positions} are fewer than the pieces of a sentence, "
                f"length={self.length}"
            )


@dataclass(frozen=True)
class SpikeCLIPConfig(ImageEncoderConfig, TextEncoderConfig):
    """One SpikeCLIP: the fields of both encoders; ``embedding`` is the space that they share.

    Raises:
        ValueError: see `ImageEncoderConfig` and `TextEncoderConfig`.
    """

    @property
    def image(self) -> ImageEncoderConfig:
        """Of the image encoder."""
        return ImageEncoderConfig(**self._fields_of(ImageEncoderConfig))

    @property
    def text(self) -> TextEncoderConfig:
        """Of the text encoder."""
        return TextEncoderConfig(**self._fields_of(TextEncoderConfig))

    def _fields_of(self, kind: type[ImageEncoderConfig | TextEncoderConfig]) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(kind)}

    def __post_init__(self) -> None:
        _ = self.image, self.text  # which check their sizes


def _time_weights() -> nn.Parameter:
    return nn.Parameter(torch.tensor(_WEIGHTS).view(1, T, 1))


def _weighted(x: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over time of ``[T, N, C]``."""
    return (x * weights.view(T, 1, 1)).sum(0)


class ImageEncoder(Spikingformer):
    """Images to vectors.

    >>> net = ImageEncoder(ImageEncoderConfig(16, depth=1, dim=16, heads=2))
    >>> net(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 16])
    """

    causal = False  # all four steps make one vector

    def __init__(self, config: ImageEncoderConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__(config.spikingformer, make_neuron)
        self.config = config
        self.time_weights = _time_weights()

    def logits(self, x: Tensor) -> Tensor:
        """Vectors ``[N, embedding]`` of a checked sequence of four steps.

        Raises:
            ValueError: another number of steps.
        """
        if len(x) != T:
            raise ValueError(
                f"SpikeCLIP weighs {T} steps, got {len(x)}; give images [N, C, H, W], or as many"
            )
        vectors: Tensor = self.head(_weighted(self.features(x).mean((-2, -1)), self.time_weights))
        return vectors


class TextEncoder(nn.Module):
    """Sentences to vectors: two spiking layers on the embedding of all pieces at once.

    >>> net = TextEncoder(TextEncoderConfig(16, hidden=32, vocabulary=100))
    >>> net(torch.randint(0, 100, (3, 20))).shape
    torch.Size([3, 16])
    """

    causal = False

    def __init__(self, config: TextEncoderConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        make_neuron = make_neuron or spikingformer_neuron()
        self.config = config
        if config.vocabulary:
            self.words = nn.Embedding(config.vocabulary, config.embedding)
            self.places = nn.Embedding(config.positions, config.embedding)
            for table in (self.words, self.places):
                table.requires_grad_(False)  # CLIP's own
                nn.init.normal_(table.weight, std=0.02)
        self.neuron1, self.neuron2 = make_neuron(), make_neuron()
        self.fc1 = nn.Linear(config.length * config.embedding, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.embedding)
        self.time_weights = _time_weights()

    def forward(self, x: Tensor) -> Tensor:
        """Vectors ``[N, embedding]``.

        Args:
            x: numbers of pieces ``[N, length]``, or what they are embedded as, floating point
                ``[N, length, embedding]``.

        Raises:
            ValueError: another shape, or numbers where there is no embedding.
        """
        config = self.config
        if not x.is_floating_point():
            x = self._embedded(x)
        if x.dim() != 3 or x.shape[1:] != (config.length, config.embedding):
            raise ValueError(
                f"a sentence is {config.length} pieces, [N, {config.length}], or their embedding "
                f"[N, {config.length}, {config.embedding}]; got {list(x.shape)}"
            )
        x = self.neuron1(repeat(x.flatten(1), T))
        x = over_time(self.neuron2(over_time(x, self.fc1)), self.fc2)
        return _weighted(x, self.time_weights)

    def _embedded(self, ids: Tensor) -> Tensor:
        if not self.config.vocabulary:
            raise ValueError("this text encoder has no embedding: give what pieces are embedded as")
        if ids.dim() != 2 or ids.shape[1] != self.config.length:
            raise ValueError(
                f"a sentence is {self.config.length} pieces, [N, {self.config.length}]; got "
                f"{list(ids.shape)}"
            )
        vectors: Tensor = self.words(ids) + self.places.weight[: ids.shape[1]]
        return vectors


class SpikeCLIP(nn.Module):
    """SpikeCLIP: both encoders.

    Args:
        config: sizes.
        make_neuron: makes each neuron; default Spikingformer's.

    >>> sizes = {"embedding": 16, "depth": 1, "dim": 16, "heads": 2, "hidden": 32}
    >>> net = SpikeCLIP(SpikeCLIPConfig(**sizes, vocabulary=100))
    >>> net(torch.rand(2, 3, 32, 32), torch.randint(0, 100, (5, 20))).shape
    torch.Size([2, 5])
    """

    causal = False

    def __init__(self, config: SpikeCLIPConfig, make_neuron: MakeNeuron | None = None) -> None:
        super().__init__()
        self.config = config
        self.T = T
        self.image = ImageEncoder(config.image, make_neuron)
        self.text = TextEncoder(config.text, make_neuron)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """How alike images and sentences are, cosines ``[N, M]``.

        Args:
            images: ``[N, C, H, W]``, normalised as CLIP's.
            texts: numbers of pieces ``[M, length]``, or class vectors ``[M, embedding]`` that
                `class_embeddings` gave.

        Raises:
            TypeError: images are not floating point.
            ValueError: wrong shapes.
        """
        alike = texts.is_floating_point() and texts.dim() == 2
        vectors = texts if alike else normalize(self.text(texts), dim=-1)
        return normalize(self.image(images), dim=-1) @ vectors.T


@torch.no_grad()
def class_embeddings(
    text: TextEncoder,
    tokenizer: Callable[[Sequence[str], int], Tensor],
    classes: Sequence[str],
    templates: Sequence[str] = ("a photo of a {}.",),
) -> Tensor:
    """A vector of each class: the mean of what its sentences are encoded as.

    Args:
        text: the encoder.
        tokenizer: sentences and a length to numbers of pieces ``[N, length]``, such as
            `rheobase.data.BytePairs`.
        classes: their names.
        templates: sentences with ``{}`` in the place of the name.

    Returns:
        ``[classes, embedding]``, for `SpikeCLIP`.

    Raises:
        ValueError: no class, or no template.
    """
    if not classes or not templates:
        raise ValueError(f"expected classes and templates, got {classes!r} and {templates!r}")
    device = next(text.parameters()).device
    vectors = []
    for name in classes:
        sentences = [template.format(name) for template in templates]
        ids = tokenizer(sentences, text.config.length).to(device)
        vectors.append(normalize(text(ids), dim=-1).mean(0))
    return torch.stack(vectors)


Config = ImageEncoderConfig | TextEncoderConfig  # or both: `SpikeCLIPConfig`


def _network(config: Config, make_neuron: MakeNeuron | None = None) -> nn.Module:
    """The network, or one of its encoders alone."""
    if isinstance(config, SpikeCLIPConfig):
        return SpikeCLIP(config, make_neuron)
    if isinstance(config, ImageEncoderConfig):
        return ImageEncoder(config, make_neuron)
    return TextEncoder(config, make_neuron)


PRESETS = {"spike_clip": SpikeCLIPConfig()}


_NEVER_USED = re.compile(r"clip_embedding\.position_ids$")
_OURS: Replacements = {
    r"^weights_tensor$": "time_weights",
    r"^clip_embedding\.token_embedding\.": "words.",
    r"^clip_embedding\.position_embedding\.": "places.",
    r"^mlp_lif(\d)$": r"neuron\1",
    r"^proj\.": "head.",
    # Of an image encoder neuron and convolution of a stage are numbered apart.
    r"^patch_embed\.block(\d)_lif$": lambda m: f"stem.stages.{int(m[1]) - 1}.neuron",
    r"^patch_embed\.block0_(conv|bn)\.": r"stem.first.\1.",
    r"^patch_embed\.block(\d)_(conv|bn)\.": lambda m: f"stem.stages.{int(m[1]) - 1}.{m[2]}.",
    r"^(stem\..*)\.bn\.": r"\1.norm.",
}


def _rename(key: str) -> str | None:
    if _NEVER_USED.match(key):
        return None
    if not key.startswith("block."):
        return replace_in_turn(key, _OURS)
    key = split_units(key).replace("attn.attn.neuron", "attn.neuron")
    key = key.replace("attn.proj.neuron", "attn.input")
    return re.sub(r"\.mlp([12])\.", r".fc\1.", re.sub(r"^block\.", "blocks.", key))


def _config(weights: Mapping[str, Tensor], kwargs: Mapping[str, Any]) -> Config:
    ours = {name: value for key, value in weights.items() if (name := _rename(key)) is not None}
    if "stem.first.conv.weight" in ours:
        need_layers(ours, "a SpikeCLIP image", "blocks.0.mlp.fc1.conv", "head", "time_weights")
        embedding, dim = ours["head.weight"].shape
        return ImageEncoderConfig(
            embedding, depth_of(ours, "blocks"), dim, kwargs.get("num_heads", 8),
            ours["blocks.0.mlp.fc1.conv.weight"].shape[0] / dim,
            channels=ours["stem.first.conv.weight"].shape[1],
        )  # fmt: skip
    need_layers(ours, "a SpikeCLIP", "fc1", "fc2", "time_weights")
    embedding, hidden = ours["fc2.weight"].shape
    words, places = ours.get("words.weight"), ours.get("places.weight")
    return TextEncoderConfig(
        embedding, hidden, ours["fc1.weight"].shape[1] // embedding,
        vocabulary=0 if words is None else len(words),
        positions=77 if places is None else len(places),
    )  # fmt: skip


FAMILY = Family(
    "spike_clip",
    network=_network,
    presets=PRESETS,
    neuron=spikingformer_neuron,
    official={"spike_clip": Official(_config, _rename)},
)
