"""Runtimes: the same vectors whatever runs the network, refused where they are not, and where the time goes."""

import json
import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import embedstore as es
from embedstore.backbones import load
from embedstore.backbones.runtimes import adaptive_encoder, fold_batchnorm
from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.export import export_tower
from embedstore.backbones.runtimes.onnx_encoder import (
    GRAPH_FILE,
    IMAGE_BATCH_SIZE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    OnnxEncoder,
    open_tower,
    tower_folder,
)
from embedstore.backbones.runtimes.runtime import Runtime, Tower, compare_vectors
from embedstore.errors import RuntimeMismatch
from embedstore.media.image import preprocess
from embedstore.pipeline.stage_times import StageTime, StageTimes
from embedstore.space import Recipe
from embedstore.storage.durable_files import file_xxh3
from tests.conftest import TINY, picture
from tests.helpers.networks import local_clip


def prepared(network, count=12):
    """Different pictures, ready for a network."""
    images = [picture(n, (300, 220)) for n in range(count)]
    return np.stack([preprocess.resize_and_crop(i, network.space.preprocess) for i in images])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP, and the folder where its exported towers are."""
    folder = tmp_path_factory.mktemp("clip")
    network = load(Recipe(local_clip(folder / "clip")), device="cpu")
    export_tower(network, folder / "towers", Tower.IMAGE, prepared(network))
    export_tower(network, folder / "towers", Tower.TEXT)
    return network, folder / "towers"


def test_agreement_looks_at_what_tells_images_apart():
    """A common part hides a wrong runtime from the plain cosine, not from the centred one."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(32, 8)).astype(np.float32)
    common = np.full((32, 8), 1000, np.float32)
    found = compare_vectors(own + common, own[::-1] + common)
    assert found.cosine > 0.9999
    assert found.centred < 0.5
    assert not found.is_close
    assert compare_vectors(own, own).is_close
    assert compare_vectors(own[:1], own[:1] * 3).is_close
    assert not compare_vectors(own, np.full_like(own, np.nan)).is_close


def test_exported_towers_give_the_eager_vectors(clip):
    """Images and words through onnxruntime: cosine 0.999999 and more to torch, whatever the batch."""
    network, folder = clip
    both = {t: open_tower(folder, t, network.space.key, threads=1, fast_start=False) for t in Tower}
    exported = OnnxEncoder(network.space, image=both[Tower.IMAGE], text=both[Tower.TEXT])
    pixels, words = prepared(network, 21), ["a dog", "Zwei Kätzchen 🐈", "&amp;", "far too long " * 60]
    images = compare_vectors(network.encode_images(pixels), exported.encode_images(pixels))
    texts = compare_vectors(network.encode_texts(words), exported.encode_texts(words))
    assert min(images.cosine, images.centred, texts.cosine, texts.centred) > 0.999999
    assert exported.logit_scale == pytest.approx(network.logit_scale)


