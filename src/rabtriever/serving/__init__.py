"""An index behind HTTP: an API that clients already speak, and a page to try it on.

What travels: a request is admitted (:mod:`.admission`), a thread of its own asks the index, and whatever needs the
language model waits in one queue (:mod:`.queue`) for one worker (:mod:`.engine`), which computes what belongs together
in one batch. The index never notices: it is opened with :class:`.model.BatchedModel`, an encoder like any other.
"""

from __future__ import annotations

from rabtriever.serving.app import create_app
from rabtriever.serving.service import Service
from rabtriever.serving.settings import Settings

__all__ = ["Service", "Settings", "create_app"]
