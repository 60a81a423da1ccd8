"""CLIP's tokenizer, whose pieces SpikeCLIP's text encoder knows by number."""

from __future__ import annotations

import gzip

from rheobase.data import BytePairs
from rheobase.data.archive import read_members
from rheobase.data.fetch import Source, fetch

__all__ = ["CLIP_WORDS", "load_clip_words"]

CLIP_WORDS = Source(
    client="pip",
    package="open-clip-torch",
    version="3.3.0",
    archive="open_clip_torch-3.3.0-py3-none-any.whl",
    size=1_547_268,
    sha256="c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce",
)

_MERGES = "open_clip/bpe_simple_vocab_16e6.txt.gz"
_PIECES = 49408  # bytes twice, merges, start and end


def load_clip_words() -> BytePairs:
    """The tokenizer; its merges are fetched once through pip (1.5 MB), and only read.

    >>> load_clip_words()(["a photo of a cat"], length=8)  # doctest: +SKIP
    tensor([[49406,   320,  1125,   539,   320,  2368, 49407, 49407]])

    Raises:
        FileNotFoundError, OSError, ChecksumError: as `rheobase.data.fetch`.
    """
    lines = gzip.decompress(read_members(fetch(CLIP_WORDS), [_MERGES])[_MERGES]).decode()
    merges = lines.splitlines()[1:]  # the first is a version
    return BytePairs(merges[: _PIECES - 2 * 256 - 2])
