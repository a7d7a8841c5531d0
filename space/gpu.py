"""ZeroGPU: where the package `spaces` is installed, the model runs in functions that borrow a GPU.

Such a function runs in another process: it gets the name of an encoder, which that process has already, and gives back
what can be pickled. Elsewhere it is an ordinary call.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

from plume_embed.encode.encoder import Encoder

Result = TypeVar("Result")

IS_ZERO = find_spec("spaces") is not None
_ENCODERS: dict[str, Encoder] = {}


def register(encoder: Encoder) -> str:
    """Makes an encoder known by a name; called before the first borrowed GPU."""
    _ENCODERS[encoder.fingerprint] = encoder
    return encoder.fingerprint


def _run(function: Callable[..., Result], name: str, args: tuple[Any, ...]) -> Result:
    return function(_ENCODERS[name], *args)


if IS_ZERO:
    import spaces

    _run = spaces.GPU(_run)


def call(function: Callable[..., Result], encoder: Encoder, *args: Any) -> Result:
    """`function(encoder, *args)`, on a borrowed GPU where there is one.

    Args:
        function (`Callable`): Importable by name; its arguments and its result can be pickled.
        encoder ([`Encoder`])
    """
    return _run(function, register(encoder), args)
