"""Sources that installed packages add, and what a plug-in of any kind may do wrong."""

import sys

import pytest

import embedstore as es
from embedstore import plug_ins
from embedstore.errors import PluginError, SourceError, SourceNotFound
from embedstore.media.image.formats import registry as decoders
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.plug_in import registry as sources
from tests.helpers.plug_ins import install  # noqa: F401 - a fixture
from tests.helpers.scans import scan
from tests.sources.test_archives import picture

SOURCE = """
    import pathlib
    from embedstore.sources.plug_in.protocol import SourceItem, SourcePlugIn

    ROOT = pathlib.Path({root!r})

    def item(uri):
        path = ROOT / uri.removeprefix("album://")
        status = path.stat()
        return SourceItem(uri, status.st_size, status.st_mtime_ns, label=path.parent.name, split="train",
                          columns={{"stars": len(path.stem), "group_of": "x"}})

    def scan(name):
        {before}
        for path in sorted((ROOT / name.removeprefix("album://").strip("/")).rglob("*.png")):
            yield item(f"album://{{path.relative_to(ROOT)}}")
        {after}

    def read(uri):
        {reading}
        return (ROOT / uri.removeprefix("album://")).read_bytes()

    PLUG_IN = SourcePlugIn(name="album", scan=scan, read=read, stat=item, schemes={schemes}, suffixes={suffixes})
"""


def source_code(root, *, before="pass", after="pass", reading="pass", schemes=("album",), suffixes=()):
    """The code of a plug-in that reads a folder as album://…"""
    return SOURCE.format(
        root=str(root), before=before, after=after, reading=reading, schemes=schemes, suffixes=suffixes
    )


@pytest.fixture
def album(tmp_path):
    """Four images in two folders."""
    for n in range(4):
        path = tmp_path / "album" / ("one" if n < 2 else "two") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(n))
    return tmp_path / "album"


def test_a_plug_in_is_a_source_like_any_other(install, album, tmp_path):  # noqa: F811
    """Labels, splits and columns are stored; a rescan reads nothing; what is gone is missing; a uri reads again."""
    install(sources.ENTRY_POINT_GROUP, source_code(album))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed("album://", progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (4, 4, {})
    rows = store.sql("SELECT uri, label, split, stars FROM items ORDER BY uri").rows
    assert rows[0] == ("album://one/0.png", "one", "train", 1)
    assert store.embed("album://", progress=False).unchanged == 4
    assert read_location("album://two/3.png") == picture(3)
    (album / "one" / "0.png").unlink()
    assert store.embed("album://one", progress=False).missing == 1
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((3,),)
    store.add_space("embedstore/tiny", space_name="again", preprocess={"mean": 0.25})
    assert store.reembed("again", progress=False).embedded == 3


def test_a_manifest_names_items_of_a_plug_in(install, album, tmp_path):  # noqa: F811
    """A table's uri may be any that the store can read."""
    install(sources.ENTRY_POINT_GROUP, source_code(album))
    refs, failures = scan(open_source({"uri": ["album://one/0.png", "album://one/none.png"]}))
    assert [r.uri for r in refs] == ["album://one/0.png"]
    assert [f.reason for f in failures] == ["missing"]


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        ("FileNotFoundError('x')", "missing"),
        ("ConnectionError('refused')", "unreachable"),
        ("TimeoutError()", "unreachable"),
        ("ValueError('two\\nlines')", "unreadable"),
        ("ZeroDivisionError()", "unreadable"),
    ],
)
def test_what_reading_raises_is_a_failure_of_the_item(install, album, tmp_path, raised, reason):  # noqa: F811
    """One row in failures with one line, and the run goes on."""
    install(sources.ENTRY_POINT_GROUP, source_code(album, reading=f"if '0.png' in uri: raise {raised}"))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed("album://", progress=False)
    assert (report.embedded, report.failures_by_reason) == (3, {reason: 1})
    [detail] = store.failures().df()["detail"]
    assert "\n" not in detail


