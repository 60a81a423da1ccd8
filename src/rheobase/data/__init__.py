"""Data sets and the coding of images into spike trains."""

from rheobase.data.byte_pairs import BytePairs
from rheobase.data.cifar10 import CIFAR10
from rheobase.data.cifar100 import CIFAR100
from rheobase.data.composite_digits import CompositeDigits, composite_digits
from rheobase.data.encoders import direct, latency, rate, sample_generator
from rheobase.data.event_sets import CIFAR10DVS, DVS128Gesture, EventDataset
from rheobase.data.events import (
    Events,
    event_frames,
    event_slices,
    read_aedat2,
    read_aedat3,
)
from rheobase.data.fetch import ChecksumError, Source, fetch
from rheobase.data.imagenet import ImageNet
from rheobase.data.images import DatasetInfo, ImageDataset, LabelledImages
from rheobase.data.mnist import MNIST, FashionMNIST
from rheobase.data.registry import download, get_dataset, list_datasets
from rheobase.data.sample import MNISTSample
from rheobase.data.sequences import Sequences
from rheobase.data.spike_camera import read_spike_camera
from rheobase.data.texts import Characters, MovieReviews, ReviewCharacters, Sentences
from rheobase.data.wordpiece import WordPiece

__all__ = [
    "CIFAR10",
    "CIFAR10DVS",
    "CIFAR100",
    "MNIST",
    "BytePairs",
    "Characters",
    "ChecksumError",
    "CompositeDigits",
    "DVS128Gesture",
    "DatasetInfo",
    "EventDataset",
    "Events",
    "FashionMNIST",
    "ImageDataset",
    "ImageNet",
    "LabelledImages",
    "MNISTSample",
    "MovieReviews",
    "ReviewCharacters",
    "Sentences",
    "Sequences",
    "Source",
    "WordPiece",
    "composite_digits",
    "direct",
    "download",
    "event_frames",
    "event_slices",
    "fetch",
    "get_dataset",
    "latency",
    "list_datasets",
    "rate",
    "read_aedat2",
    "read_aedat3",
    "read_spike_camera",
    "sample_generator",
]
