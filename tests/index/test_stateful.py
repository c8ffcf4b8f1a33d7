"""Whatever sequence of operations: the index is what a dictionary and numpy say it is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index.doubles import HashingStudent, brute_force
from rabtriever.data import Document
from rabtriever.index import Counts, Index

_SEQUENCES = int(os.environ.get("RABTRIEVER_SEQUENCES", "6"))

names = st.sampled_from(["a", "b", "c", "é'", "🤖", "x y", "%_\\", "\u202e", "ids"])
documents = st.builds(
    lambda id, text, n: Document(id, f"text {text}", metadata={"n": n}),
    names,
    st.integers(0, 3),
    st.sampled_from([0, 1, "1", None]),
)
batches = st.lists(documents, max_size=6, unique_by=lambda document: document.id)


class IndexMachine(RuleBasedStateMachine):
    """Two handles on one index: one writes, one reads and refreshes now and then."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.student = HashingStudent()
        self.index = Index.create(Path(self.folder.name) / "index", self.student)
        self.mirror: dict[str, Document] = {}
        self.past = {self.index.version: self.mirror}
        self.reader, self.read = Index.open(self.index.path, HashingStudent()), self.mirror

    def _expected(self, batch: list[Document]) -> Counts:
        known = [document for document in batch if document.id in self.mirror]
        same = sum(self.mirror[document.id] == document for document in known)
        return Counts(len(batch) - len(known), len(known) - same, same)

    def _note(self) -> None:
        self.past[self.index.version] = self.mirror

    @rule(batch=batches, size=st.integers(1, 4), window=st.integers(1, 2))
    def add(self, batch: list[Document], size: int, window: int) -> None:
        assert self.index.add(batch, batch_size=size, window=window) == self._expected(batch)
        self.mirror = self.mirror | {document.id: document for document in batch}
        self._note()

    @rule(batch=batches)
    def upsert(self, batch: list[Document]) -> None:
        assert self.index.upsert(batch) == self._expected(batch)
        self.mirror = self.mirror | {document.id: document for document in batch}
        self._note()

    @rule(ids=st.lists(names, max_size=4))
    def delete(self, ids: list[str]) -> None:
        assert self.index.delete(ids) == len(self.mirror.keys() & set(ids))
        self.mirror = {id: document for id, document in self.mirror.items() if id not in ids}
        self._note()

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        there = sorted(self.past.keys() & {version.number for version in self.index.versions()})
        version = data.draw(st.sampled_from(there))
        self.index.restore(version)
        self.mirror = self.past[version]
        self._note()

    @rule()
    def compact(self) -> None:
        self.index.compact()
        self._note()

    @rule()
    def accelerate(self) -> None:
        self.index.accelerate(["one", "two"])

    @rule()
    def reopen(self) -> None:
        self.index = Index.open(self.index.path, self.student)

    @rule()
    def refresh(self) -> None:
        self.reader.refresh()
        self.read = self.mirror

    @invariant()
    def equal(self) -> None:
        if not hasattr(self, "index"):
            return
        for index, mirror in ((self.index, self.mirror), (self.reader, self.read)):
            assert len(index) == len(mirror)
            stored = list(mirror.values())
            expected = brute_force(index, self.student, stored, "q", 5) if stored else []
            assert [hit.id for hit in index.search("q", k=5)] == expected
            few = [document for document in stored if document.metadata["n"] == 1]
            if few:
                hits = index.search("q", k=3, filter="n = 1")
                assert [hit.id for hit in hits] == brute_force(index, self.student, few, "q", 3)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert {document.id: document for document in self.index.documents()} == self.mirror
            assert self.index.check().clean
            self.folder.cleanup()


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(
    max_examples=_SEQUENCES, stateful_step_count=12, suppress_health_check=list(HealthCheck), deadline=None
)
