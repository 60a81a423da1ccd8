"""Files of the user's in one folder a class."""

from __future__ import annotations

from pathlib import Path

import torch

from rheobase.data.images import LabelledImages

__all__ = ["ClassFolders"]


class ClassFolders(LabelledImages):
    """A data set whose files lie in one folder a class; labels number the folders in order."""

    suffixes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The folders' names, by label."""
        return self.names

    def _list(self, folder: Path) -> None:
        """Find ``names``, ``files`` and ``labels``.

        Raises:
            FileNotFoundError: there is no such folder, or no such file in those of classes.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"{self.info.name}: there is no {folder}; {self.info.how}")
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        found = [
            (file, label)
            for label, of_class in enumerate(inside)
            for file in sorted(of_class.iterdir())
            if file.suffix.lower() in self.suffixes
        ]
        if not found:
            raise FileNotFoundError(
                f"{self.info.name}: no {', '.join(self.suffixes)} files in folders of {folder}; "
                f"{self.info.how}"
            )
        self.names = tuple(path.name for path in inside)
        self.files = [file for file, _ in found]
        self.labels = torch.tensor([label for _, label in found])
