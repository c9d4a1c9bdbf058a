from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LONGEST_RULE = 2000

_NUMERIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_LOGICAL: dict[type, Callable[..., Any]] = {
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
    ast.Invert: np.logical_not,
    ast.Not: np.logical_not,
}
_COMPARISONS: dict[type, Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": np.abs, "sqrt": np.sqrt, "hypot": np.hypot}


def holds(rule: str, variables: Mapping[str, np.ndarray]) -> np.ndarray:
    r"""Tells where a rule holds, without ever running it as Python code.

    Rules consist of names, numbers, :obj:`+ - * / **`, comparisons, :obj:`& | ~` or
    :obj:`and or not`, parentheses, and the functions :obj:`abs`, :obj:`sqrt` and :obj:`hypot`.

    .. code-block:: python

        holds("boundary & (hypot(x - 0.2, y - 0.2) < 0.06)", variables)

    Args:
        rule (str): The rule.
        variables (dict[str, numpy.ndarray]): What it can name, numbers or booleans.

    Shapes:
        - **variables:** :math:`(|\mathcal{V}|)` each
        - **output:** booleans :math:`(|\mathcal{V}|)`

    Raises:
        ValueError: If the rule cannot be read, names something that is not there, or does not
            say yes or no.
    """
    tree = _parsed(rule)
    size = len(next(iter(variables.values())))
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(_Rule(rule, variables).value(tree))
    except (RecursionError, OverflowError) as error:
        raise ValueError(f"the rule {rule[:100]!r} cannot be computed: {error}") from error
    if result.dtype != bool:
        raise ValueError(f"the rule {rule!r} gives numbers; a comparison is missing in it")
    return np.array(np.broadcast_to(result, size))


def names_in(rule: str) -> set[str]:
    r"""Returns the names that a rule uses, functions left out.

    Args:
        rule (str): The rule.
    """
    names = {node.id for node in ast.walk(_parsed(rule)) if isinstance(node, ast.Name)}
    return names - _FUNCTIONS.keys()


def _parsed(rule: str) -> ast.expr:
    if not isinstance(rule, str) or len(rule) > LONGEST_RULE:
        raise ValueError(
            f"a rule is a text of at most {LONGEST_RULE} characters, got {str(rule)[:100]!r}"
        )
    try:
        return ast.parse(rule.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the rule {rule!r} cannot be read: {error}") from error


class _Rule:
    """Values of the parts of a rule."""

    def __init__(self, rule: str, variables: Mapping[str, np.ndarray]) -> None:
        self.rule, self.variables = rule, variables

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._variable(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            return np.asarray(node.value, dtype=bool if isinstance(node.value, bool) else float)
        if isinstance(node, ast.UnaryOp):
            return self._apply(type(node.op), [node.operand])
        if isinstance(node, ast.BinOp):
            return self._apply(type(node.op), [node.left, node.right])
        if isinstance(node, ast.BoolOp):
            result = self._logical(node.values[0])
            for part in node.values[1:]:
                result = _LOGICAL[type(node.op)](result, self._logical(part))
            return result
        if isinstance(node, ast.Compare):
            return self._compared(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._called(node.func.id, node.args)
        raise self._wrong(node)

    def _variable(self, name: str) -> np.ndarray:
        if name not in self.variables:
            raise ValueError(
                f"the rule {self.rule!r} names {name!r}, which is not there; names are "
                f"{', '.join(self.variables)}"
            )
        return self.variables[name]

    def _apply(self, kind: type, operands: list[ast.expr]) -> Any:
        if kind in _LOGICAL:
            return _LOGICAL[kind](*[self._logical(operand) for operand in operands])
        if kind in _NUMERIC:
            return _NUMERIC[kind](*[self._number(operand) for operand in operands])
        raise self._wrong(operands[-1])

    def _compared(self, node: ast.Compare) -> np.ndarray:
        terms = [self._number(term) for term in [node.left, *node.comparators]]
        result = np.asarray(True)
        for kind, left, right in zip(node.ops, terms, terms[1:]):
            if type(kind) not in _COMPARISONS:
                raise self._wrong(node)
            result = np.logical_and(result, _COMPARISONS[type(kind)](left, right))
        return result

    def _called(self, name: str, arguments: list[ast.expr]) -> np.ndarray:
        function = _FUNCTIONS.get(name)
        wanted = 2 if name == "hypot" else 1
        if function is None or len(arguments) != wanted:
            raise ValueError(
                f"the rule {self.rule!r} calls {name} with {len(arguments)} arguments; functions "
                f"are abs(a), sqrt(a) and hypot(a, b)"
            )
        return function(*[self._number(argument) for argument in arguments])

    def _number(self, node: ast.expr) -> np.ndarray:
        return np.asarray(self.value(node), dtype=float)

    def _logical(self, node: ast.expr) -> np.ndarray:
        value = np.asarray(self.value(node))
        if value.dtype != bool:
            raise ValueError(
                f"the rule {self.rule!r} joins {ast.unparse(node)!r}, which is a number, by and, "
                "or, not; put comparisons in parentheses, as in (x < 1) & (y < 1)"
            )
        return value

    def _wrong(self, node: ast.expr) -> ValueError:
        return ValueError(
            f"the rule {self.rule!r} holds {ast.unparse(node)!r}; it can hold names, numbers, "
            "+ - * / **, comparisons, & | ~, abs, sqrt and hypot"
        )
