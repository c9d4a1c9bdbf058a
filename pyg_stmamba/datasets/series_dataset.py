import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data, InMemoryDataset

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.data.whole_file import written_whole
from pyg_stmamba.datasets.download import RawFile, fetch, mismatch


class SeriesDataset(InMemoryDataset):
    r"""Base of the data sets that hold one graph whose nodes carry series.

    A data set names its raw files and reads them; here they are brought in and
    verified, and the graph is written and read again. Files are written under
    another name and renamed when they are whole, and processed files are read
    with :obj:`weights_only=True`.

    Args:
        root: Folder of the data set, with the upstream files in :obj:`raw/`.
            Files that are there already are used as they are, and may hold a
            subset of the sensors.
        transform: Applied at each access (default: :obj:`None`).
        pre_transform: Applied once, before the graph is written
            (default: :obj:`None`).
        force_reload: Whether to process the raw files again
            (default: :obj:`False`).
    """

    protocol: Protocol = Protocol()
    num_steps_upstream: int | None = None
    num_nodes_upstream: int | None = None

    def __init__(
        self,
        root: str | Path,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        super().__init__(str(root), transform, pre_transform, log=False, force_reload=force_reload)
        self.load(self.processed_paths[0])

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        r"""The upstream files, with what is known of each."""
        raise NotImplementedError

    def read(self) -> TemporalGraph:
        r"""Makes the graph of the raw files."""
        raise NotImplementedError

    @property
    def raw_file_names(self) -> list[str]:
        return [file.name for file in self.raw_files]

    def raw_path(self, name: str) -> Path:
        r"""Where the raw file of this name lies."""
        return Path(self.raw_dir, name)

    def download(self) -> None:
        fetch(self.raw_files, self.raw_dir)

    def process(self) -> None:
        for file in self.raw_files:
            self._refuse_damaged(file)
        graph = self.read()
        if (graph.num_steps, graph.num_nodes) == (self.num_steps_upstream, self.num_nodes_upstream):
            for file in self.raw_files:
                self._warn_of_other_source(file)
        if self.pre_transform is not None:
            graph = self.pre_transform(graph)
        self.save([graph], self.processed_paths[0], _lasting(self.pre_transform))

    def _process(self) -> None:
        # One file holds graph and settings, so that there is no moment in which they disagree.
        if self.force_reload or not os.path.exists(self.processed_paths[0]):
            os.makedirs(self.processed_dir, exist_ok=True)
            self.process()

    @classmethod
    def save(cls, data_list: Sequence[Any], path: str, pre_transform: str = "None") -> None:
        content = {"graph": data_list[0].to_dict(), "pre_transform": pre_transform}
        with written_whole(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(content, file)
            if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(temporary):
                raise TypeError(
                    f"the graph holds {', '.join(sorted(unsafe))}, which cannot be read back "
                    "safely; pre_transform may add tensors, numbers, text, lists and dicts"
                )

    def load(self, path: str, data_cls: type[Data] = TemporalGraph) -> None:
        try:
            content = torch.load(path, weights_only=True)
            graph, pre_transform = content["graph"], content["pre_transform"]
        except OSError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"{path} is damaged, or no processed file of this version ({reason}); pass "
                "force_reload=True to make it anew"
            ) from error
        if pre_transform != _lasting(self.pre_transform):
            warnings.warn(
                f"{path} was made with pre_transform={pre_transform}, asked for is "
                f"{_lasting(self.pre_transform)}; pass force_reload=True to make it anew",
                stacklevel=3,
            )
        self.data, self.slices = data_cls.from_dict(graph), None

    def _refuse_damaged(self, file: RawFile) -> None:
        path = self.raw_path(file.name)
        if path.stat().st_size == file.size and (difference := mismatch(path, file)):
            raise ValueError(
                f"{path} has the size of the upstream file, but {difference}: it is damaged. "
                f"Delete it to have it downloaded again, or fetch it by hand: {file.by_hand}"
            )

    def _warn_of_other_source(self, file: RawFile) -> None:
        path = self.raw_path(file.name)
        if difference := mismatch(path, file):
            warnings.warn(
                f"{path} covers all sensors and steps, but is not the published file: "
                f"{difference}. Results may differ from published ones",
                stacklevel=3,
            )


def _lasting(pre_transform: Callable | None) -> str:
    # An address in memory changes from run to run.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(pre_transform))
