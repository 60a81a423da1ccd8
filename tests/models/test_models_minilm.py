"""The real sentence transformer: its numbers, and what is left of them after conversion."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rheobase.convert import Preparation, convert
from rheobase.convert.transformers import count_spikes
from rheobase.data import WordPiece
from rheobase.experiments.sentences import of_one_length
from rheobase.models.bert import sentence_embedding
from rheobase.models.minilm import load_minilm

FOLDER = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parents[1] / "goldens"))
REFERENCE = FOLDER / "language" / "minilm_l6_reference.npz"


@pytest.mark.golden
@pytest.mark.long  # fetches 84 MB once
@torch.no_grad()
def test_embeddings_are_those_of_the_reference_and_survive_conversion():
    if not REFERENCE.exists():
        pytest.skip(f"no {REFERENCE.name} in this folder")
    with np.load(REFERENCE) as file:
        reference = {name: file[name] for name in file.files}
    net, words = load_minilm()
    ids, mask = words([str(sentence) for sentence in reference["sentences"]])
    assert np.array_equal(ids, reference["input_ids"])
    assert np.array_equal(mask, reference["attention_mask"])
    states = net(ids)
    target = sentence_embedding(states, mask)
    expected = torch.from_numpy(reference["embedding"])
    torch.testing.assert_close(target, expected, rtol=0.0, atol=1e-5)
    if "last_hidden_state" in reference:
        kept = mask.unsqueeze(-1)
        hidden = torch.from_numpy(reference["last_hidden_state"]) * kept
        torch.testing.assert_close(states * kept, hidden, rtol=0.0, atol=1e-4)
    passes = ("write_out_attention", "encode_linear_inputs")
    prepare = Preparation(passes=passes, operators=("accumulated",))
    snn = convert(net, ids, recipe="integer_code", T=1, prepare=prepare)
    cosines = (sentence_embedding(snn.mean_output(ids), mask) * target).sum(-1)
    assert cosines.mean() > 0.99 and cosines.min() > 0.98
    assert 1.0 < count_spikes(snn, ids).per_value < 1.4


def test_sentences_of_one_length():
    sentences = [torch.zeros(1, 3 + (number % 10 == 0), dtype=torch.long) for number in range(40)]
    assert [ids.shape[1] for ids in of_one_length(sentences)] == [3] * 36
    with pytest.raises(ValueError, match="18 sentences have the commonest length, 3 words; more"):
        of_one_length(sentences[:20])


def test_word_pieces():
    words = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##able", "able", ".", "cafe"])
    ids, mask = words(["Unable.", "Café unabled"])
    assert ids.tolist() == [[2, 4, 5, 7, 3], [2, 8, 1, 3, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert words(["able " * 9], longest=5)[0].tolist() == [[2, 6, 6, 6, 3]]
    with pytest.raises(ValueError, match="list"):
        words("a sentence alone")
    with pytest.raises(ValueError, match=r"\[CLS\]"):
        WordPiece(["[PAD]", "[UNK]", "[SEP]"])
