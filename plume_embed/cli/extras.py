"""Asking for an extra: a missing package of one is a line that says how to install it, not a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

# Modules that only extras declare, and their packages. A test compares them with pyproject.toml.
PACKAGES = {
    "accelerate": "accelerate",
    "datasets": "datasets",
    "evaluate": "evaluate",
    "fastapi": "fastapi",
    "httpx": "httpx",
    "matplotlib": "matplotlib",
    "mteb": "mteb",
    "openai": "openai",
    "peft": "peft",
    "prometheus_client": "prometheus-client",
    "pydantic": "pydantic",
    "starlette": "starlette",
    "ray": "ray",
    "tokenizers": "tokenizers",
    "torchao": "torchao",
    "uvicorn": "uvicorn",
    "yaml": "pyyaml",
}


class MissingExtraError(ImportError):
    """A command needs a package that is in an extra and not installed; the message says how to install it."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around a command that needs an extra: `@extra("train")` below `@app.command()`.

    Args:
        name (`str`): Of the extra in pyproject.toml.

    Raises:
        MissingExtraError: instead of the ImportError of a package that an extra has.
    """
    try:
        yield
    except ImportError as error:
        package = _missing_package(error)
        if package is None:
            raise
        raise MissingExtraError(f'This command needs {package}: pip install "plume-embed[{name}]"') from error


def _missing_package(error: BaseException | None) -> str | None:
    """The package of an extra that is missing: libraries raise import errors of their own from the first one."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            package = PACKAGES.get(error.name.partition(".")[0])
            if package is not None:
                return package
        error = error.__cause__ or error.__context__
    return None
