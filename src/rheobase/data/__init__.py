"""Data sets and the coding of images into spike trains."""

from rheobase.data.cifar10 import CIFAR10
from rheobase.data.encoders import direct, latency, rate, sample_generator
from rheobase.data.fetch import ChecksumError, Source, fetch
from rheobase.data.images import DatasetInfo, ImageDataset
from rheobase.data.mnist import MNIST, FashionMNIST
from rheobase.data.registry import download, get_dataset, list_datasets
from rheobase.data.sample import MNISTSample
from rheobase.data.wordpiece import WordPiece

__all__ = [
    "CIFAR10",
    "MNIST",
    "ChecksumError",
    "DatasetInfo",
    "FashionMNIST",
    "ImageDataset",
    "MNISTSample",
    "Source",
    "WordPiece",
    "direct",
    "download",
    "fetch",
    "get_dataset",
    "latency",
    "list_datasets",
    "rate",
    "sample_generator",
]
