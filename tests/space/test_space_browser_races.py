"""Quick people: of several queries the last one wins, on every tab; what runs can be cancelled."""

import itertools
import threading

import pytest
from pages import TEXT, captions, found_by, open_tab, search
from playwright.sync_api import expect

from space import trace
from space.service import Service


@pytest.fixture
def slow(monkeypatch):
    """Every part of a query takes a while, so that queries overlap."""
    import time

    original = trace._timed

    def slowed(encoder, compute):
        time.sleep(0.03)
        return original(encoder, compute)

    monkeypatch.setattr(trace, "_timed", slowed)


def settled(page) -> None:
    """Waits until nothing runs."""
    page.locator("body:not([data-searching])").wait_for()


# Milliseconds: at once, and when the first one's results are on their way.
@pytest.mark.parametrize(
    "pause", [0, 600, pytest.param(50, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.slow)]
)
def test_of_two_examples_clicked_quickly_the_second_ones_results_stay(visit, slow, spec, pause):
    page = visit()
    examples = [query for query in spec.examples if query.kind in ("text", "image")]
    expected = {}
    for query in examples[:3]:
        button = page.locator("#examples").get_by_role("button", name=query.label, exact=True)
        found_by(page, button.click)
        expected[query.label] = captions(page)
    for first, second in itertools.permutations(examples[:3], 2):
        page.evaluate(
            """async ([first, second, pause]) => {
              const click = label => [...document.querySelectorAll('#examples button')]
                .find(button => button.innerText.trim() === label).click();
              click(first); await new Promise(done => setTimeout(done, pause)); click(second);
            }""",
            [first.label, second.label, pause],
        )
        settled(page)
        assert captions(page) == expected[second.label], (first.label, second.label)
        # Gradio draws the fields in frames of their own, on a busy machine after the results.
        expect(page.locator(TEXT)).to_have_value(second.text)
        expect(page.locator("#query-image img")).to_have_count(int(bool(second.image)))


def test_enter_twice_with_another_text_shows_the_results_of_the_second(visit, slow):
    page = visit()
    search(page, "penguin")
    expected = captions(page)
    for _ in range(3):
        page.locator(TEXT).fill("banana")
        page.keyboard.press("Enter")
        page.locator(TEXT).fill("penguin")
        page.keyboard.press("Enter")
        settled(page)
        assert captions(page) == expected
        assert "“penguin”" in page.locator("#status").inner_text()
        page.wait_for_function("location.search === '?q=penguin'")


def test_a_new_query_takes_the_cards_of_the_old_one_away_even_while_they_are_computed(visit, slow, service):
    page = visit()
    search(page, "banana")
    open_tab(page, "Compare")
    page.locator("#compare").click()
    page.locator("#variants section").first.wait_for()
    open_tab(page, "Search")
    search(page, "penguin")
    open_tab(page, "Compare")
    page.get_by_text("The last query: “penguin”.").first.wait_for()
    settled(page)
    assert page.locator("#variants section").count() == 0
    assert "penguin" in page.locator("#compare-query").inner_text()
    page.locator("#compare").click()
    page.locator("#compared-state", has_text="Done.").wait_for()
    assert "penguin" in page.locator("#variants section").nth(1).inner_text()
    open_tab(page, "Search")
    open_tab(page, "Compare")
    assert page.locator("#variants section").count() == 3, "the cards of the same query stay"


def test_the_diagnostics_name_the_query_at_once_and_follow_a_search_that_ends_later(visit, slow):
    page = visit()
    search(page, "banana")
    page.locator(TEXT).fill("penguin")
    page.locator("#search").click()
    open_tab(page, "Diagnostics")
    assert "There is no query yet" not in page.locator("#diagnostics-query").inner_text()
    page.locator("#diagnostics-query", has_text="“penguin”; K = 8").wait_for()
    page.locator("#trajectories .legendtext", has_text="1. penguin").wait_for()
    page.locator("#timing", has_text="median of 5 runs").wait_for()


def test_a_query_in_flight_can_be_cancelled(visit, held, monkeypatch):
    begun, go = held
    page = visit(ready="#search")
    page.locator("#cancel").wait_for()  # the prepared query is held
    page.wait_for_function("document.querySelector('#status').innerText.includes('searching')")
    for _ in range(400):
        if begun:
            break
        page.wait_for_timeout(50)
    page.locator("#cancel").click()
    page.locator("#status", has_text="Cancelled.").wait_for()
    page.locator("#cancel").wait_for(state="hidden")
    page.wait_for_timeout(
        2000
    )  # a query is interrupted after a part, at most four times a second; longer on a busy machine
    go.set()
    page.wait_for_timeout(1000)
    assert len(begun) == 1, "the query went on"
    assert page.locator("#status").inner_text() == "Cancelled."
    assert page.locator("#results img").count() == 0
    monkeypatch.undo()
    assert "banana" in search(page, "banana")
    settled(page)
    page.locator("#cancel").wait_for(state="hidden")  # Gradio's buttons change over in a fifth of a second


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_the_end_of_a_search_leaves_a_comparison_that_runs_its_own_button(visit, held, monkeypatch, end):
    begun, go = held
    go.set()
    page, may_compare, compare = visit(), threading.Event(), Service.compare
    search(page, "banana")

    def waiting(service, session):
        may_compare.wait(30)
        yield from compare(service, session)

    monkeypatch.setattr(Service, "compare", waiting)
    open_tab(page, "Compare")
    page.locator("#compare").click()
    page.locator("#cancel-compare").wait_for()
    open_tab(page, "Search")
    page.locator("#cancel").wait_for(state="hidden")  # it would not cancel the comparison
    if end == "cancelled":
        go.clear()
        begun.clear()
        page.locator("#search").click()
        while not begun:
            page.wait_for_timeout(50)
        page.locator("#cancel").click()
        page.locator("#status", has_text="Cancelled.").wait_for()
        go.set()  # Gradio tells of the cancelled run, several times, once the part that it computes is done
    else:
        ended = page.evaluate("window.plume.ended")
        monkeypatch.setattr(Service, "query", lambda *arguments: 1 / 0)
        page.locator("#search").click()
        page.wait_for_function(f"window.plume.ended > {ended}")
    page.locator("#cancel").wait_for(state="hidden")
    page.wait_for_timeout(2000)
    open_tab(page, "Compare")
    expect(page.locator("#cancel-compare")).to_be_visible()
    may_compare.set()
    page.locator("#compared-state", has_text="Done.").wait_for()
    page.locator("#cancel-compare").wait_for(state="hidden")
    settled(page)
