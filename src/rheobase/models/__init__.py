"""Model families, one a file, and the registry that builds them by name."""

from rheobase.models.official import load_official
from rheobase.models.recognise import recognise
from rheobase.models.registry import create_model, list_models, model_family
from rheobase.models.saved import load_model, save_model

__all__ = [
    "create_model",
    "list_models",
    "load_model",
    "load_official",
    "model_family",
    "recognise",
    "save_model",
]
