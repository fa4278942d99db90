"""What a finished training leaves for users: a model file that tells where it comes from."""

from pathlib import Path

from pydantic import JsonValue

from urushi.files.model import ModelHeader, write_model
from urushi.training.loop import TrainingResult
from urushi.training.recipe import Recipe

__all__ = ["model_path", "write_trained_model"]


def model_path(recipe: Recipe, run: Path) -> Path:
    """Where the model file of a training goes."""
    return run / f"{recipe.name}.safetensors"


def write_trained_model(recipe: Recipe, result: TrainingResult, path: Path) -> ModelHeader:
    """Writes the averaged weights of a training with its recipe and its last scores.

    Args:
        recipe: as it was trained.
        result: of the training.
        path: target; one that is there is replaced.

    Raises:
        FileFormatError: the weights are not finite in the recipe's storage, or the disk refuses.
    """
    header = ModelHeader(
        backbone=recipe.backbone.name,
        config=recipe.backbone.config,
        description=recipe.description,
        degradations=recipe.degradations,
        recipe=recipe.model_dump(mode="json"),
        scores=_last_scores(recipe, result),
        licence=recipe.licence,
        data=recipe.data_statement,
    )
    tensors = {name: tensor.numpy() for name, tensor in result.weights.items()}
    return write_model(path, tensors, header, recipe.storage)


def _last_scores(recipe: Recipe, result: TrainingResult) -> dict[str, JsonValue]:
    """PSNR of the newest validation, with how many pictures it was measured on at most."""
    scores: dict[str, JsonValue] = {}
    for name in recipe.validation.benchmarks:
        known = [row[name] for row in result.log if name in row]
        if known:
            scores[name] = {"psnr": float(known[-1]), "limit": recipe.validation.limit}
    return scores