@pytest.mark.parametrize("name", ["mobilenetv2_035"])
@pytest.mark.parametrize(
    "runtime", ["onnx", pytest.param("compile", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_every_runtime_gives_the_same_vectors_with_real_weights(tmp_path, shared_data, unpacked, runtime, name):
    """Real weights on real photos: at least 0.9999, plain and centred, and the space is one and the same."""
    weights = shared_data / "weights" / f"{name}_imagenet.safetensors"
    files = sorted(map(str, (unpacked("hymenoptera") / "val" / "bees").glob("*.jpg")))[:24]
    made = {}
    for how in ("eager", runtime):
        options = {"pad_type": "same", "bn_eps": 1e-3}
        store = es.create(
            tmp_path / how, f"timm/{name}", weights=weights, backbone_args=options, dtype="float32", runtime=how
        )
        report = store.embed(files, batch_size=8)
        assert (report.runtime, report.embedded) == (how, 24)
        made[how] = store.features("uri").X
        assert store.sql("SELECT result->>'runtime' FROM runs").rows == ((how,),)
    found = compare_vectors(made["eager"], made[runtime])
    assert found.is_close, found
    assert len({es.open(tmp_path / how).spaces[0].key for how in made}) == 1


def test_a_runtime_that_gives_other_vectors_is_refused(tmp_path, clip):
    """An exported tower whose weights are wrong does not get past the first batch, and auto goes on eagerly."""
    network, _ = clip
    wrong = tmp_path / "towers"
    export_tower(network, wrong, Tower.IMAGE, prepared(network))
    path = tower_folder(wrong, Tower.IMAGE)
    graph = onnx.load(path / GRAPH_FILE)
    largest = max(graph.graph.initializer, key=lambda t: np.prod(t.dims))
    noisy = numpy_helper.to_array(largest) + np.random.default_rng(0).normal(0, 0.05, tuple(largest.dims))
    largest.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), largest.name))
    (path / WEIGHTS_FILE).unlink()
    onnx.save(graph, path / GRAPH_FILE, save_as_external_data=True, location=WEIGHTS_FILE)
    note = json.loads((path / MANIFEST_FILE).read_text())
    note["files"] = {n: [(path / n).stat().st_size, file_xxh3(path / n)] for n in (GRAPH_FILE, WEIGHTS_FILE)}
    (path / MANIFEST_FILE).write_text(json.dumps(note))
    pixels = prepared(network)
    with pytest.raises(RuntimeMismatch, match="--runtime onnx gives other vectors"):
        AdaptiveEncoder([network], Runtime.ONNX, wrong, expected_images=12).encode_images(pixels)
    auto = AdaptiveEncoder([network], Runtime.AUTO, wrong, expected_images=10**9)
    assert np.array_equal(auto.encode_images(pixels), network.encode_images(pixels))
    assert auto.runtime is Runtime.EAGER
    assert "gives other vectors" in auto.notices[0]


def test_auto_stays_eager_for_short_runs_and_exports_for_long_ones(tmp_path, clip, monkeypatch):
    """What is ahead decides, and then which is faster."""
    network, _ = clip
    pixels = prepared(network)
    short = AdaptiveEncoder([network], Runtime.AUTO, tmp_path / "short", expected_images=100)
    short.encode_images(pixels)
    assert short.runtime is Runtime.EAGER
    assert not (tmp_path / "short").exists()
    monkeypatch.setattr(adaptive_encoder, "MIN_SPEEDUP", 0.0)  # faster in any case: which is, depends on the machine
    long = AdaptiveEncoder([network], Runtime.AUTO, tmp_path / "long", expected_images=10**9)
    assert np.array_equal(long.encode_images(pixels), network.encode_images(pixels))
    assert long.runtime is Runtime.ONNX
    assert 1 <= long.batch_size <= IMAGE_BATCH_SIZE
    assert compare_vectors(network.encode_images(pixels), long.encode_images(pixels)).is_close
    assert (tmp_path / "long" / "image" / MANIFEST_FILE).exists()


@pytest.mark.parametrize("name", [TINY, "timm/mobilenetv2_035", "timm/test_efficientnet", "timm/test_byobnet"])
def test_folded_batch_normalisation_gives_the_same_vectors_and_is_undone(tmp_path, name):
    """Every normalisation behind a convolution goes into its weights; afterwards every bit is as it was."""
    network = load(Recipe(name, random_init=True), device="cpu")
    for layer in network.module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # random weights come with statistics that change nothing
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.data.uniform_(0.5, 1.5)
    pixels = prepared(network)
    want = network.encode_images(pixels)
    chosen = AdaptiveEncoder([network], Runtime.AUTO, tmp_path, expected_images=12)
    chosen._stay(pixels, want, ahead=1e9)
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.module.modules())
    assert chosen.folded == norms > 10
    assert chosen.agreement.cosine > 0.99999
    folded = network.encode_images(pixels)
    assert not np.array_equal(folded, want)
    chosen.close()
    assert np.array_equal(network.encode_images(pixels), want)


