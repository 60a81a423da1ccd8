"""Words to the pieces that BERT knows, and sentences to padded batches of their numbers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["WordPiece"]

_LONGEST_WORD = 100


class WordPiece:
    """The tokenizer of uncased BERT. Source: Devlin et al. 2019, arXiv 1810.04805.

    Text is lower-cased, accents are dropped, words end at spaces and around each punctuation mark;
    a word is cut into the longest pieces of the vocabulary, from its start on.

    Args:
        vocabulary: the pieces, by number; those inside a word start with ``##``.

    Raises:
        ValueError: the vocabulary lacks [PAD], [UNK], [CLS] or [SEP].

    >>> words = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "spik", "##ing", "!"])
    >>> words(["Spiking!", "ö!"])[0]
    tensor([[2, 4, 5, 6, 3],
            [2, 1, 6, 3, 0]])
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._number = {piece: number for number, piece in enumerate(vocabulary)}
        missing = [p for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if p not in self._number]
        if missing:
            raise ValueError(f"this is no vocabulary of BERT: it lacks {', '.join(missing)}")

    def __call__(self, sentences: Sequence[str], longest: int = 256) -> tuple[Tensor, Tensor]:
        """Numbers and mask (1 for pieces, 0 for padding) of sentences, both ``[N, L]``.

        Args:
            sentences: at least one.
            longest: what exceeds this many pieces is cut off.

        Raises:
            ValueError: there is no sentence.
        """
        if isinstance(sentences, str) or not sentences:
            raise ValueError(f"expected a list of one or more sentences, got {sentences!r}")
        rows = [self._row(sentence, longest) for sentence in sentences]
        length = max(map(len, rows))
        pad = self._number["[PAD]"]
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return ids, mask

    def _row(self, sentence: str, longest: int) -> list[int]:
        pieces = [number for word in _words(sentence) for number in self._pieces(word)]
        return [self._number["[CLS]"], *pieces[: longest - 2], self._number["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        unknown = [self._number["[UNK]"]]
        if len(word) > _LONGEST_WORD:
            return unknown
        numbers: list[int] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._number), None)
            if end is None:
                return unknown
            numbers.append(self._number[mark + word[start:end]])
            start = end
        return numbers


def _words(text: str) -> list[str]:
    """Lower-cased words without accents; every punctuation mark or ideograph is a word."""
    plain = unicodedata.normalize("NFD", text.lower())
    kept = [c for c in plain if unicodedata.category(c) not in ("Mn", "Cc", "Cf") or c.isspace()]
    spaced = "".join(f" {c} " if _alone(c) else c for c in kept)
    return spaced.split()


def _alone(c: str) -> bool:
    ascii_mark = c.isascii() and not c.isalnum() and not c.isspace()
    return ascii_mark or unicodedata.category(c).startswith("P") or "\u3400" <= c <= "\u9fff"
