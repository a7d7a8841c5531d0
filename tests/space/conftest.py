"""The Space with its real model and collection, without the page; built once for all tests of a worker."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="plume-space-test-")  # before Gradio's components are made


@pytest.fixture(scope="session")
def encoder():
    from plume_embed.encode.encoder import BUNDLED_MODEL, Encoder

    return Encoder(BUNDLED_MODEL, device="cpu")


@pytest.fixture(scope="session")
def upload_folder() -> Path:
    return Path(os.environ["GRADIO_TEMP_DIR"]).resolve()


@pytest.fixture(scope="session")
def service(encoder, upload_folder, tmp_path_factory: pytest.TempPathFactory):
    from space.service import Service
    from space.settings import Settings

    service = Service(Settings(data=tmp_path_factory.mktemp("space")), encoder, upload_folder)
    service.collection.build()
    return service
