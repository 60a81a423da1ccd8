"""ImageNet-1k from a folder of the user's: one folder of JPEG files a class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rheobase.data.class_folders import ClassFolders
from rheobase.data.images import DatasetInfo, Transform, user_folder

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageNet"]


class ImageNet(ClassFolders):
    """ImageNet-1k: photographs of 1,000 classes (Russakovsky et al. 2015).

    ``root`` holds ``train`` and ``val``, each with a folder a class named by its WordNet id
    (``n01440764`` …); labels number these in order, as everybody does. Any other folder of folders
    of pictures works too.

    Training pictures come in their own sizes: give ``augment.resized_crop``. Test pictures are
    scaled so that their shorter side is ``size / crop`` (bicubic), and cut to ``size`` around their
    centre.

    Args:
        root: the folder; None looks in the folder ``RHEOBASE_DATA``.
        train: the training or the validation pictures.
        transform: applied to each float image.
        size: side of the test pictures; also of training pictures where ``cut`` says so.
        crop: share of a test picture's shorter side that is kept.
        cut: scale and cut training pictures as those for test, for training without random crops.

    Raises:
        FileNotFoundError: ``root`` holds no such files.
    """

    info = DatasetInfo(
        name="imagenet",
        description="photographs of 1,000 classes",
        classes=(),
        shape=(3, 224, 224),
        sizes=(1_281_167, 50_000),
        licence="research only; image-net.org",
        how="root: a folder with train/ and val/, a folder a class",
    )
    suffixes = (".jpeg", ".jpg", ".png")

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        transform: Transform | None = None,
        *,
        size: int = 224,
        crop: float = 0.875,
        cut: bool = False,
    ) -> None:
        self.transform = transform
        self.size, self.crop, self.whole = size, crop, train and not cut
        split = "train" if train else "val"
        folder = user_folder(self.info, root, ("imagenet", "ImageNet")) / split
        self._list(folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import PIL.Image

        with PIL.Image.open(self.files[index]) as picture:
            colour = picture.convert("RGB")
        if not self.whole:
            colour = self._centre(colour)
        image = torch.from_numpy(np.array(colour)).permute(2, 0, 1).float() / 255
        return self.transform(image) if self.transform else image, int(self.labels[index])

    def _centre(self, picture: Image) -> Image:
        import PIL.Image

        scale = self.size / self.crop / min(picture.size)
        width, height = (max(round(side * scale), self.size) for side in picture.size)
        picture = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return picture.crop((left, top, left + self.size, top + self.size))
