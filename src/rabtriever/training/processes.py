"""The processes that train one teacher together, where a launcher such as ``accelerate launch`` started several.

Each reads its share of every step's pairs and all add up their gradients, so that ``n`` processes take the steps that
one takes, up to rounding. Files are written by the first of them, in a folder that all of them see.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from rabtriever.errors import InputError

__all__ = ["Processes"]

_T = TypeVar("_T")
_PATIENCE = timedelta(days=2)
"""So long the others wait for the first one, which distils alone; the usual ten minutes would end a long stage III."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number; the first is 0.
        count: How many there are.

    Example:
        >>> Processes().first
        True
        >>> Processes(rank=1, count=2).share("abcde")
        'bd'
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def together(cls) -> Processes:
        """Those that the launcher of this process started, connected; a process started by itself is alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)  # picks this process's GPU as well
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """This process's part of what all of them hold."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Until all of them are here."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The first one goes through the block alone; the others come after it."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor, which is where the model is, by its sum over all of them."""
        if self.count > 1:
            distributed.all_reduce(tensor)

    def total(self, value: float) -> float:
        """The sum of a number over all of them."""
        if self.count == 1:
            return value
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        self.add_up(tensor)
        return float(tensor)

    def need_folder(self, folder: object) -> None:
        """Several of them share what is drawn and measured by way of files.

        Raises:
            InputError: If there are several of them and no folder.
        """
        if self.count > 1 and folder is None:
            raise InputError(
                f"{self.count} processes train together, but there is no folder for what they share",
                hint="give fit an output folder that all of them see",
            )
