"""SpikeCLIP: what its goldens do not hold (tests/test_goldens_models.py has those)."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from rheobase.data import BytePairs
from rheobase.models import create_model, load_official
from rheobase.models.clip_words import load_clip_words
from rheobase.models.spike_clip import class_embeddings

SMALL = {
    "embedding": 16,
    "depth": 1,
    "dim": 32,
    "heads": 2,
    "image_size": 8,
    "hidden": 32,
    "length": 8,
    "vocabulary": 514,
}
PIECES = BytePairs([])  # bytes alone


def small():
    torch.manual_seed(0)
    net = create_model("spike_clip", **SMALL)
    torch.nn.init.normal_(net.text.words.weight, std=3.0)
    torch.nn.init.normal_(net.text.fc1.weight, std=0.5)
    return net


def test_sentences_are_embedded_by_piece_and_place():
    text = small().text.double()
    ids = PIECES(["cat", "a dog"], 8)
    embedded = text.words.weight[ids] + text.places.weight[:8]
    assert torch.equal(text(ids), text(embedded))
    assert not torch.equal(text(ids)[0], text(ids)[1])


def test_a_class_is_the_mean_of_its_sentences():
    text = small().text
    vectors = class_embeddings(text, PIECES, ["cat", "dog"], ["a {}", "{}s"])
    by_hand = [
        normalize(text(PIECES(pair, 8)), dim=-1).mean(0)
        for pair in (["a cat", "cats"], ["a dog", "dogs"])
    ]
    assert torch.equal(vectors, torch.stack(by_hand))
    with pytest.raises(ValueError, match="classes and templates"):
        class_embeddings(text, PIECES, [])


def test_images_are_named_by_sentences_after_alignment():
    """Images learn to point where sentences of their class do; other sentences name them too."""
    net = small()
    net.image.train()
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 0.7  # so few steps are to tell the statistics
    classes = class_embeddings(net.text, PIECES, ["red", "blue"], ["{}", "a {}"])
    images, labels = torch.rand(32, 3, 8, 8) * 0.3, torch.arange(32) % 2
    images[labels == 0, 0] += 1.0
    images[labels == 1, 2] += 1.0
    optimizer = torch.optim.Adam(net.image.parameters(), lr=0.01)
    for _ in range(10):
        loss = 1 - cosine_similarity(net.image(images[:24]), classes[labels[:24]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    assert net(images[24:], classes).argmax(1).tolist() == labels[24:].tolist()
    alike = net(images[24:], PIECES(["red", "blue"], 8))
    assert alike.argmax(1).tolist() == labels[24:].tolist()
    assert alike.abs().max() <= 1 + 1e-6


def test_training_leaves_clips_embedding_alone():
    net = small()
    net(torch.rand(2, 3, 8, 8), PIECES(["cat", "dog"], 8)).sum().backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"text.words.weight", "text.places.weight"}


def test_whole_from_two_checkpoints():
    """The released weights are one file of each encoder."""
    net = small()
    image = load_official("spike_clip", net.image.state_dict(), {"num_heads": 2})
    text = load_official("spike_clip", net.text.state_dict())
    again = create_model("spike_clip", **SMALL)
    again.image.load_state_dict(image.state_dict())
    again.text.load_state_dict(text.state_dict())
    x, ids = torch.rand(1, 3, 8, 8), PIECES(["cat"], 8)
    assert torch.equal(again.eval()(x, ids), net.eval()(x, ids))


def test_what_does_not_fit_is_refused():
    net = small()
    with pytest.raises(ValueError, match=r"is 8 pieces, \[N, 8\]; got \[1, 9\]"):
        net.text(torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(ValueError, match=r"got \[1, 8, 4\]"):
        net.text(torch.zeros(1, 8, 4))
    with pytest.raises(ValueError, match="weighs 4 steps, got 3"):
        net.image(torch.zeros(3, 1, 3, 8, 8))
    bare = create_model("spike_clip", **(SMALL | {"vocabulary": 0})).text
    with pytest.raises(ValueError, match="has no embedding"):
        bare(torch.zeros(1, 8, dtype=torch.long))
    for message, changes in (
        ("positions=4 are fewer", {"positions": 4}),
        ("heads=3 does not divide dim=32", {"heads": 3}),
        ("hidden must be positive", {"hidden": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            create_model("spike_clip", **(SMALL | changes))


class TestBytePairs:
    def test_the_earliest_pair_is_joined_first(self):
        early = BytePairs(["b c", "a b", "bc d</w>"])
        number = {piece: 512 + i for i, piece in enumerate(("bc", "ab", "bcd"))}
        (row,) = early(["abcd"], 4)
        assert row.tolist() == [early.start, ord("a") - 33, number["bcd"], early.end]
        repeated = BytePairs(["a a"])
        assert repeated(["aaaaa"], 9)[0, 1:4].tolist() == [512, 512, 256 + ord("a") - 33]

    def test_words_digits_and_marks(self):
        pieces = BytePairs(["i t</w>", "' s</w>", "! !</w>"])
        it, s, marks = 512, 513, 514
        assert pieces(["IT's  !!"], 5)[0].tolist() == [515, it, s, marks, 516]
        assert pieces(["&amp;"], 3)[0, 1] == 256 + ord("&") - 33  # as a web page writes it
        assert pieces(["é"], 4)[0, 1:3].tolist() == [0xC3 - 68, 256 + 0xA9 - 67]

    def test_long_and_short_sentences(self):
        assert PIECES(["abc", ""], 4).tolist() == [[512, 64, 65, 513], [512, 513, 513, 513]]
        for wrong in ("cat", []):
            with pytest.raises(ValueError, match="list of one or more sentences"):
                PIECES(wrong)
        with pytest.raises(ValueError, match="length=1"):
            PIECES(["a"], 1)
        with pytest.raises(ValueError, match="two pieces"):
            BytePairs(["a b c"])


@pytest.mark.long  # fetches 1.5 MB once
def test_clips_own_pieces():
    """Numbers of open_clip's tokenizer."""
    words = load_clip_words()
    assert (words.start, words.end) == (49406, 49407)
    ids = words(["It's 2024: the naïve café, isn't it? hello__world #1", "a diagram"], 24)
    assert ids[0, 1:-1].tolist() == [
        585, 568, 273, 271, 273, 275, 281, 518, 1097, 35689, 563, 15304, 267, 2923, 713, 585, 286,
        3306, 3838, 1002, 258, 272,
    ]  # fmt: skip
    assert ids[1, :5].tolist() == [49406, 320, 22697, 49407, 49407]
