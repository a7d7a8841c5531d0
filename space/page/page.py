"""The page: four tabs over a [`Service`], in Gradio."""

import os
from html import escape
from pathlib import Path

import gradio as gr
from huggingface_hub.constants import ENDPOINT

from space.page import render
from space.page.about import about
from space.page.api import make_api
from space.page.compare_tab import make_compare_tab
from space.page.diagnostics_tab import make_diagnostics_tab
from space.page.examples import Examples
from space.page.search_handlers import SearchHandlers
from space.page.search_tab import Headings, make_search_tab
from space.service import Service

TITLE = "PLUME: search by latent reasoning"
PAPER = "https://arxiv.org/abs/2604.02073"
DESCRIPTION = (
    "Search pictures, films and pages by a text, a picture, a film or any of them together, and look into the latent "
    "steps that the model takes before it answers."
)
_HERE = Path(__file__).parent


def make_page(service: Service) -> gr.Blocks:
    """The Gradio app; `launch` it with what app.py says."""
    search = SearchHandlers(service, Examples(service))
    # Without `delete_cache`, which goes by age alone and deletes what a visitor still looks at: see `Sessions.tidy`.
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        make_api(service)  # before the events of the page, which may not take its name
        gr.HTML(_introduction(service), elem_id="intro")
        with gr.Tabs(elem_id="tabs"):
            # The search brings lines of the other tabs up to date, so those are drawn first, and placed behind it.
            search_tab = gr.Tab("Search", id="search")
            with gr.Tab("Diagnostics", id="diagnostics") as diagnostics_tab:
                diagnostics_heading = make_diagnostics_tab(service, diagnostics_tab)
            with gr.Tab("Compare", id="compare") as compare_tab:
                compare_heading, variants = make_compare_tab(service, compare_tab)
            with search_tab:
                make_search_tab(search, Headings(diagnostics_heading, compare_heading, variants))
            with gr.Tab("About", id="about"):
                encoders = dict.fromkeys(corpus.encoder for corpus in service.corpora)
                gr.HTML("".join(about(encoder) for encoder in encoders), elem_id="about")
        page.unload(search.leave)
    return page


def head(service: Service) -> str:
    """Style and script for the page's head. Not as `css`, whose rules Gradio confines to a part of the page."""
    style, script = (_HERE / "page.css").read_text(), (_HERE / "page.js").read_text()
    style += render.choice_style([corpus.id for corpus in service.corpora])
    return f"<style>{style}</style><script>{script}</script>"


def description(image: str) -> str:
    """What search engines and other sites show of the page, for the head as the server sends it.

    Args:
        image (`str`): Address of the preview image.
    """
    named = {"description": DESCRIPTION, "twitter:card": "summary_large_image"}
    properties = {"og:title": TITLE, "og:description": DESCRIPTION, "og:type": "website", "og:image": image}
    tags = [f'<meta name="{name}" content="{escape(value)}">' for name, value in named.items()]
    tags += [f'<meta property="{name}" content="{escape(value)}">' for name, value in properties.items()]
    return f"<title>{escape(TITLE)}</title>{''.join(tags)}"


def _introduction(service: Service) -> str:
    addresses = {"Paper": PAPER, "Code": "#about", "Model": "#about", "Licence": "#about"}  # "#about": the fourth tab
    if space := os.environ.get("SPACE_ID"):
        addresses["Code"] = f"{ENDPOINT}/spaces/{space}/tree/main"
    name = service.corpora[0].encoder.name
    if not Path(name).exists():
        addresses["Model"] = f"{ENDPOINT}/{name}"
    links = " · ".join(f'<a href="{escape(address)}">{name}</a>' for name, address in addresses.items())
    return (
        "<h1>Search by latent reasoning</h1><p>PLUME finds pictures, films and pages by a text, a picture, a film, or "
        "any of them together. Instead of writing down its thoughts it takes a few latent steps; the second tab shows "
        f"what they do.</p><p class='links'>{links}</p>"
    )
