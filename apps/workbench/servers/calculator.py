"""Arithmetic on text, without `eval`: the expression is parsed and only what stands here is carried out."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

MAX_LENGTH = 1000
MAX_NODES = 500
MAX_DIGITS = 2000
"""Decimal digits of an integer, in between and in the end."""

Number = int | float


class CalculationError(ValueError):
    """The expression cannot be calculated; the message says why."""


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (abs, 1, 1),
    "round": (round, 1, 2),
    "min": (min, 1, 50),
    "max": (max, 1, 50),
    "sum": (lambda *values: sum(values), 1, 50),
    "sqrt": (math.sqrt, 1, 1),
    "exp": (math.exp, 1, 1),
    "log": (math.log, 1, 2),
    "log2": (math.log2, 1, 1),
    "log10": (math.log10, 1, 1),
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
    "tan": (math.tan, 1, 1),
    "asin": (math.asin, 1, 1),
    "acos": (math.acos, 1, 1),
    "atan": (math.atan, 1, 1),
    "atan2": (math.atan2, 2, 2),
    "hypot": (math.hypot, 1, 10),
    "floor": (math.floor, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "trunc": (math.trunc, 1, 1),
    "degrees": (math.degrees, 1, 1),
    "radians": (math.radians, 1, 1),
    "gcd": (math.gcd, 1, 10),
}
_LIMIT = 10**MAX_DIGITS


def calculate(expression: str) -> Number:
    """Return the value of an arithmetic expression: numbers, + - * / // % **, parentheses, pi, e, tau, and common functions.

    Raises CalculationError. At most 1,000 characters; integers of at most 2,000 digits.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculationError(f"The expression has {len(expression)} characters; {MAX_LENGTH} are allowed.")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CalculationError(
            "The expression cannot be read. Use numbers, + - * / // % **, parentheses and functions."
        ) from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise CalculationError("The expression has too many parts.")
    try:
        return _value(tree.body)
    except ZeroDivisionError:
        raise CalculationError("Division by zero.") from None
    except OverflowError:
        raise CalculationError("The result is too large.") from None
    except (ValueError, TypeError) as error:
        if isinstance(error, CalculationError):
            raise
        raise CalculationError(f"Not possible with these numbers: {error}.") from None


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(node.value)
    if isinstance(node, ast.Name):
        if node.id not in _CONSTANTS:
            raise CalculationError(f"{node.id} is not known. Constants: {', '.join(_CONSTANTS)}.")
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _bounded(_UNARY[type(node.op)](_value(node.operand)))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _bounded(_power(left, right))
        if type(node.op) in _BINARY:
            return _bounded(_BINARY[type(node.op)](left, right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _call(node.func.id, node.args)
    raise CalculationError("Only numbers, + - * / // % **, parentheses and functions are allowed.")


def _call(name: str, arguments: list[ast.expr]) -> Number:
    if name not in _FUNCTIONS:
        raise CalculationError(f"The function {name} is not known. Functions: {', '.join(sorted(_FUNCTIONS))}.")
    function, fewest, most = _FUNCTIONS[name]
    if not fewest <= len(arguments) <= most:
        raise CalculationError(f"{name} takes {fewest if fewest == most else f'{fewest} to {most}'} arguments.")
    return _bounded(function(*(_value(argument) for argument in arguments)))


def _power(base: Number, exponent: Number) -> Number:
    whole = isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent > 0
    # How many digits an integer power has is known before it is calculated.
    if whole and exponent * math.log10(abs(base)) > MAX_DIGITS:
        raise CalculationError("The result is too large.")
    result = base**exponent
    if isinstance(result, complex):
        raise CalculationError("The result is not a real number.")
    return result


def _bounded(value: Any) -> Number:
    if isinstance(value, float) and not math.isfinite(value):
        raise CalculationError("The result is too large.")
    if isinstance(value, int) and abs(value) >= _LIMIT:
        raise CalculationError("The result is too large.")
    return value  # type: ignore[no-any-return]
