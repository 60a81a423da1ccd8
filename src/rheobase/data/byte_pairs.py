"""Sentences to the pieces that CLIP knows: byte pairs, merged in the order they were learnt."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["BytePairs"]

_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\w\s]|_)+")
_END = "</w>"


class BytePairs:
    """The tokenizer of CLIP. Source: Radford et al. 2021, arXiv 2103.00020; Sennrich et al. 2016.

    Text is lower-cased and cut into words, digits and runs of other marks; each is spelt in bytes,
    whose pairs are joined, the pair learnt earliest first. Pieces are numbered: bytes, bytes that
    end a word, merges, the start and the end of a sentence.

    Args:
        merges: pairs in the order they were learnt, "a b" each; a piece that ends a word is marked
            ``</w>``, bytes that are no printable characters are written as ``Ā``, ``ā``, ... .

    Raises:
        ValueError: a merge is no pair.

    >>> pieces = BytePairs(["c a", "ca t</w>"])
    >>> pieces(["A cat!"], length=6)
    tensor([[514, 320, 513, 256, 515, 515]])
    """

    def __init__(self, merges: Sequence[str]) -> None:
        pairs = [tuple(merge.split(" ")) for merge in merges]
        wrong = next((merge for merge, p in zip(merges, pairs, strict=True) if len(p) != 2), None)
        if wrong is not None:
            raise ValueError(f"a merge is two pieces with a space between, got {wrong!r}")
        self._letters = _letters()
        letters = list(self._letters.values())
        pieces = letters + [letter + _END for letter in letters] + ["".join(p) for p in pairs]
        self._number = {piece: number for number, piece in enumerate(pieces)}
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}
        self.start, self.end = len(pieces), len(pieces) + 1
        self._pieces = lru_cache(maxsize=2**16)(self._merged)

    def __call__(self, sentences: Sequence[str], length: int = 77) -> Tensor:
        """Numbers of sentences, ``[N, length]``.

        Args:
            sentences: at least one.
            length: start and end count; what is longer is cut off, what is shorter is filled with
                the number of the end.

        Raises:
            ValueError: there is no sentence, or no room for start and end.
        """
        if isinstance(sentences, str) or not sentences:
            raise ValueError(f"expected a list of one or more sentences, got {sentences!r}")
        if length < 2:
            raise ValueError(f"sentences take 2 pieces or more, start and end; got length={length}")
        rows = []
        for sentence in sentences:
            words = _WORD.findall(html.unescape(sentence).lower())
            numbers = [number for word in words for number in self._pieces(word)][: length - 2]
            ends = [self.end] * (length - 1 - len(numbers))
            rows.append([self.start, *numbers, *ends])
        return torch.tensor(rows)

    def _merged(self, word: str) -> tuple[int, ...]:
        pieces = [self._letters[byte] for byte in word.encode()]
        pieces[-1] += _END
        never = len(self._rank)
        while len(pieces) > 1:
            ranks = [self._rank.get(pair, never) for pair in pairwise(pieces)]
            least = min(ranks)
            if least == never:
                break
            joined: list[str] = []
            place = 0
            while place < len(pieces):
                merges = place < len(ranks) and ranks[place] == least
                joined.append("".join(pieces[place : place + 1 + merges]))
                place += 1 + merges
            pieces = joined
        return tuple(self._number[piece] for piece in pieces)


def _letters() -> dict[int, str]:
    """A character for each byte, in the order in which they are numbered."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }
