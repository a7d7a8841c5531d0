"""README and docs/: their examples run, their figures are the committed ones, what they name exists."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from docs.committed import read
from docs.examples import Example, read_examples, run
from docs.figures import figures
from docs.plots import PLOTS, drawn, is_same, version_of
from docs.tables import TABLES, pages, rendered
from plume_embed.cli.evaluate.contestants import ModelOptions, load_contestants

ROOT = Path(__file__).parent.parent.parent
PAGES = [*pages(), *(ROOT / folder / "README.md" for folder in ("training", "evaluation", "benchmarks"))]
README = ROOT / "README.md"
# One process each: the first two show that their examples need nothing that another page imported.
GROUPS = {
    "readme": [README],
    "quickstart": [ROOT / "docs" / "quickstart.md"],
    "others": [page for page in pages() if page.name not in ("README.md", "quickstart.md") and read_examples(page)],
}
NOT_YET = ("docs/results/photographs.md",)  # with the model of photographs
EXAMPLES = [(group, row) for group, found in GROUPS.items() for row in range(sum(len(read_examples(p)) for p in found))]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """What every example did, by group."""
    found = {}
    for group, chosen in GROUPS.items():
        out = tmp_path_factory.mktemp("examples") / f"{group}.json"
        command = [sys.executable, "-m", "docs.examples", *map(str, chosen), "--json", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert out.is_file(), done.stderr[-2000:]
        found[group] = json.loads(out.read_text())
    return found


@pytest.mark.release
@pytest.mark.parametrize(("group", "row"), EXAMPLES, ids=lambda value: str(value))
def test_a_python_example_runs_as_it_stands(group: str, row: int, outcomes: dict[str, list[dict]]):
    outcome = outcomes[group][row]
    if outcome["status"] == "skipped":
        pytest.skip(f"{outcome['heading']}: {outcome['reason']}")
    assert outcome["status"] == "run", f"{outcome['heading']}: {outcome['reason']}"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print(10)  # 10\nprint('a', 'b')\nprint(1)  # 1", "run"),
        ("print(10)  # 1", "failed"),
        ("print(1)  # 2\nprint(2)  # 1", "failed"),
        ("for value in [0.713]:\n    print(value)  # 0.7", "failed"),
    ],
)
def test_an_example_prints_exactly_what_it_shows(code: str, status: str):
    example = Example("page", "heading", code)
    run(example)
    assert example.status == status


@pytest.mark.release
@pytest.mark.parametrize("page", pages(), ids=named)
def test_the_tables_of_a_page_are_the_committed_results(page: Path):
    assert rendered(page.read_text()) == page.read_text(), "run python -m docs.tables"


@pytest.mark.release
@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_what_the_committed_results_draw(name: str):
    plot, committed = drawn(name), (ROOT / name).read_text()
    if version_of(plot) != version_of(committed):
        pytest.skip(f"drawn by {version_of(committed)}, here is {version_of(plot)}")
    assert is_same(plot, committed), "run python -m docs.tables"


def test_plots_are_the_same_up_to_rounding_and_no_further():
    plot = '<text x="12.3456">stages_6</text>'
    assert is_same(plot, plot.replace("12.3456", "12.3457"))
    assert not is_same(plot, plot.replace("12.3456", "12.4")) and not is_same(plot, plot.replace("s_6", "s_8"))
    assert not is_same(plot, plot.replace("stages", "steps"))


def test_every_plot_that_a_page_shows_is_one_that_is_drawn():
    shown = re.findall(r"\]\((?:\.\./)*(\S+\.svg)\)", "".join(page.read_text() for page in pages()))
    assert sorted(shown) == sorted(PLOTS)


@pytest.mark.release
def test_every_table_stands_on_one_page():
    marked = [name for page in pages() for name in re.findall(r"<!-- table: (\w+) -->", page.read_text())]
    assert sorted(marked) == sorted(TABLES)


@pytest.mark.release
@pytest.mark.parametrize(("page", "phrase"), [(p, phrase) for p, found in figures().items() for phrase in found])
def test_a_figure_in_the_prose_is_the_committed_one(page: str, phrase: str):
    assert phrase in " ".join((ROOT / page).read_text().split())


def test_the_command_of_the_photographs_evaluates_the_models_of_its_results():
    page = (ROOT / "docs" / "results" / "photographs.md").read_text().replace("\\\n", "")
    words = shlex.split(re.search(r"^\$ (plume-embed evaluate photos .*)$", page, flags=re.MULTILINE)[1])
    models = [after for word, after in pairwise(words) if word == "--model"]
    embedders, _ = load_contestants(
        [str(ROOT / model) for model in models], [], [("latent", None)], ModelOptions("cpu", "float32")
    )
    committed = json.loads((ROOT / words[words.index("--json") + 1]).read_text())["models"]
    ours = [(one["model"], one["num_latent_steps"]) for one in committed if one["model"].startswith("plume-")]
    assert [(embedder.name, embedder.num_latent_steps) for embedder in embedders] == ours


def test_a_table_of_rationales_that_were_cut_says_how_many_under_it():
    cut = read("evaluation/results/paradigms.json")["models"][3]["rationales"]["num_cut"]
    assert cut and f"{cut:,} of " in TABLES["paradigm_scores"]() and "were cut" not in TABLES["miniature_scores"]()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in headings(file), target


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_named_in_code_spans_exist(page: Path):
    below = ("plume_embed/", "training/", "evaluation/", "benchmarks/", "space/", "tests/", "checkpoints/", "docs/")
    for span in re.findall(r"`([\w./-]+)`", page.read_text()):
        if span.startswith(below):
            assert (ROOT / span).exists(), span


def commands(page: Path) -> list[str]:
    """Lines with a prompt in console blocks and commands in the cells of tables, without comments."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    lines += re.findall(r"`((?:plume-embed|python -m|make) [^`]+)`", text)
    return [line.partition(" #")[0].strip() for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_name_options_modules_and_targets_that_exist(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for command in commands(page):
        words = shlex.split(command)
        if words[0] == "make":
            assert words[1] in targets, command
        elif "-m" in words and words[words.index("-m") + 1] == "plume_embed":
            check_plume_embed(words[words.index("-m") + 2 :], command)
        elif "-m" in words and not words[words.index("-m") + 1].startswith("pip"):
            module = words[words.index("-m") + 1]
            assert importlib.util.find_spec(module) is not None, command
        elif words[0] == "plume-embed":
            check_plume_embed(words[1:], command)


def check_plume_embed(words: list[str], command: str) -> None:
    """A command line names commands and options that there are."""
    from plume_embed.cli.main import app

    current = typer.main.get_command(app)
    while words and words[0] in getattr(current, "commands", {}):
        current, words = current.commands[words[0]], words[1:]
    known = {option for parameter in current.params for option in parameter.opts + parameter.secondary_opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}, command


def test_the_readme_is_short_and_says_what_its_first_example_prints():
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    first = text[: text.index("## ")]
    assert all(part in first for part in ("make demo", "make test", "pip install", "```python", "```text", "demo.png"))


@pytest.mark.release
def test_the_output_under_the_readmes_example_is_what_it_prints():
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), flags=re.DOTALL).groups()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == shown.strip(), done.stderr[-2000:]


def test_the_file_tree_names_what_there_is():
    tree = re.search(r"## Files\n.*?```text\n(.*?)```", README.read_text(), flags=re.DOTALL)[1]
    lines = [line.partition("   ")[0].split() for line in tree.splitlines() if line and not line.startswith(" ")]
    assert [name for line in lines for name in line if not (ROOT / name).exists()] == []
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    tracked = {f"{line.split('/')[0]}/" for line in tracked_files() if "/" in line and not line.startswith(".")}
    assert folders & tracked <= {name for line in lines for name in line}


def test_paths_and_modules_named_anywhere_in_the_repository_exist():
    folders = "training|evaluation|benchmarks|plume_embed|tests|space|docs|checkpoints|examples"
    path = re.compile(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w\.(?:py|yaml|json|jsonl|md|svg|png))\b")
    module = re.compile(rf"python -m ((?:{folders})[\w.]*\w)")
    missing = []
    for name in tracked_files():
        if (
            name == "CHANGELOG.md"
            or not re.search(r"\.(py|yaml|md|toml)$|^Makefile$", name)
            or (ROOT / name).is_symlink()
        ):
            continue
        text = (ROOT / name).read_text()
        missing += [(name, found) for found in path.findall(text) if not is_there(found)]
        missing += [(name, found) for found in module.findall(text) if not is_module(found)]
    assert missing == []


def is_there(path: str) -> bool:
    """A file of the repository; MACHINE in a name stands for any."""
    return (ROOT / path).exists() or "MACHINE" in path or path in NOT_YET


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_readme_of_the_experiments_has_a_line_for_every_folder():
    text = (ROOT / "training" / "README.md").read_text()
    folders = {line.split("/")[1] for line in tracked_files() if re.match(r"training/\w+/", line)}
    assert [name for name in sorted(folders) if f"**{name}/**" not in text] == []


def tracked_files() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


@pytest.mark.release
def test_the_picture_of_the_demo_shows_what_the_search_finds(tmp_path: Path):
    from plume_embed import Encoder

    shown = json.loads((ROOT / "docs" / "pictures" / "demo.json").read_text())
    encoder = Encoder()
    files = sorted((ROOT / "examples" / "photographs").glob("*.jpg"))
    documents = [{"image": file} for file in files]
    vectors = encoder.encode(documents, num_latent_steps=encoder.document_latent_steps())
    for row in shown:
        query = ROOT / "examples" / "queries" / row["query"]
        scores = vectors @ encoder.encode([{"image": query} if query.is_file() else row["query"]])[0]
        best = [files[place].name for place in scores.argsort()[::-1][: len(row["results"])]]
        assert best == [hit["path"] for hit in row["results"]], "run python -m examples.render_demo"
