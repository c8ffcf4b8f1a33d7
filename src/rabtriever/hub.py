"""The model hub: what is fetched from it, and how trained models get there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

from rabtriever.artifacts import CONFIG_NAME, ArtifactConfig, is_artifact
from rabtriever.embedded_models import EMBEDDED
from rabtriever.errors import InputError
from rabtriever.files import write_text

__all__ = ["Pushable", "fetch", "fetch_trained", "split_revision"]

_TRAINED = [CONFIG_NAME, "README.md", "predictor.safetensors", "backbone/*", "query/*"]
_PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"]


def split_revision(name: str) -> tuple[str, str | None]:
    """The hub id in a name, and the revision (a branch, a tag or a commit) that it may end in.

    Example:
        >>> split_revision("org/my-model@v1.0"), split_revision("org/my-model")
        (('org/my-model', 'v1.0'), ('org/my-model', None))
    """
    repository, _, revision = name.partition("@")
    return repository, revision or None


def fetch(name: str, allow: Sequence[str], ignore: Sequence[str] = _PICKLES) -> Path:
    """Fetch files of a hub's model into its cache, and return their folder.

    Args:
        name: The hub id, as ``org/name`` or ``org/name@revision``.
        allow: Patterns of the files to fetch.
        ignore: Patterns of files to leave out.

    Raises:
        InputError: If there is no such model, or it cannot be fetched (code ``fetch_failed``).

    Example:
        >>> fetch("org/my-model", ["config.json"])        # doctest: +SKIP
    """
    from huggingface_hub import snapshot_download

    unreachable = f"there is no folder {name} here, and the model {name} could not be fetched from the hub"
    with _explained(f"there is no folder {name} here, and", name, unreachable):
        repository, revision = split_revision(name)
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(allow), ignore_patterns=list(ignore)
        )
        return Path(folder)


def fetch_trained(name: str) -> Path:
    """Fetch a model that this package trained; of anything else, the configuration alone, which says what it is.

    Raises:
        InputError: If there is no such model, or it cannot be fetched (code ``fetch_failed``).

    Example:
        >>> fetch_trained("org/my-model")                 # doctest: +SKIP
    """
    folder = fetch(name, [CONFIG_NAME])
    return fetch(name, _TRAINED) if is_artifact(folder) else folder


class Pushable:
    """A model that can be pushed to the model hub: a teacher or a student."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        commit_message: str = "Upload a Rabtriever model",
        create_pr: bool | None = None,
    ) -> str:
        """Push the model to the model hub, where ``from_pretrained`` finds it by its id.

        Args:
            repo_id: The hub id, as ``org/name``; made if it is not there.
            private: Whether a new one is private; the organisation's custom when left out.
            token: An access token; the one of ``hf auth login`` when left out.
            branch: The branch to push to; the main one when left out.
            commit_message: What the hub's history says.
            create_pr: Propose the change instead of making it.

        Returns:
            The URL of the commit, or of the proposal.

        Raises:
            InputError: If the hub refuses it or cannot be reached, or others could not load the model.

        Example:
            >>> model.push_to_hub("org/my-model")     # doctest: +SKIP
        """
        from huggingface_hub import HfApi

        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / PurePath(repo_id).name
            _save(self, folder, repo_id)
            api = HfApi(token=token)
            with _explained("nothing was pushed:", repo_id, f"the model could not be pushed to {repo_id}"):
                found = api.create_repo(repo_id, private=private, exist_ok=True)
                info = api.upload_folder(
                    repo_id=found.repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                )
        return str(info.pr_url or info.commit_url)


def _save(model: Pushable, folder: Path, repo_id: str) -> None:
    """Save the model without what means nothing elsewhere: paths of this machine."""
    from rabtriever.model_card import model_card
    from rabtriever.model_folder import save_reranker, save_retriever
    from rabtriever.reranker import Reranker
    from rabtriever.retriever import Retriever

    if isinstance(model, Retriever):
        save_retriever(model, folder)  # not save_pretrained, which would remember the folder as the model's place
    elif isinstance(model, Reranker):
        save_reranker(model, folder)
    config = ArtifactConfig.read(folder)
    base = PurePath(config.base.name)
    if base.is_absolute():
        if config.adapter:
            raise InputError(
                f"the model is an adapter on the local folder {base}, which others do not have",
                hint="push the base model first, and train on its hub id",
            )
        config = config.model_copy(update={"base": config.base.model_copy(update={"name": base.name})})
        config.write(folder)
    write_text(folder / "README.md", model_card(config, repo_id))


@contextmanager
def _explained(what: str, name: str, unreachable: str) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence, which begins with ``what`` or is ``unreachable``."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{what} the hub's model {name} is open only to those who accepted its terms",
            hint="accept them on its page and log in with `hf auth login`",
            code="fetch_failed",
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{what} the hub has no model {name}", hint="check the spelling, or `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        repository, revision = split_revision(name)
        raise InputError(
            f"{what} the hub's model {repository} has no revision {revision}", hint="give a branch, a tag or a commit"
        ) from error
    except HFValidationError as error:
        raise InputError(f"{what} {name!r} is no hub id", hint="give one such as org/name") from error
    except Exception as error:  # the hub's client raises a dozen kinds for "offline", over several HTTP libraries
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"{what} the hub refused access to {name}", hint="log in with `hf auth login`", code="fetch_failed"
            ) from error
        raise InputError(
            f"{unreachable} ({type(error).__name__})",
            hint=f"check the network, give a local folder, or use an embedded model ({', '.join(EMBEDDED)})",
            code="fetch_failed",
        ) from error