def test_a_fold_that_changes_vectors_is_undone_at_once(tmp_path, monkeypatch):
    """The comparison refuses it, says so, and the network goes on as it was."""
    network = load(Recipe(TINY, random_init=True), device="cpu")
    pixels = prepared(network)
    want = network.encode_images(pixels)
    own = fold_batchnorm._fold
    monkeypatch.setattr(fold_batchnorm, "_fold", lambda conv, norm: (own(conv, norm), conv.weight.mul_(-2)))
    chosen = AdaptiveEncoder([network], Runtime.AUTO, tmp_path, expected_images=12)
    chosen._stay(pixels, want, ahead=1e9)
    assert chosen.folded == 0
    assert "it would give other vectors" in chosen.notices[0]
    assert np.array_equal(network.encode_images(pixels), want)


def test_pixels_may_lie_on_the_device_already(clip):
    """A tensor gives the vectors of the array; another shape or type is refused either way."""
    network, _ = clip
    pixels = prepared(network)
    assert np.array_equal(network.encode_images(torch.from_numpy(pixels)), network.encode_images(pixels))
    for wrong in (pixels[:, :, 1:], torch.from_numpy(pixels).float()):
        with pytest.raises(ValueError, match="expected uint8"):
            network.encode_images(wrong)


def test_the_batch_size_is_looked_for_within_reach(tmp_path, clip):
    """As on a device with much ahead: between a quarter and four times the first choice, which the network keeps."""
    network, _ = clip
    pixels, before = prepared(network), network.batch_size
    try:
        chosen = AdaptiveEncoder([network], Runtime.AUTO, tmp_path, expected_images=10**9)
        found = chosen._sized(torch.from_numpy(pixels))
        assert before // 4 <= found <= 4 * before
        assert network.batch_size == found
    finally:
        network.batch_size = before


def test_damaged_foreign_and_outdated_towers_are_passed_by(tmp_path, clip):
    """One flipped byte, another space, another onnxruntime: none of them is run."""
    network, _ = clip
    export_tower(network, tmp_path, Tower.TEXT)
    path, key = tower_folder(tmp_path, Tower.TEXT), network.space.key

    def why(space=key):
        found = open_tower(tmp_path, Tower.TEXT, space, threads=1, fast_start=True)
        return found if isinstance(found, str) else "fine"

    assert why() == "fine"
    assert why("f" * 16) == f"it belongs to space {key}"
    assert open_tower(tmp_path, Tower.IMAGE, key, threads=1, fast_start=True) == "it was not exported"
    data = bytearray((path / WEIGHTS_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (path / WEIGHTS_FILE).write_bytes(data)
    assert "is not what was written" in why()
    note = json.loads((path / MANIFEST_FILE).read_text()) | {"onnxruntime": "1.0"}
    (path / MANIFEST_FILE).write_text(json.dumps(note))
    assert "checked with onnxruntime 1.0" in why()
    export_tower(network, tmp_path, Tower.TEXT)
    assert why() == "fine"
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_several_exports_at_once_leave_one_whole_tower(tmp_path, clip):
    """Whoever comes first, the tower that stands there is whole, and nothing is left beside it."""
    network, _ = clip
    threads = [threading.Thread(target=export_tower, args=(network, tmp_path, Tower.TEXT)) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not isinstance(open_tower(tmp_path, Tower.TEXT, network.space.key, threads=1, fast_start=True), str)
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


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


def test_the_verdict_names_the_stage_that_limits():
    """Worked by hand: a device at 40% with 4 of 16 threads, one that is busy, shared cores, a slow disk."""
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
    """The line is in the report, the run's record and on the terminal; the stages were measured."""
    store = es.create(tmp_path / "s", TINY, random_init=True, device="cpu")
    report = store.embed(photos)
    assert report.bottleneck.split(":")[0] in {"backbone-bound", "decode-bound", "read-bound", "write-bound"}
    assert report.stage_times["images"] == 12
    assert report.stage_times["decode"]["cpu"] > 0
    assert store.sql("SELECT result->>'bottleneck' FROM runs").rows == ((report.bottleneck,),)
