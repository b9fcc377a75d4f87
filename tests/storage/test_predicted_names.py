"""Heads of every name that a head may have can be used in filters and queries, and a message says how it is written."""

import pytest

import embedstore as es
from embedstore.errors import EmbedstoreError
from tests.helpers.clusters import clusters, store_of

HEADS = ("plain", "my-head", "my-head-2", "3d", "9", "order", "select", "score", "UP_per", "a--b")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store in which a head of every name has predicted."""
    X, y = clusters(30, noise=0.1)
    store = store_of(tmp_path_factory.mktemp("names") / "s", X, label=y)
    probe = store.probe(head="ridge")
    for name in HEADS:
        store.save_head(name, probe)
        store.predict(name)
    return store


def matches(store, where, through):
    """The items that a filter matches, by a search or by a query."""
    if through == "filter":
        return {h.item for h in store.search(like=1, k=30, where=where)}
    return {item for (item,) in store.sql(f"SELECT item FROM items WHERE {where}").rows}


@pytest.mark.parametrize("through", ["filter", "sql"])
@pytest.mark.parametrize("head", HEADS)
def test_a_name_that_is_not_understood_names_the_form_that_is(store, head, through):
    """The plain form works, or the message has a form that works when it is put in its place."""
    expected = {item for (item,) in store.sql("SELECT item FROM items WHERE label = 'c1'").rows}
    text = f"pred.{head} = 'c1' AND pred.{head}.score > 0"
    if not head.isidentifier():
        with pytest.raises(EmbedstoreError, match=r'in quotes: pred\."') as e:
            matches(store, text, through)
        assert f'pred."{head}"' in str(e.value)
        text = text.replace(f"pred.{head}", f'pred."{head}"')
    assert matches(store, text, through) - {1} == expected - {1}  # a search leaves its own item out


def test_a_head_that_has_not_predicted_lists_those_that_have(store):
    """Each in the form in which it is written."""
    with pytest.raises(es.UnknownColumn) as e:
        store.sql("SELECT pred.nothing FROM items")
    for head in ("pred.plain", 'pred."my-head"', 'pred."3d"', "pred.order"):
        assert head in str(e.value)
