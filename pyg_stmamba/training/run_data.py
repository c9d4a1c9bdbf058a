from __future__ import annotations

from lightning.pytorch import LightningDataModule


class RunData(LightningDataModule):
    r"""What the data of all training have in common: they know where a run stands."""

    def _share(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _finished_epochs(self) -> int:
        # Lightning makes the first iterator of a resumed run before it tells the epoch.
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
