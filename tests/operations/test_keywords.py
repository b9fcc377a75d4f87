"""A misspelt keyword of any public function is refused, with the near names."""

import inspect

import pytest

import embedstore as es
from tests.helpers.clusters import clusters, store_of

FUNCTIONS = {name: getattr(es, name) for name in ("create", "open", "restore", "import_store", "repair_store")}
METHODS = {n: m for n, m in vars(es.Store).items() if inspect.isfunction(m) and not n.startswith("_")}


def keywords(function):
    """The names that a call may give."""
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.name != "self" and p.kind is not p.VAR_KEYWORD
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of numbers."""
    X, y = clusters(12)
    return store_of(tmp_path_factory.mktemp("keywords") / "s", X, label=y)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_refuses_a_misspelt_keyword(store, name):
    """The error names the method and the near keyword, and nothing runs."""
    for keyword in keywords(METHODS[name]):
        with pytest.raises(
            es.UnknownOption, match=rf"^{name}\(\) has no option '{keyword}_'; did you mean .*{keyword}"
        ):
            getattr(store, name)(**{f"{keyword}_": None})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_refuses_a_misspelt_keyword(name):
    """The error names the function as the user calls it."""
    for keyword in keywords(FUNCTIONS[name]):
        with pytest.raises(
            es.UnknownOption, match=rf"^{name}\(\) has no option '{keyword}_'; did you mean .*{keyword}"
        ):
            FUNCTIONS[name](**{f"{keyword}_": None})


@pytest.mark.parametrize("name", ["finetune", "compare_strategies"])
@pytest.mark.parametrize(("wrong", "right"), [("epohcs", "epochs"), ("mixupp", "mixup"), ("wheree", "where")])
def test_a_misspelt_setting_is_refused(store, name, wrong, right):
    """The settings of fine-tuning and augmentation are checked with the other keywords."""
    with pytest.raises(es.UnknownOption, match=rf"^{name}\(\) has no option '{wrong}'; did you mean {right}"):
        getattr(store, name)(**{wrong: 1})


def test_a_keyword_that_is_near_nothing_lists_what_there_is(store):
    """A method without keywords says so."""
    with pytest.raises(es.UnknownOption, match=r"has no option 'zzz'; it has space, wait, progress$"):
        store.reembed(zzz=1)
    with pytest.raises(es.UnknownOption, match=r"it has none$"):
        store.info(zzz=1)


def test_every_public_name_can_be_imported():
    """And each is listed by dir()."""
    for name in es.__all__:
        assert getattr(es, name) is not None
    assert set(es.__all__) <= set(dir(es))
