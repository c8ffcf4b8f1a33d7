"""Models pushed to a hub and loaded from it by their id; the hub is a small server on this machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import numpy as np
import pytest
import torch

from local_server import Handler, running
from rabtriever import Index, InputError, Reranker, Retriever
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.training.config import LoraConfig, TeacherConfig
from toy_data import SHORT, TOOLS, toy_dataset

SHA = "2" * 40


class Hub(Handler):
    """As much of a model hub as pushing and fetching take; every repository has one commit, the latest."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[dict[str, Any]]] = []
    revisions: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.asked.append(asked | {"token": self.headers["Authorization"]})
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] == "others":
                return self.send(b"", True, status=403)
            self.repositories.setdefault(name, {})
            return self.reply({"url": f"http://{self.headers['Host']}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        name, verb = "/".join(self.path.split("/")[3:5]), self.path.split("/")[5]
        if verb == "preupload":
            files = json.loads(body)["files"]
            kinds = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.reply({"files": kinds})
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "file":
                self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commit = f"http://{self.headers['Host']}/{name}/commit/{SHA}"
        return self.reply({"commitUrl": commit, "commitOid": SHA, "success": True})

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name = "/".join(parts[:2])
        files = self.repositories.get(name)
        if files is None:
            return self.send(b"", body, {"X-Error-Code": "RepoNotFound"}, 404)
        if parts[2:3] == ["revision"]:
            self.revisions.add(parts[3])
            if parts[3] == "lost":
                return self.send(b"", body, {"X-Error-Code": "RevisionNotFound"}, 404)
        if parts[2:3] == ["resolve"]:
            file = "/".join(parts[4:])
            return self.send(files[file], body, {"ETag": f'"{hash(files[file])}"', "X-Repo-Commit": SHA})
        if parts[2:3] == ["tree"]:
            listed = [{"type": "file", "path": n, "size": len(d), "oid": f"{hash(d)}"} for n, d in files.items()]
            return self.reply(listed, body)
        return self.reply({"id": name, "sha": SHA, "siblings": [{"rfilename": file} for file in files]}, body)

    def reply(self, content: Any, body: bool = True) -> None:
        self.send(json.dumps(content).encode(), body)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The hub's client reads its settings once, when imported: here they are replaced for a test."""
    constants = huggingface_hub.constants
    with running(Hub) as endpoint:
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        huggingface_hub.close_session()
        Hub.repositories.clear()
        Hub.asked.clear()
        try:
            yield Hub
        finally:
            huggingface_hub.close_session()


@pytest.fixture
def student(tiny_folder: Callable[..., Path]) -> Retriever:
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    torch.manual_seed(0)
    return Retriever(teacher, Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False)))


def test_a_student_comes_back_from_the_hub(hub: type[Hub], student: Retriever, tmp_path: Path) -> None:
    url = student.push_to_hub("org/tools", private=True, token="secret")
    assert url.endswith(f"/org/tools/commit/{SHA}")
    assert "private" in (hub.asked[0].get("visibility"), "private" * hub.asked[0].get("private", False))
    assert hub.asked[0]["token"] == "Bearer secret"
    files = hub.repositories["org/tools"]
    assert {"README.md", "config.json", "predictor.safetensors", "backbone/model.safetensors"} <= set(files)
    assert str(tmp_path.parent).encode() not in b"".join(files.values())  # nothing that means something here alone
    assert b'Retriever.from_pretrained("org/tools")' in files["README.md"]
    files["backbone/evil.bin"] = files["pickled.pkl"] = b"never fetched"

    loaded = Retriever.from_pretrained("org/tools", dtype="float32")
    assert np.array_equal(loaded.encode_document(TOOLS), student.encode_document(TOOLS))
    assert loaded.path is not None
    names = {str(file.relative_to(loaded.path)) for file in Path(loaded.path).rglob("*") if file.is_file()}
    assert names == {name for name in files if not name.endswith((".bin", ".pkl"))}

    Index.create(tmp_path / "index", loaded).add(TOOLS)
    assert len(Index.open(tmp_path / "index", dtype="float32").search("crumbs", 2)) == 2  # finds its model again
    teacher = Reranker.from_pretrained("org/tools", dtype="float32")
    assert np.array_equal(teacher.score("crumbs", TOOLS), student.reranker.score("crumbs", TOOLS))


