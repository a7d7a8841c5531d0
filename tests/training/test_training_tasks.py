"""Which task a recipe names, and what happens where there is none."""

import pytest

from plume_embed.training.recipe import load_recipe
from plume_embed.training.tasks import make_task
from training.hops import HOPS
from training.hops.task import HopsTask


def test_a_recipe_names_a_class_of_ones_own():
    assert type(make_task(load_recipe(HOPS, []))) is HopsTask


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chess", "task must be corpus, pairs, or MODULE:CLASS"),
        ("no_such_module:Chess", "no such class or cannot be found"),
        ("training.hops.task:Chess", "no such class or cannot be found"),
    ],
)
def test_a_task_that_is_not_there_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message) as error:
        make_task(load_recipe(HOPS, [f"task={name}"]))
    assert name in str(error.value)
