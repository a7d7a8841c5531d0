"""One switch for what the libraries below print: loading bars, advice, warnings meant for developers."""

import os
import sys


def quiet_libraries() -> None:
    """Keeps loading bars and advice off stderr, in this process and in those that it starts.

    Of transformers, datasets and huggingface_hub. Errors still show, and so does the bar of a download, on a terminal.
    """
    import transformers
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # datasets reads it when it is imported
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if sys.stderr.isatty():
        enable_progress_bars()
    else:
        disable_progress_bars()
