"""Words to the pieces that BERT knows, and sentences to padded batches of their numbers."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["WordPiece", "words_of"]

_LONGEST_WORD = 100
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPiece:
    """The tokenizer of BERT. Source: Devlin et al. 2019, arXiv 1810.04805.

    Text is lower-cased and accents are dropped, unless cased; words end at spaces and around each
    punctuation mark; a word is cut into the longest pieces of the vocabulary, from its start on.

    Args:
        vocabulary: the pieces, by number; those inside a word start with ``##``.
        cased: whether upper case and accents stay, as in cased BERT.

    Raises:
        ValueError: the vocabulary lacks [PAD], [UNK], [CLS] or [SEP].

    >>> words = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "spik", "##ing", "!"])
    >>> words(["Spiking!", "ö!"])[0]
    tensor([[2, 4, 5, 6, 3],
            [2, 1, 6, 3, 0]])
    """

    def __init__(self, vocabulary: Sequence[str], *, cased: bool = False) -> None:
        self._number = {piece: number for number, piece in enumerate(vocabulary)}
        self._cased = cased
        missing = [piece for piece in _SPECIAL if piece not in self._number]
        if missing:
            raise ValueError(f"this is no vocabulary of BERT: it lacks {', '.join(missing)}")

    def __len__(self) -> int:
        return len(self._number)

    @property
    def padding(self) -> int:
        """The number of [PAD]."""
        return self._number["[PAD]"]

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
        ids = torch.tensor([row + [self.padding] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return ids, mask

    def _row(self, sentence: str, longest: int) -> list[int]:
        pieces = [number for word in _words(sentence, self._cased) for number in self._pieces(word)]
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


def words_of(sentences: Sequence[str], *, least: int = 2, cased: bool = False) -> list[str]:
    """A vocabulary without pieces: the words that occur so often, the commonest first.

    >>> words_of(["a spike", "a spike or none"])
    ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'spike']
    """
    counts = Counter(word for sentence in sentences for word in _words(sentence, cased))
    return [*_SPECIAL, *(word for word, count in counts.most_common() if count >= least)]


def _words(text: str, cased: bool) -> list[str]:
    """Words, lower-cased and without accents unless cased; marks and ideographs are words."""
    plain = text if cased else unicodedata.normalize("NFD", text.lower())
    dropped = ("Cc", "Cf") if cased else ("Mn", "Cc", "Cf")
    kept = [c for c in plain if unicodedata.category(c) not in dropped or c.isspace()]
    spaced = "".join(f" {c} " if _alone(c) else c for c in kept)
    return spaced.split()


def _alone(c: str) -> bool:
    ascii_mark = c.isascii() and not c.isalnum() and not c.isspace()
    return ascii_mark or unicodedata.category(c).startswith("P") or "\u3400" <= c <= "\u9fff"
