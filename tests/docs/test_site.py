"""The site of the documentation builds without a warning, and every link in it leads somewhere."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

import embedstore as es
import embedstore.errors
from tests.conftest import ROOT

MARKDOWN_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


class Page(HTMLParser):
    """The targets and the anchors of one page, and what it loads when it is opened."""

    def __init__(self, html):
        super().__init__()
        self.links, self.anchors, self.loaded = [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors.update(v for k, v in attrs if k in ("id", "name") and v)
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in ("script", "img", "iframe") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        if tag == "link" and "canonical" not in (attributes.get("rel") or "") and attributes.get("href"):
            self.loaded.append(attributes["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, made in a folder of its own from the documents and the package."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: pip install -e .[docs]")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for name in ("embedstore", "tools"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the site by its path."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_of_the_navigation_is_built(site):
    """A page that the navigation names and that does not exist would leave a dead entry."""
    named = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(named) > 10
    for name in named:
        stem = name.removesuffix(".md").removesuffix("index").rstrip("/")
        assert (site / stem / "index.html").is_file(), name


def test_every_link_leads_to_a_page_and_to_an_anchor_of_it(pages):
    """Links between pages, and from the contents to the sections."""
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == ".":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append(f"{path}: {link}: no such page")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{path}: {link}: no such section")
    assert broken == []


def test_every_public_name_is_in_the_python_reference():
    """A new result or function gets its entry; the errors are listed as a module."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    public = [name for name in es.__all__ if not hasattr(es.errors, name)]
    assert [name for name in public if not re.search(rf"^::: [\w.]+\.{name}$", page, re.MULTILINE)] == []
    assert "::: embedstore.errors\n" in page


def test_no_role_of_another_markup_is_shown(pages):
    """Docstrings have roles such as ``:meth:``, which Markdown does not know."""
    assert [path for path in pages if re.search(r":(class|meth|func|mod|attr|data):", path.read_text())] == []


def test_a_page_loads_nothing_from_another_host(pages):
    """The site works offline and tells no third party who reads it."""
    assert [(path, url) for path, page in pages.items() for url in page.loaded if urlsplit(url).netloc] == []


def test_the_index_of_decisions_lists_every_record():
    """Each record is linked once, by its own title."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text()
    records = sorted(p for p in folder.glob("*.md") if p.name != "index.md")
    assert [p.name[:4] for p in records] == [f"{n:04}" for n in range(1, len(records) + 1)]
    for record in records:
        number, title = re.match(r"# (\d{4}): (.+)", record.read_text()).groups()
        assert f"| {number} | [{title}]({record.name}) |" in index


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_files_at_the_root_lead_to_files(name):
    """Whoever reads them in the repository can follow them."""
    links = MARKDOWN_LINK.findall((ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
