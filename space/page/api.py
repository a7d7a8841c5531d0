"""The endpoint for programs, `/search`; everything else of the page is private."""

from pathlib import Path
from typing import Any

import gradio as gr

from space.content.sessions import Session
from space.content.uploads import Upload
from space.page.snippets import rows
from space.service import Query, Service
from space.trace import finish


def make_api(service: Service) -> None:
    """Adds the endpoint to the page that is being made."""

    def search(
        text: str = "",
        image: gr.FileData | None = None,
        video: gr.FileData | None = None,
        num_latent_steps: int | None = None,
        collection: str = "",
    ) -> list[dict[str, Any]]:
        """Searches by a text, a picture, a film, or any of them together.

        Parameters:
            text: What to search.
            image: A picture.
            video: A film.
            num_latent_steps: K; by default the model's own.
            collection: Its id; by default the first one.

        Returns:
            The results, best first: rank, score (cosine), name, kind, text.
        """
        uploads, session = [_upload(image), _upload(video)], Session()
        service.sessions.hold(session, *(upload.path for upload in uploads if upload))
        try:
            if not isinstance(text, str) or not isinstance(collection, str):
                raise ValueError("text and collection are strings.")
            corpus = service.corpus(collection)
            steps = corpus.default_steps if num_latent_steps is None else _whole(num_latent_steps)
            return rows(finish(service.query(session, Query(corpus, text, *uploads, steps))).hits)
        except ValueError as error:
            raise gr.Error(str(error)) from error
        finally:
            service.sessions.release(session)

    gr.api(
        search,
        api_name="search",
        concurrency_id="model",
        concurrency_limit=service.settings.at_a_time,
    )


def _whole(number: Any) -> int:
    """Gradio passes on whatever the caller wrote; 3.0 is a whole number in JSON."""
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number // 1:
        raise ValueError(f"num_latent_steps is a whole number, got {number!r}.")
    return int(number)


def _upload(file: dict[str, Any] | None) -> Upload | None:
    if not file or not file.get("path"):
        return None
    path = Path(file["path"])
    return Upload(path, file.get("orig_name") or path.name)