@pytest.mark.parametrize("reading", ["return 'text'", "return b''"])
def test_what_is_no_bytes_is_a_failure(install, album, tmp_path, reading):  # noqa: F811
    """A plug-in that gives text or nothing harms nothing else."""
    install(sources.ENTRY_POINT_GROUP, source_code(album, reading=f"if '0.png' in uri: {reading}"))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed("album://", progress=False)
    assert (report.embedded, sum(report.failures_by_reason.values())) == (3, 1)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_scan_that_fails_ends_the_run_and_marks_nothing_missing(install, album, tmp_path, where):  # noqa: F811
    """What a broken listing did not name may still exist."""
    install(sources.ENTRY_POINT_GROUP, source_code(album))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    store.embed("album://", progress=False)
    code = "if (ROOT / 'broken').exists(): raise RuntimeError('no listing')"
    sys.modules.pop("added", None)
    (tmp_path / "site" / "added.py").write_text("")
    install(sources.ENTRY_POINT_GROUP, source_code(album, **{where: code}), module="other", name="other")
    (tmp_path / "site" / "package_added-1.0.dist-info" / "entry_points.txt").write_text("")
    sources.plug_ins.cache_clear()
    (album / "broken").write_text("")
    (album / "two" / "3.png").unlink()
    with pytest.raises(SourceError, match=r"album:// cannot be listed.*'album'.*no listing"):
        store.embed("album://", progress=False)
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((4,),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schemes": ("s3",)}, "s3://.*embedstore itself"),
        ({"schemes": ("file",)}, "file://.*embedstore itself"),
        ({"suffixes": (".tar",)}, r"\.tar.*embedstore itself"),
        ({"suffixes": (".csv",)}, r"\.csv.*embedstore itself"),
    ],
)
def test_a_plug_in_may_not_take_what_is_read_already(install, album, options, message):  # noqa: F811
    """One line, for any name that asks plug-ins."""
    install(sources.ENTRY_POINT_GROUP, source_code(album, **options))
    with pytest.raises(PluginError, match=message):
        open_source("album://x")


def test_two_plug_ins_for_one_scheme_are_refused(install, album):  # noqa: F811
    """Neither is taken in silence."""
    install(sources.ENTRY_POINT_GROUP, source_code(album))
    install(sources.ENTRY_POINT_GROUP, source_code(album), module="second", name="second")
    with pytest.raises(PluginError, match="album://, which the plug-in 'album' reads"):
        open_source("album://x")


def test_a_plug_in_and_another_source_together_are_refused(install, album):  # noqa: F811
    """They are embedded one after the other."""
    install(sources.ENTRY_POINT_GROUP, source_code(album))
    with pytest.raises(SourceError, match="one after the other"):
        open_source(["album://one", str(album)])


def test_an_unknown_scheme_is_unknown_without_a_plug_in():
    """The message is as before."""
    with pytest.raises(SourceNotFound, match="album://"):
        open_source("album://x")


GROUPS = [(sources.ENTRY_POINT_GROUP, sources.plug_ins), (decoders.ENTRY_POINT_GROUP, decoders.plug_ins)]


@pytest.mark.parametrize(("group", "load"), GROUPS, ids=["sources", "decoders"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('two\\nlines')", r"cannot be loaded: RuntimeError: two lines"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit"),
        ("import no_such_module_here", "cannot be loaded: ModuleNotFoundError"),
        ("OTHER = 1", "cannot be loaded: AttributeError"),
        ("PLUG_IN = 3", "has the type int, not "),
        ("import time; time.sleep(60)", "takes longer than 0 s to import"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_one_line(install, monkeypatch, group, load, code, message):  # noqa: F811
    """The line names the entry point, its group and its package."""
    if "sleep" in code:
        monkeypatch.setattr(plug_ins, "IMPORT_SECONDS", 0.2)
    install(group, code)
    with pytest.raises(PluginError, match=message) as e:
        load()
    assert "\n" not in str(e.value)
    assert all(part in str(e.value) for part in ("'added'", group, "package-added"))


@pytest.mark.parametrize(("group", "load"), GROUPS, ids=["sources", "decoders"])
def test_two_plug_ins_of_one_name_are_refused(install, group, load):  # noqa: F811
    """Both packages are named."""
    install(group, "PLUG_IN = 1", module="one", name="same")
    install(group, "PLUG_IN = 1", module="two", name="same")
    with pytest.raises(PluginError, match="'same': package-one and package-two; uninstall one"):
        load()
