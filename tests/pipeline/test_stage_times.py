"""Stage times: where the time of a run goes, and which stage limits it."""

from dataclasses import replace

import embedstore as es
from embedstore.pipeline.stage_times import StageTime, StageTimes
from tests.conftest import TINY

STAGES = StageTimes(
    images=1000,
    seconds=10.0,
    read=StageTime(1.0, 0.5),
    decode=StageTime(40.0, 39.0),
    forward_seconds=4.0,
    write=StageTime(0.1, 0.1),
    cpu_seconds=20.0,
    threads=4,
    cores=16,
    shares_cpu=False,
    runtime="eager",
)


def test_the_bottleneck_is_the_stage_that_limits():
    """Worked by hand: a device at 40% with 4 of 16 threads, a busy device, shared cores, a slow disk."""
    assert STAGES.bottleneck() == (
        "decode-bound: 40% of the device's rate (250 images/s); 11 threads instead of 4 would lift it to 100%"
    )
    assert (
        replace(STAGES, forward_seconds=9.5).bottleneck().startswith("backbone-bound: 95% of the device's rate (105 ")
    )
    assert (
        replace(STAGES, cores=4).bottleneck().endswith("all 4 cores decode: smaller files or more cores would lift it")
    )
    shared = replace(STAGES, shares_cpu=True, cores=2, decode=StageTime(5.0, 4.0), cpu_seconds=19.0, threads=2)
    assert shared.bottleneck() == (
        "backbone-bound: of the CPU time the network 76%, reading 3%, decoding 21%, writing 1%; "
        "--runtime onnx, a smaller backbone or a GPU would lift it"
    )
    slow = replace(STAGES, read=StageTime(38.0, 0.5), decode=StageTime(1.0, 1.0))
    assert slow.bottleneck().startswith("read-bound: 4 threads waited for files 94% of the time; more --threads")
    assert replace(STAGES, images=0).bottleneck() == ""


def test_an_embedding_run_ends_with_its_bottleneck(tmp_path, photos):
    """The report and the record of the run name the bottleneck, and the stages are measured."""
    store = es.create(tmp_path / "s", TINY, random_init=True, device="cpu")
    report = store.embed(photos)
    assert report.bottleneck.split(":")[0] in {"backbone-bound", "decode-bound", "read-bound", "write-bound"}
    assert report.stage_times["images"] == 12
    assert report.stage_times["decode"]["cpu"] > 0
    assert store.sql("SELECT result->>'bottleneck' FROM runs").rows == ((report.bottleneck,),)
