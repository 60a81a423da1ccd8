"""Model families, one a file, and the registry that builds them by name."""

from rheobase.models.official import load_official
from rheobase.models.registry import create_model, list_models, model_family

__all__ = ["create_model", "list_models", "load_official", "model_family"]
