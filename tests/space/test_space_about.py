"""The tab "About" tells what is in the files, and no results of other models."""

import json
from pathlib import Path

from plume_embed.encode.encoder import Encoder
from space.page.about import _training, about
from space.settings import Settings

ROOT = Path(__file__).parent.parent.parent


def test_about_tells_the_figures_of_the_result_files(encoder):
    page = about(encoder)
    examples = json.loads((ROOT / "evaluation" / "results" / "plume-tiny-examples.json").read_text())
    assert f"{100 * examples['names_hit_at_1']:.0f} % are found first by their name" in page
    trained, other = (f"{100 * examples['by_style'][style]['names_hit_at_1']:.0f} %" for style in ("noto", "twemoji"))
    assert f"in noto, a style of training: {trained}" in page
    assert f"in twemoji, a style never trained on: {other}" in page
    for file in (ROOT / "evaluation" / "results").glob("plume-tiny*.json"):
        data = json.loads(file.read_text())
        for one in data.get("with_country_flags", []):
            assert f"<td>{100 * one['hit_at_1']:.1f}</td>" in page
        if data.get("benchmark") == "miniature":
            assert f"{100 * data['models'][0]['means']['mean'][0]:.1f}" in page
    assert f"K = {encoder.model.config.num_latent_steps}" in page and "2604.02073" in page
    runs = json.loads((encoder.folder / "training.json").read_text())["runs"]
    for run in runs:
        assert f'<th scope="col">{run["name"]}</th>' in page
        assert f"<td>{run['recipe']['curriculum']['max_steps']}</td>" in page
        assert f"<td>{run['train_minutes']:,.1f}</td>" in page


def test_about_tells_one_run_as_a_list_and_says_where_there_is_no_record(tmp_path):
    assert "No training record" in _training(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"recipe": {"batch_size": 7}, "processes": 2}))
    assert "<li>batch: 7</li><li>processes: 2</li>" in _training(tmp_path)


def test_about_another_model_shows_no_results_of_ours(encoder, released_model_dir):
    page = about(Encoder(released_model_dir, device="cpu"))
    assert "No measured results are bundled for this model" in page and "Hit@1" not in page


def test_about_the_model_of_any_number_of_steps_shows_each_of_them():
    page = about(Encoder(ROOT / "checkpoints" / "plume-tiny-anytime", device="cpu"))
    found = json.loads((ROOT / "evaluation" / "results" / "anytime.json").read_text())
    for models in found.values():
        for hits in models.values():
            assert all(f"<td>{hit:.1f}</td>" in page for hit in hits)
    assert "plume-tiny-anytime, a model of this repository" in page and "K = 4" in page


def test_the_page_says_how_long_own_files_stay(tmp_path):
    settings = Settings(data=tmp_path, session_seconds=1800, sessions=50)
    sentence = settings.keeping_sentence()
    assert "when you leave the page" in sentence and "30 minutes" in sentence and "50 others" in sentence
