"""The memory and the cores of this process are those that every limit on its way allows."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import resources
from embedstore.cgroups import GroupLimits, group_limits, group_memory_left
from embedstore.resources import memory_bytes

MACHINE = 8 << 30
V2_MOUNT = "36 25 0:31 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
V1_CPU_MOUNT = "36 31 0:33 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"


def tree(root, *, groups, mounts, files, machine=MACHINE):
    """Write a folder with the files of ``proc`` and ``sys`` that a kernel would show."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal:       {machine // 1024} kB\nMemFree: 1 kB\n")
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in groups))
    (root / "proc/self/mountinfo").write_text(
        "".join(f"{line}\n" for line in ["22 28 0:20 / /proc rw - proc proc rw", *mounts])
    )
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


LIMITS = st.one_of(
    st.sampled_from(["max", "-1", "", "0", "9223372036854771712", "9" * 19, "9" * 5000, "many", "\x00", "1.5"]),
    st.integers(1 << 20, 1 << 40).map(str),
    st.integers(1 << 20, 1 << 40).map(lambda n: f"{n}\n"),
    st.none(),  # no such file
)


def meant(text):
    """The limit that a text states, written independently of the reader."""
    try:
        number = int(text)
    except (TypeError, ValueError):
        return math.inf
    return number if 0 < number < 10**29 else math.inf


@settings(max_examples=150, deadline=None)
@given(levels=st.lists(st.tuples(LIMITS, LIMITS), min_size=1, max_size=6), version=st.sampled_from([1, 2]))
def test_the_least_limit_of_nested_groups_holds(tmp_path_factory, levels, version):
    """The limit is the least of the machine and of every group from the process's own to the root, in both versions."""
    root, files, path = tmp_path_factory.mktemp("root"), {}, "" if version == 2 else "memory"
    for depth, limits in enumerate(levels):
        path = path if depth == 0 else f"{path}/g{depth}"
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes", "memory.soft")
        files |= {f"{path}/{n}".lstrip("/"): t for n, t in zip(names, limits, strict=True) if t is not None}
    group = "/" + "/".join(f"g{d}" for d in range(1, len(levels)))
    line, mount = ("0::", V2_MOUNT) if version == 2 else ("4:memory:", V1_MOUNT)
    tree(root, groups=[line + group], mounts=[mount.format(root="/")], files=files)
    stated = [t for limits in levels for t in (limits if version == 2 else limits[:1])]
    assert memory_bytes(root) == min(MACHINE, *map(meant, stated))


COUNTS = st.one_of(st.integers(0, 1 << 41), st.sampled_from(["", "many"]))


@settings(max_examples=150, deadline=None)
@given(levels=st.lists(st.tuples(LIMITS, COUNTS, COUNTS), min_size=1, max_size=5), version=st.sampled_from([1, 2]))
def test_what_nested_groups_have_left(tmp_path_factory, levels, version):
    """The least of what each group has left; the cache that nobody reads counts as free; without a limit it is None."""
    root, files, path = tmp_path_factory.mktemp("root"), {}, "" if version == 2 else "memory"
    limit_name, used_name = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    prefix, expected = "" if version == 2 else "total_", []
    for depth, (limit, used, cached) in enumerate(levels):
        path = path if depth == 0 else f"{path}/g{depth}"
        texts = {
            limit_name: limit,
            used_name: str(used),
            "memory.stat": f"active_file 5\n{prefix}inactive_file {cached}\n",
        }
        files |= {f"{path}/{n}".lstrip("/"): t for n, t in texts.items() if t is not None}
        if meant(limit) < math.inf and isinstance(used, int) and used:
            expected.append(max(0, meant(limit) - used + (cached if isinstance(cached, int) else 0)))
    group = "/" + "/".join(f"g{d}" for d in range(1, len(levels)))
    line, mount = ("0::", V2_MOUNT) if version == 2 else ("4:memory:", V1_MOUNT)
    tree(root, groups=[line + group], mounts=[mount.format(root="/")], files=files)
    assert group_memory_left(root) == min(expected, default=None)


def test_a_limit_of_a_group_beside_the_way_does_not_hold(tmp_path):
    """Neither a sibling's nor a child's."""
    files = {"a/memory.max": "7000000", "b/memory.max": "5000000", "a/inside/memory.max": "3000000"}
    root = tree(tmp_path, groups=["0::/a"], mounts=[V2_MOUNT.format(root="/")], files=files)
    assert memory_bytes(root) == 7_000_000


