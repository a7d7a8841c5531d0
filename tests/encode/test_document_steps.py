"""Documents with a K of their own: saved with the model, and used wherever documents are embedded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from index_data import rows_by_place
from sentence_transformers import SentenceTransformer
from small_files import write_picture
from typer.testing import CliRunner

from plume_embed import PlumeConfig, PlumeModel, PlumeProcessor
from plume_embed.cli.main import app
from plume_embed.encode.encoder import Encoder
from plume_embed.evaluation.embedders import PlumeEmbedder
from plume_embed.evaluation.photos.benchmark import RankingTask
from plume_embed.evaluation.photos.run import evaluate
from plume_embed.index.search import open_index
from plume_embed.index.update import update_index
from plume_embed.training.data.start import model_of_folder
from plume_embed.training.recipe import load_recipe
from training.hops import HOPS
from training.hops.task import HopsTask

QUERY = "a red bicycle"


@pytest.fixture(scope="module")
def folder(released_model_dir, tmp_path_factory) -> Path:
    """The shared model with queries of K = 3 and documents in a single pass."""
    folder = tmp_path_factory.mktemp("one_way") / "model"
    shutil.copytree(released_model_dir, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_latent_steps": 3, "document_latent_steps": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def encoder(folder) -> Encoder:
    return Encoder(folder, device="cpu")


@pytest.fixture(scope="module")
def expected(encoder) -> dict[int, np.ndarray]:
    """The query's vector by K."""
    found = {steps: encoder.encode([QUERY], num_latent_steps=steps)[0] for steps in (0, 2, 3)}
    assert max(found[0] @ found[3], found[2] @ found[3], found[0] @ found[2]) < 0.999
    return found


def test_the_config_keeps_it_and_the_model_takes_it_for_documents_only(folder, expected):
    model, processor = PlumeModel.from_pretrained(folder).eval(), PlumeProcessor.from_pretrained(folder)
    batch = processor([QUERY])
    with torch.inference_mode():
        for options, steps in (
            ({"task": "document"}, 0),
            ({"task": "query"}, 3),
            ({}, 3),
            ({"task": "document", "num_latent_steps": 2}, 2),
        ):
            np.testing.assert_allclose(model(**batch, **options).embeddings[0], expected[steps], atol=1e-5)


def test_a_model_without_it_embeds_documents_as_queries(released_model_dir):
    encoder = Encoder(released_model_dir, device="cpu")
    assert encoder.model.config.document_latent_steps is None
    assert encoder.document_latent_steps() == encoder.latent_steps() == 8 and encoder.document_latent_steps(2) == 2
    embedder = PlumeEmbedder(encoder)
    assert embedder.documents is embedder
    with pytest.raises((StrictDataclassError, ValueError), match="document_latent_steps must lie in 0..32"):
        PlumeConfig(document_latent_steps=33)


def test_sentence_transformers_encodes_documents_with_it(folder, expected):
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    for found, steps in (
        (model.encode_document([QUERY]), 0),
        (model.encode_query([QUERY]), 3),
        (model.encode([QUERY]), 3),
        (model.encode_document([QUERY], num_latent_steps=2), 2),
    ):
        np.testing.assert_allclose(found[0], expected[steps], atol=1e-5)


def test_an_index_holds_documents_and_is_searched_by_queries(encoder, expected, tmp_path):
    files, db = tmp_path / "files", tmp_path / "db"
    files.mkdir()
    (files / "a.txt").write_text(QUERY)
    write_picture(files / "b.png")
    update_index(files, db, encoder)
    row = next(row for (path, _), row in rows_by_place(db).items() if path == "a.txt")
    np.testing.assert_allclose(row["vector"], expected[0], atol=1e-5)
    assert open_index(files, db, encoder, num_latent_steps=2).search(expected[2])[0].score == pytest.approx(
        float(expected[0] @ expected[2]), abs=1e-4
    )
    assert update_index(files, db, encoder, num_latent_steps=2).embedded == 0  # K of queries changes no document


