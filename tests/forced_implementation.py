import importlib
import os
from collections import Counter

import pytest
import torch

from pyg_stmamba.ops import backend


class ForcedImplementation:
    """Prefers one implementation of every op, so that it runs on all inputs that it takes where
    no other is asked for by name, and counts which implementations served."""

    def __init__(self, name: str):
        self.name = name
        self.served: Counter[str] = Counter()
        modules = [importlib.import_module(f"pyg_stmamba.ops.{op}") for op in backend.OPS]
        known = {entry.name for module in modules for entry in module.IMPLEMENTATIONS}
        if name not in known:
            raise pytest.UsageError(f"--implementation={name}: choose from {sorted(known)}")
        if name == "triton" and not torch.cuda.is_available():
            os.environ["TRITON_INTERPRET"] = "1"
        self.choose_first = backend._first
        backend._first = self.prefer

    def prefer(self, op, table, args, kwargs):
        if op not in backend.OPS:
            return self.choose_first(op, table, args, kwargs)
        preferred = [entry for entry in table if entry.name == self.name]
        chosen = self.choose_first(op, (*preferred, *table), args, kwargs)
        if not torch.compiler.is_compiling():
            self.served[f"{op} by {chosen.name}"] += 1
        return chosen

    def pytest_collection_modifyitems(self, items):
        skip = pytest.mark.skip(reason=f"it tests the choice, and {self.name} is forced")
        for item in items:
            if item.get_closest_marker("choice"):
                item.add_marker(skip)

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["served"] = dict(self.served)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.served.update(getattr(node, "workeroutput", {}).get("served", {}))

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section(f"{self.name} was forced")
        forced = [f"{op} by {self.name}" for op in backend.OPS]
        for choice in sorted({*forced, *self.served}):
            terminalreporter.line(f"{choice}: {self.served[choice]} calls")
