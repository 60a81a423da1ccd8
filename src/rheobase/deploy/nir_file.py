"""Files of NIR, the Neuromorphic Intermediate Representation: nodes with fields, and edges.

Source: Pedersen et al. 2024, Nature Communications 15:8122; the package nir 1.0.8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rheobase._paths import replacing

__all__ = ["NIRGraph", "read_nir", "write_nir"]

_VERSION = "1.0.8"  # of the package whose files these are


@dataclass(frozen=True)
class NIRGraph:
    """What a file holds.

    Attributes:
        nodes: by name, the fields of each, its "type" among them.
        edges: pairs of names; what several edges bring to a node is added.
        metadata: of the graph; those of others are kept, ours are read by `load_nir`.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    edges: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def order(self) -> list[str]:
        """The nodes, each behind those that it hears.

        Raises:
            ValueError: an edge names a node that is not there, or edges run in a circle.
        """
        for source, target in self.edges:
            for name in (source, target):
                if name not in self.nodes:
                    raise ValueError(f"an edge {source!r} -> {target!r}: there is no node {name!r}")
        waiting = {name: {s for s, t in self.edges if t == name} for name in self.nodes}
        found: list[str] = []
        while waiting:
            ready = [name for name, before in waiting.items() if not before - set(found)]
            if not ready:
                circle = ", ".join(map(repr, waiting))
                raise ValueError(f"recurrent edges are not supported: {circle} wait for each other")
            found += ready
            for name in ready:
                del waiting[name]
        return found


def read_nir(path: str | os.PathLike[str]) -> NIRGraph:
    """Read a file, whatever its nodes are.

    Raises:
        ImportError: h5py is not installed.
        ValueError: it is no NIR file.
        OSError: it cannot be read.
    """
    with _h5py().File(path, "r") as file:
        if "node" not in file or "nodes" not in file["node"]:
            raise ValueError(f"{path} is no NIR file: it has no node/nodes")
        root = file["node"]
        nodes = {name: _fields(group) for name, group in root["nodes"].items()}
        edges = tuple((_text(a), _text(b)) for a, b in root["edges"][()]) if "edges" in root else ()
        metadata = _fields(root["metadata"]) if "metadata" in root else {}
    return NIRGraph(nodes, edges, metadata)


def write_nir(graph: NIRGraph, path: str | os.PathLike[str]) -> None:
    """Write a file, whole or not at all.

    Raises:
        ImportError: h5py is not installed.
        OSError: it cannot be written.
    """
    h5py = _h5py()
    with replacing(Path(path)) as unfinished, h5py.File(unfinished, "w") as file:
        file.create_dataset("version", data=_VERSION)
        root = file.create_group("node")
        root.create_dataset("type", data="NIRGraph")
        nodes = root.create_group("nodes")
        for name, fields in graph.nodes.items():
            _write(nodes.create_group(name), fields)
        edges = [[source, target] for source, target in graph.edges]
        root.create_dataset("edges", data=edges, dtype=h5py.string_dtype())
        _write(root.create_group("metadata"), graph.metadata)


def _write(group: Any, fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        group.create_dataset(key, data=value)


def _fields(group: Any) -> dict[str, Any]:
    return {key: _value(item) for key, item in group.items() if hasattr(item, "shape")}


def _value(dataset: Any) -> Any:
    value = dataset[()]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("NIR files need h5py: pip install rheobase[nir]") from error
    return h5py