def test_lines_are_embedded_as_documents_where_that_is_said(folder, expected, tmp_path):
    import pyarrow.parquet as pq

    (tmp_path / "lines.jsonl").write_text(json.dumps({"text": QUERY}) + "\n")
    for options, steps in (([], 3), (["--documents"], 0), (["--documents", "--latent-steps", "2"], 2)):
        out = tmp_path / f"{steps}.parquet"
        command = ["embed", str(tmp_path / "lines.jsonl"), "--to", str(out), "--model", str(folder), *options]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0
        said = "embedded as queries, with K = 3; --documents takes K = 0, as `index` does"
        assert (said in result.output) == (steps == 3)
        said = "embedded with K = 2, as asked; `index` embeds documents with K = 0"
        assert (said in result.output) == (steps == 2)
        np.testing.assert_allclose(pq.read_table(out)["embedding"].to_pylist()[0], expected[steps], atol=1e-5)


def test_an_evaluation_embeds_candidates_as_documents(encoder, expected):
    embedder = PlumeEmbedder(encoder)
    assert (embedder.num_latent_steps, embedder.documents.num_latent_steps) == (3, 0)
    documents = embedder.documents
    assert documents.documents is documents
    assert PlumeEmbedder(encoder, "anchor").documents.paradigm == "anchor"
    np.testing.assert_allclose(embedder.documents.embed([{"text": QUERY}], 1)[0], expected[0], atol=1e-5)
    seen: list[tuple[int | None, int]] = []

    class Watched(PlumeEmbedder):
        @property
        def documents(self):
            return Watched(self.encoder, "single") if self.num_latent_steps else self

        def embed(self, inputs, batch_size):
            seen.append((self.num_latent_steps, len(inputs)))
            return super().embed(inputs, batch_size)

    task = RankingTask("t", [{"text": QUERY}], [{"text": QUERY}, {"text": "something else"}], [[0]])
    (found,) = evaluate([task], [Watched(encoder)], 4)
    assert seen == [(3, 1), (0, 2)] and found.ranks["t"].tolist() in ([1], [2])


@pytest.mark.parametrize(("settings", "steps"), [([], 0), (["target_rollout=true"], None)])
def test_training_with_targets_in_a_single_pass_saves_it(settings, steps, tmp_path):
    task = HopsTask(load_recipe(HOPS, settings))
    task.make_model().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["document_latent_steps"] == steps


@pytest.mark.parametrize(
    ("settings", "steps"),
    [([], None), (["curriculum.anytime_steps=[4,0,2]"], [0, 2, 4]), (["pairs.sampled_steps=[8,2]"], [2])],
)
def test_training_for_fewer_steps_as_well_saves_which(settings, steps, tmp_path):
    HopsTask(load_recipe(HOPS, settings)).make_model().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["anytime_steps"] == steps


def test_steps_that_a_model_serves_ascend():
    for wrong in ([2, 0], [1, 1], [-1], [33]):
        with pytest.raises((StrictDataclassError, ValueError), match=r"anytime_steps must ascend within 0\.\.32"):
            PlumeConfig(anytime_steps=wrong)


def test_going_on_from_such_a_model_keeps_it_or_says_so(folder):
    where = ["task=pairs", f"model.path={folder}", "output_dir=runs/a"]
    for settings, steps in (
        (["target_rollout=false"], 0),
        (["model.plume={document_latent_steps: null}"], None),
    ):
        recipe = load_recipe(HOPS, [*where, "target_rollout=true", *settings])
        assert model_of_folder(recipe).config.document_latent_steps == steps
    with pytest.raises(ValueError, match="embeds documents with 0 latent steps: go on with"):
        model_of_folder(load_recipe(HOPS, [*where, "target_rollout=true"]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("num_experts_per_tok: 0", r"num_experts_per_tok must lie in 1\.\.num_experts=4, got 0"),
        ("num_step_embeddings: 64", "num_step_embeddings=64: .* init"),
        ("num_step_embeddings: 2", r"num_latent_steps must lie in 0\.\.2"),
    ],
)
def test_going_on_with_a_value_that_cannot_be_saved_is_refused_before_the_training(folder, values, words):
    settings = ["task=pairs", f"model.path={folder}", "output_dir=runs/a", "target_rollout=false"]
    with pytest.raises(ValueError, match=words):
        model_of_folder(load_recipe(HOPS, [*settings, f"model.plume={{{values}}}"]))
