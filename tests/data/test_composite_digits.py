"""Canvases of several digits."""

from __future__ import annotations

import pytest
import torch

from rheobase.data import MNISTSample, composite_digits


def test_boxes_hold_all_the_ink_and_do_not_overlap():
    made = composite_digits(MNISTSample(train=False), 40, seed=3)
    assert made.images.min() == 0.0
    assert 0.9 < made.images.max() <= 1.0
    assert set((made.labels >= 0).sum(1).tolist()) == {1, 2, 3, 4}
    for image, boxes, labels in zip(made.images[:, 0], made.boxes, made.labels, strict=True):
        covered = torch.zeros_like(image)
        for left, top, right, bottom in boxes[labels >= 0].long().tolist():
            assert 14 <= bottom - top <= 28
            inside = image[top:bottom, left:right]
            rims = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
            assert all(bool((rim > 0.02).any()) for rim in rims), "the box is tight"
            covered[top:bottom, left:right] += 1.0
        assert covered.max() == 1.0
        assert not bool(image[covered == 0.0].any())


def test_seeds_decide_and_what_is_impossible_is_refused():
    digits = MNISTSample(train=False)
    one, same, other = (composite_digits(digits, 4, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.boxes, same.boxes)
    assert not torch.equal(one.images, other.images)
    with pytest.raises(ValueError, match="at least one canvas"):
        composite_digits(digits, 0)
    with pytest.raises(ValueError, match=r"at least 28 pixels wide, got size=20"):
        composite_digits(digits, 1, size=20)
