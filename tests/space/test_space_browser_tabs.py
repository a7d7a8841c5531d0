"""The tabs "Diagnostics", "Compare" and "About" in a real Chromium."""

import json
import re

import pytest
from pages import captions, clear, found_by, open_tab, search, set_steps, wait_for_charts


@pytest.mark.parametrize("steps", [8, 3])
def test_the_diagnostics_show_a_point_for_every_state_from_anchor_to_embedding(visit, steps):
    page = visit(query=f"?q=banana&k={steps}")
    open_tab(page, "Diagnostics")
    page.locator("#timing .bars .point").nth(steps + 1).wait_for()
    wait_for_charts(page)
    lines = page.locator("#trajectories .scatterlayer .trace")
    assert lines.count() == 5
    assert [line.locator(".points path").count() for line in lines.all()] == [steps + 3] * 5
    ticks = page.locator("#trajectories .xtick text").all_text_contents()
    assert ticks == ["anchor", *(f"z({step})" for step in range(steps + 1)), "embedding"]
    weights = [text for text in page.locator("#routing .heatmap-label").all_text_contents() if text]
    assert len(weights) == 2 * steps
    assert page.locator("#anchor-ranking tbody tr").count() >= 5
    assert f"K = {steps}" in page.locator("#diagnostics-query").inner_text()
    assert re.search(r"The steps changed .* first 5 results; ", page.locator("#diagnostics-summary").inner_text())
    page.locator("#timing", has_text="median of 5 runs").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the trace as JSON").click()
    assert len(json.loads(download.value.path().read_text())["states"]) == steps + 3


def test_results_follow_the_number_of_steps_and_latents_can_be_replaced(visit):
    page = visit(query="?q=penguin")
    open_tab(page, "Diagnostics")
    page.locator("#swept", has_text="K = 8: 5 of the first 5").wait_for()
    set_steps(page, 0, "#sweep")
    page.locator("#sweep input[type=range]").press("Home")
    page.locator("#swept", has_text="K = 0:").wait_for()
    single = page.locator("#swept li").all_inner_texts()
    page.locator("#tamper").click()
    page.locator("#tampered section").nth(2).wait_for()
    headings = page.locator("#tampered h3").all_inner_texts()
    assert headings == ["As computed", "Noise", "Another query's latents"]
    assert "cosine of the two embeddings 1.000" in page.locator("#tampered section").first.inner_text()
    direct = visit(query="?q=penguin&k=0")
    names = [caption.split(" · ", 2)[2] for caption in captions(direct)[:5]]
    assert [line.splitlines()[0] for line in single] == names


def test_a_single_pass_has_no_rollout_to_show_and_says_so(visit):
    page = visit(query="?q=banana&k=0")
    open_tab(page, "Diagnostics")
    page.get_by_text("was a single pass: there were no latent steps").wait_for()
    assert page.locator("#trajectories").is_hidden() and page.locator("#sweep").is_visible()
    open_tab(page, "Search")
    set_steps(page, 8)
    found_by(page, page.locator("#search").click)
    open_tab(page, "Diagnostics")
    wait_for_charts(page)
    seen = [page.locator(part) for part in ("#trajectories", "#timing", "#tamper")]
    assert all(part.is_visible() for part in seen)
    open_tab(page, "Search")
    set_steps(page, 0)
    found_by(page, page.locator("#search").click)
    open_tab(page, "Diagnostics")
    for part in seen:
        part.wait_for(state="hidden")
    assert page.locator("#sweep").is_visible()
    open_tab(page, "Search")
    clear(page)
    open_tab(page, "Diagnostics")
    page.locator("#diagnostics-query", has_text="There is no query yet").wait_for()
    page.locator("#sweep").wait_for(state="hidden")


def test_compare_shows_three_variants_side_by_side_with_their_cost(visit):
    page = visit(query="?q=banana")
    open_tab(page, "Compare")
    page.get_by_text("The last query: “banana”.").first.wait_for()
    page.locator("#compare").click()
    page.locator("#compared-state", has_text="Done.").wait_for()
    headings = page.locator("#variants h2").all_inner_texts()
    assert headings == ["Single pass", "Latent, K = 8", "Explicit rationale"]
    sections = page.locator("#variants section")
    assert len({section.bounding_box()["y"] for section in sections.all()}) == 1
    assert sections.first.locator("li").count() == 5
    costs = [re.search(r"(\d+\.\d) ms .*?(\d+) pass", section.inner_text()) for section in sections.all()]
    assert [cost[2] for cost in costs[:2]] == ["1", "10"] and int(costs[2][2]) > 1
    assert not re.search(r"<[/\w]+>|think>", sections.nth(2).inner_text())


def test_a_visitor_starts_with_a_session_of_their_own(visit):
    search(visit(), "banana")
    assert "banana" not in visit().locator("#status").inner_text()


def test_about_tells_measured_figures(visit):
    page = visit()
    open_tab(page, "About")
    page.get_by_text("Measured results").wait_for()
    assert re.search(r"\d+ % are found first by their name", page.locator("#about").inner_text())