def test_a_teacher_comes_back_and_is_no_student(hub: type[Hub], student: Retriever) -> None:
    student.reranker.push_to_hub("org/teacher", commit_message="first")
    loaded = Reranker.from_pretrained("org/teacher", dtype="float32")
    assert np.array_equal(loaded.score("crumbs", TOOLS), student.reranker.score("crumbs", TOOLS))
    with pytest.raises(InputError, match="without a predictor"):
        Retriever.from_pretrained("org/teacher")


def test_a_base_model_of_the_hub_is_still_an_untrained_reranker(
    hub: type[Hub], student: Retriever, tiny_folder: Callable[..., Path]
) -> None:
    hub.repositories["org/base"] = {file.name: file.read_bytes() for file in tiny_folder("llama").iterdir()}
    loaded = Reranker.from_pretrained("org/base", prompt=SHORT, dtype="float32")
    assert np.array_equal(loaded.score("crumbs", TOOLS), student.reranker.score("crumbs", TOOLS))
    with pytest.raises(InputError, match="not a model that Rabtriever saved"):
        Retriever.from_pretrained("org/base")


def test_what_the_hub_refuses_is_one_sentence(hub: type[Hub], student: Retriever) -> None:
    with pytest.raises(InputError, match=r"the hub has no model org/none; check"):
        Retriever.from_pretrained("org/none")
    with pytest.raises(InputError, match=r"nothing was pushed: the hub refused access to others/tools; log in"):
        student.push_to_hub("others/tools", token="secret")
    with pytest.raises(InputError, match="no hub id"):
        student.push_to_hub("not a hub id")


def test_a_revision_is_fetched_and_remembered(
    hub: type[Hub], student: Retriever, tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    hub.repositories["org/base"] = {file.name: file.read_bytes() for file in tiny_folder("llama").iterdir()}
    teacher = Reranker.from_pretrained("org/base", revision="v1.0", prompt=SHORT, dtype="float32")
    assert np.array_equal(teacher.score("crumbs", TOOLS), student.reranker.score("crumbs", TOOLS))
    config = TeacherConfig(lora=LoraConfig(rank=2), freeze_layers=0, max_queries=2, evaluations=0, epochs=1.0)
    teacher.fit(toy_dataset(), config)
    teacher.save_pretrained(tmp_path / "adapter")
    hub.revisions.clear()
    again = Reranker.from_pretrained(tmp_path / "adapter", dtype="float32")
    assert hub.revisions == {"v1.0"}  # the base of the adapter
    assert np.array_equal(again.score("crumbs", TOOLS), teacher.score("crumbs", TOOLS))
    adapter = json.loads((tmp_path / "adapter" / "backbone" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/base", "v1.0")
    assert "base_model: org/base\n" in (tmp_path / "adapter" / "README.md").read_text()

    with pytest.raises(InputError, match=r"the hub's model org/base has no revision lost; give a branch"):
        Reranker.from_pretrained("org/base@lost")
    for name in ("robot-skills", tmp_path / "adapter", "org/base@v1.0"):
        with pytest.raises(InputError, match="only models of the hub have"):
            Retriever.from_pretrained(name, revision="v2")


def test_a_hub_that_does_not_answer(student: Retriever) -> None:
    with pytest.raises(InputError, match=r"could not be pushed to org/tools \("):
        student.push_to_hub("org/tools")  # the tests are offline


def test_an_adapter_on_a_local_base_stays_here(hub: type[Hub], student: Retriever) -> None:
    teacher = student.reranker
    config = TeacherConfig(lora=LoraConfig(rank=2), freeze_layers=0, max_queries=2, evaluations=0, epochs=1.0)
    teacher.fit(toy_dataset(), config)
    with pytest.raises(InputError, match="push the base model first"):
        teacher.push_to_hub("org/adapter")
    assert hub.repositories == {}
