"""Models on disk: a folder with ``config.json``, ``backbone/``, for a student ``predictor.safetensors``, and a card.

``backbone/`` holds a whole language model in Hugging Face layout, or a PEFT adapter on a base model that the
configuration identifies; ``query/``, where it is, an adapter on that model which queries are read with. What does not
belong together is refused when it is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from rabtriever.adapters import ADAPTER, merge_adapter, save_adapter
from rabtriever.artifacts import CONFIG_NAME, ArtifactConfig, BaseIdentity, check_finite, check_same, is_artifact
from rabtriever.backbone import Backbone
from rabtriever.base_models import EMBEDDED, base_name, is_hub_id, resolve_base
from rabtriever.errors import DataError, InputError
from rabtriever.files import atomic_folder, write_text, writing
from rabtriever.fingerprints import fingerprint_file, fingerprint_folder, tokenizer_fingerprint
from rabtriever.hub import fetch_trained, split_revision
from rabtriever.model_card import model_card, with_results
from rabtriever.numerics import DType
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import Prompt, PromptConfig
from rabtriever.query_side import QuerySide
from rabtriever.reranker import Reranker
from rabtriever.retriever import Retriever
from rabtriever.shipped import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["load_reranker", "load_retriever", "note_results", "save_reranker", "save_retriever", "trained_folder"]

_PREDICTOR = "predictor.safetensors"
_BACKBONE = "backbone"
_QUERY = "query"
_PARTS = (_BACKBONE, _PREDICTOR, _QUERY)
_STUDENTS = ("distill", "results")
"""Keys of ``training`` that say what a student, not its teacher, went through and reached."""
_Settings = TypeVar("_Settings", bound=BaseModel)


def trained_folder(name: str | Path) -> Path:
    """Where a trained model lies: in the package, in the hub's cache (it is fetched), or where the name says.

    Raises:
        InputError: If it is a hub id, and there is no such model or it cannot be fetched.
    """
    return shipped_folder(name) or (fetch_trained(str(name)) if is_hub_id(name) else Path(name))


def load_reranker(
    name: str | Path, *, prompt: PromptConfig | None = None, dtype: DType = "auto", device: str = "auto"
) -> Reranker:
    """See :meth:`rabtriever.Reranker.from_pretrained`."""
    place = trained_folder(name)
    if is_artifact(place):
        if prompt is not None:
            raise InputError(f"{name} brings the prompt that it was trained with", hint="leave prompt out")
        return _load(place, ArtifactConfig.read(place), dtype, device)
    folder = resolve_base(name)
    backbone = Backbone.load(folder, dtype, device)
    check_finite(backbone.model.named_parameters(), folder)
    base = BaseIdentity.of_folder(folder, base_name(name))
    return Reranker(backbone, Prompt(backbone.tokenizer, prompt), base)


def load_retriever(path: str | Path, *, dtype: DType = "auto", device: str = "auto") -> Retriever:
    """See :meth:`rabtriever.Retriever.from_pretrained`."""
    folder = trained_folder(path)
    config = ArtifactConfig.read(folder)
    if config.predictor is None:
        raise InputError(
            f"{folder} holds a reranker (teacher) only, without a predictor",
            hint=f"make a student of it: rabtriever distill {folder} DATASET -o MODEL",
        )
    reranker = _load(folder, config, dtype, device)
    predictor_config = _settings(PredictorConfig, config.predictor, folder, "predictor")
    predictor = Predictor.load(folder / _PREDICTOR, config.base.hidden_size, predictor_config)
    _check_part(folder, config, _PREDICTOR)
    side = None
    if config.query_adapter:
        side = QuerySide.load(reranker.backbone, folder / _QUERY)
        _check_part(folder, config, _QUERY)
    retriever = Retriever(reranker, predictor, side)
    retriever.training = {"distill": {}, **{key: config.training[key] for key in _STUDENTS if key in config.training}}
    # By its path an index finds it again: also without the hub, and a shipped one wherever the package is installed.
    retriever.path = str(path if shipped_folder(path) or folder == Path(path) else folder)
    return retriever


def save_reranker(reranker: Reranker, path: Path) -> None:
    """See :meth:`rabtriever.Reranker.save_pretrained`."""
    with atomic_folder(path, keep=("runs",)) as folder:
        config = _config(reranker, kind="reranker")
        _write(reranker, config, folder, path.name)


def save_retriever(retriever: Retriever, path: Path) -> None:
    """See :meth:`rabtriever.Retriever.save_pretrained`."""
    with atomic_folder(path, keep=("teacher", "runs")) as folder:
        config = _config(retriever.reranker, kind="retriever").model_copy(
            update={
                "predictor": retriever.predictor.config.model_dump(),
                "query_adapter": retriever.query_side is not None,
                "training": {**_others(retriever.reranker.training), **retriever.training},
            }
        )
        with writing(folder / _PREDICTOR):
            retriever.predictor.save(folder / _PREDICTOR)
            if (side := retriever.query_side) is not None:
                (folder / _QUERY).mkdir()
                save_adapter(folder / _QUERY, side.state, side.settings, f"../{_BACKBONE}", None)
        _write(retriever.reranker, config, folder, path.name)


def note_results(path: Path, report: dict[str, Any]) -> None:
    """Let a model's card say what an evaluation found; an earlier evaluation on the same split of the data is replaced.

    Whatever else the card says, also what was written into it by hand, stays.

    Args:
        path: The model's folder.
        report: :meth:`rabtriever.evaluation.Report.to_dict`; of it the systems' figures are kept.

    Raises:
        InputError: If there is no model, or its folder cannot be written.
    """
    config = ArtifactConfig.read(path)
    kept = {key: report[key] for key in ("dataset", "fingerprint", "split", "queries", "systems")}
    place = [kept[key] for key in ("dataset", "split")]
    earlier = [found for found in config.training.get("results", []) if [found["dataset"], found["split"]] != place]
    config = config.model_copy(update={"training": {**config.training, "results": [*earlier, kept]}})
    card = path / "README.md"
    text = with_results(card.read_text(encoding="utf-8"), config) if card.exists() else None
    with writing(path):
        config.write(path)
        write_text(card, text or model_card(config, path.resolve().name))


def _config(reranker: Reranker, kind: str) -> ArtifactConfig:
    if reranker.base is None:
        raise InputError(
            "this reranker was built in memory: which base model it stands on is not known",
            hint="load the base model with Reranker.from_pretrained",
        )
    return ArtifactConfig.model_validate(
        {
            "kind": kind,
            "base": reranker.base,
            "weights_hash": reranker.weights_hash,
            "tokenizer_fingerprint": tokenizer_fingerprint(reranker.backbone.tokenizer),
            "prompt": reranker.prompt.config.model_dump(),
            "prompt_hash": reranker.prompt.hash,
            "true_id": reranker.prompt.true_id,
            "false_id": reranker.prompt.false_id,
            "adapter": reranker.adapter is not None,
            "training": reranker.training,
        }
    )


def _write(reranker: Reranker, config: ArtifactConfig, folder: Path, name: str) -> None:
    backbone = folder / _BACKBONE
    backbone.mkdir()
    with writing(backbone):
        if reranker.adapter is None:
            reranker.backbone.model.save_pretrained(backbone)
            reranker.backbone.tokenizer.save_pretrained(backbone)
        else:
            known = EMBEDDED.get(config.base.name)
            base = (known.hub_id, None) if known else split_revision(config.base.name)
            save_adapter(backbone, reranker.adapter, reranker.adapter_config, *base)
    config = config.model_copy(
        update={"parts": {part: _part(folder, part) for part in _PARTS if (folder / part).exists()}}
    )
    config.write(folder)
    write_text(folder / "README.md", model_card(config, name))


def _part(folder: Path, name: str) -> str:
    """What identifies the weights in ``backbone/`` or ``query/``, or the predictor."""
    if name == _PREDICTOR:
        return fingerprint_file(folder / _PREDICTOR)
    adapter = folder / name / ADAPTER
    return fingerprint_file(adapter) if adapter.is_file() else fingerprint_folder(folder / name)


def _check_part(folder: Path, config: ArtifactConfig, name: str) -> None:
    if name in config.parts:  # folders of the first versions do not say it
        check_same(name, _part(folder, name), config.parts[name], folder)


def _load(folder: Path, config: ArtifactConfig, dtype: DType, device: str) -> Reranker:
    if config.adapter:
        base_folder = resolve_base(config.base.name)
        found = BaseIdentity.of_folder(base_folder, config.base.name)
        check_same("base model", found.fingerprint, config.base.fingerprint, folder)
        backbone = Backbone.load(base_folder, dtype, device)
        backbone.model, adapter, adapter_config = merge_adapter(backbone.model, folder / _BACKBONE)
        backbone.model.requires_grad_(False).train(False)
    else:
        backbone, adapter, adapter_config = Backbone.load(folder / _BACKBONE, dtype, device), None, None
    check_finite(_tensors(backbone, adapter), folder)
    prompt = Prompt(backbone.tokenizer, _settings(PromptConfig, config.prompt, folder, "prompt"))
    check_same("tokenizer", tokenizer_fingerprint(backbone.tokenizer), config.tokenizer_fingerprint, folder)
    check_same("prompt", prompt.hash, config.prompt_hash, folder)
    _check_part(folder, config, _BACKBONE)
    reranker = Reranker(backbone, prompt, config.base, weights_hash=config.weights_hash)
    reranker.adapter, reranker.adapter_config = adapter, adapter_config
    reranker.training = config.training if config.kind == "reranker" else _others(config.training)
    return reranker


def _others(training: dict[str, Any]) -> dict[str, Any]:
    """What is said of the teacher's training alone."""
    return {key: value for key, value in training.items() if key not in _STUDENTS}


def _settings(model: type[_Settings], values: Any, folder: Path, section: str) -> _Settings:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([section, *map(str, first["loc"])])
        raise DataError(
            f"{folder / CONFIG_NAME}: {key} is wrong: {first['msg']}", hint="copy or save the model again"
        ) from error


def _tensors(backbone: Backbone, adapter: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    yield from (adapter or {}).items()
    yield from backbone.model.named_parameters()