def test_both_versions_on_one_machine(tmp_path):
    """The hybrid layout of systemd: memory and processor time in version 1, nothing in version 2."""
    files = {
        "memory/job/memory.limit_in_bytes": "6000000", "cpu,cpuacct/job/cpu.cfs_quota_us": "150000",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000", "unified/memory.max": "max",
    }  # fmt: skip
    mounts = [V1_MOUNT, V1_CPU_MOUNT, V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
    groups = ["9:cpu,cpuacct:/job", "4:memory:/job", "1:name=systemd:/user", "0::/"]
    root = tree(tmp_path, groups=groups, mounts=[m.format(root="/") for m in mounts], files=files)
    assert group_limits(root) == GroupLimits(6_000_000, 1.5)


@pytest.mark.parametrize("root", ["/docker/1a2b", "/docker", "/../.."])
def test_a_container_that_sees_a_part_of_the_tree(tmp_path, root):
    """The mount shows the container's group as its root, or in a name space of its own."""
    below = "1a2b/" if root == "/docker" else ""
    group = "/../../docker/1a2b" if ".." in root else "/docker/1a2b"
    files = {f"memory/{below}memory.limit_in_bytes": "5000000"}
    tree(tmp_path, groups=[f"4:memory:{group}"], mounts=[V1_MOUNT.format(root=root)], files=files)
    assert memory_bytes(tmp_path) == 5_000_000


def test_a_limit_of_a_group_that_is_not_visible(tmp_path):
    """Version 1 counts the limits of the groups above the container's in ``memory.stat``."""
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.stat": "cache 1\nhierarchical_memory_limit 4000000\n",
    }
    root = tree(tmp_path, groups=["4:memory:/a"], mounts=[V1_MOUNT.format(root="/a")], files=files)
    assert memory_bytes(root) == 4_000_000


def test_names_with_spaces_and_colons(tmp_path):
    """Mount points and groups may have any name."""
    mount = V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040groups").format(root="/")
    files = {"my groups/a:b c/memory.high": "5000000"}
    assert memory_bytes(tree(tmp_path, groups=["0::/a:b c"], mounts=[mount], files=files)) == 5_000_000


@pytest.mark.parametrize("broken", ["proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/memory.max"])
@pytest.mark.parametrize("how", ["missing", "folder", "bytes"])
def test_what_cannot_be_read_is_no_limit(tmp_path, broken, how):
    """A kernel without control groups, a closed ``/proc``, and nonsense."""
    root = tree(tmp_path, groups=["0::/"], mounts=[V2_MOUNT.format(root="/")], files={"memory.max": "5000000"})
    assert memory_bytes(root) == 5_000_000
    (root / broken).unlink()
    if how == "folder":
        (root / broken).mkdir()
    elif how == "bytes":
        (root / broken).write_bytes(b"\xff\x00 - cgroup\n:\n - \n")
    assert memory_bytes(root) == MACHINE


def test_the_machine_itself_without_proc(tmp_path):
    """On systems without ``/proc`` the C library knows."""
    assert memory_bytes(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("-1 100000", 8), ("", 8),
     ("900000 100000", 8), ("100000", 8), ("100000 0", 8)],
)  # fmt: skip
def test_cores_are_what_the_quota_of_the_group_allows(tmp_path, monkeypatch, quota, cores):
    """Rounded up, at least one, and never more than the process may run on."""
    root = tree(tmp_path, groups=["0::/a"], mounts=[V2_MOUNT.format(root="/")], files={"a/cpu.max": quota})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(resources, "_own_groups", lambda: group_limits(root))
    assert resources.available_cores() == cores
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    resources.limit_library_threads()
    assert os.environ.get("OMP_NUM_THREADS") == (None if cores == 8 else str(cores))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    resources.limit_library_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"


@settings(max_examples=50, deadline=None)
@given(memory=st.integers(1, 1 << 45), most=st.integers(1, 1 << 34), parts=st.integers(1, 64))
def test_a_share_of_memory_is_bounded_and_never_nothing(memory, most, parts):
    """At most what is wanted, at most its part of the memory, at least a byte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources, "_own_memory", lambda: memory)
        assert 1 <= resources.memory_share(most, parts) <= most
        assert resources.memory_share(most, parts) <= max(1, memory // parts)
        assert 1 <= resources.memory_slots(7, most) <= 7
        assert resources.memory_slots(7, most) * most <= max(memory, most)


def test_no_module_counts_memory_or_cores_by_itself():
    """One place knows about containers, so the rooms ask it."""
    package = Path(resources.__file__).parent
    words = ("cpu_count", "sched_getaffinity", "SC_PHYS_PAGES", "virtual_memory", "MemTotal", "import psutil")
    users = {p.name for p in package.rglob("*.py") if any(w in p.read_text(encoding="utf-8") for w in words)}
    assert users == {"resources.py"}


def test_a_scheduler_that_shares_the_machine_limits_the_cores(monkeypatch):
    """Fewer cores than the machine has are granted as they are; more than it has are not there."""
    monkeypatch.setattr(resources, "_granted", [])
    here = resources.available_cores()
    resources.grant_cores(1)
    assert resources.available_cores() == 1
    resources.grant_cores(here + 7)
    assert resources.available_cores() == here
