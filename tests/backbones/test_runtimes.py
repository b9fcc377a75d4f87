"""Runtimes: every one gives the same vectors or is refused."""

import json
import threading

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import embedstore as es
from embedstore.backbones import load
from embedstore.backbones.runtimes import export, fold_batchnorm
from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder, prepare_eager
from embedstore.backbones.runtimes.compiled import CompiledEncoder
from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.export import export_tower
from embedstore.backbones.runtimes.onnx_encoder import (
    GRAPH_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    OnnxEncoder,
    OnnxTower,
    Unavailable,
    open_tower,
    tower_folder,
)
from embedstore.backbones.runtimes.runtime import Runtime, Tower, compare_vectors
from embedstore.backbones.runtimes.runtime_choice import FirstBatch
from embedstore.backbones.runtimes.runtime_plan import RunFacts, RuntimePlan, plan_runtime
from embedstore.backbones.runtimes.tower_encoder import TowerPlace
from embedstore.errors import RuntimeMismatch
from embedstore.media.image import preprocess
from embedstore.space import Recipe
from embedstore.storage.description_checksum import DESCRIPTION_CHECKSUM_KEY, dump_description
from tests.conftest import TINY, picture
from tests.helpers.networks import local_clip


def prepare(network, count=12):
    """Different images, prepared for a network."""
    images = [picture(n, (300, 220)) for n in range(count)]
    return np.stack([preprocess.resize_and_crop(i, network.space.preprocess) for i in images])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP and the folder of its exported towers."""
    folder = tmp_path_factory.mktemp("clip")
    network = load(Recipe(local_clip(folder / "clip")), device="cpu")
    export_tower(network, folder / "towers", Tower.IMAGE, prepare(network))
    export_tower(network, folder / "towers", Tower.TEXT)
    return network, folder / "towers"


def test_agreement_measures_what_distinguishes_images():
    """A common part hides a wrong runtime from the plain cosine, not from the centered one."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(32, 8)).astype(np.float32)
    common = np.full((32, 8), 1000, np.float32)
    agreement = compare_vectors(own + common, own[::-1] + common)
    assert agreement.min_cosine > 0.9999
    assert agreement.centered_cosine < 0.5
    assert not agreement.is_close
    assert compare_vectors(own, own).is_close
    assert compare_vectors(own[:1], own[:1] * 3).is_close
    assert not compare_vectors(own, np.full_like(own, np.nan)).is_close


def test_exported_towers_give_the_eager_vectors(clip):
    """Images and texts through onnxruntime have a cosine of 0.999999 and more to torch, in batches of any size."""
    network, folder = clip
    towers = {t: open_tower(folder, t, network.space.key, threads=1, fast_start=False) for t in Tower}
    exported = OnnxEncoder(network.space, image=towers[Tower.IMAGE], text=towers[Tower.TEXT])
    pixels, texts = prepare(network, 21), ["a dog", "Zwei Kätzchen 🐈", "&amp;", "far too long " * 60]
    by_image = compare_vectors(network.encode_images(pixels), exported.encode_images(pixels))
    by_text = compare_vectors(network.encode_texts(texts), exported.encode_texts(texts))
    assert min(by_image.min_cosine, by_image.centered_cosine, by_text.min_cosine, by_text.centered_cosine) > 0.999999
    assert exported.logit_scale == pytest.approx(network.logit_scale)


@pytest.mark.parametrize("name", ["mobilenetv2_035"])
@pytest.mark.parametrize(
    "runtime", ["onnx", pytest.param("compile", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_every_runtime_gives_the_same_vectors_with_real_weights(tmp_path, shared_data, unpacked, runtime, name):
    """Real weights on real photos agree to 0.9999, plain and centered, and the space is one and the same."""
    weights = shared_data / "weights" / f"{name}_imagenet.safetensors"
    files = sorted(map(str, (unpacked("hymenoptera") / "val" / "bees").glob("*.jpg")))[:24]
    vectors = {}
    for way in ("eager", runtime):
        options = {"pad_type": "same", "bn_eps": 1e-3}
        store = es.create(
            tmp_path / way, f"timm/{name}", weights=weights, backbone_args=options, dtype="float32", runtime=way
        )
        report = store.embed(files, batch_size=9)  # the last batch has six, and is padded where batches are static
        assert (report.runtime, report.embedded) == (way, 24)
        vectors[way] = store.features("uri").X
        assert store.sql("SELECT result->>'runtime' FROM runs").rows == ((way,),)
    agreement = compare_vectors(vectors["eager"], vectors[runtime])
    assert agreement.is_close, agreement
    assert len({es.open(tmp_path / way).spaces[0].key for way in vectors}) == 1


def replace_weights(tower):
    """Add noise to the weights of an exported tower, and make its manifest fit."""
    graph = onnx.load(tower / GRAPH_FILE)
    largest = max(graph.graph.initializer, key=lambda t: np.prod(t.dims))
    noisy = numpy_helper.to_array(largest) + np.random.default_rng(0).normal(0, 0.05, tuple(largest.dims))
    largest.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), largest.name))
    (tower / WEIGHTS_FILE).unlink(missing_ok=True)
    onnx.save(graph, tower / GRAPH_FILE, save_as_external_data=True, location=WEIGHTS_FILE)


def test_an_export_that_gives_other_vectors_is_refused(tmp_path, clip, monkeypatch):
    """A tower with wrong weights is not kept: an error if it was requested, for auto PyTorch, a notice and a record."""
    network, _ = clip
    write = export._write_graph
    monkeypatch.setattr(export, "_write_graph", lambda e, folder, b: (write(e, folder, b), replace_weights(folder)))
    with pytest.raises(RuntimeMismatch, match=r"the exported image tower of .* gives other vectors"):
        TowerPlace(network.space, tmp_path / "towers").export(network, prepare(network))
    assert list((tmp_path / "towers").iterdir()) == []
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(4):
        picture(n).save(photos / f"{n}.png")
    es.create(tmp_path / "s", local_clip(tmp_path / "clip"), device="cpu")
    with pytest.raises(RuntimeMismatch, match=r"the exported image tower of .* gives other vectors"):
        es.open(tmp_path / "s", device="cpu", runtime="onnx").embed(photos)
    first = es.open(tmp_path / "s", device="cpu").embed(photos)
    assert (first.runtime, first.embedded) == ("eager", 4)
    assert "gives other vectors" in first.notices[0]
    picture(9).save(photos / "9.png")
    second = es.open(tmp_path / "s", device="cpu").embed(photos)  # the refusal is recorded: no second export
    assert (second.runtime, second.embedded, second.notices) == ("eager", 1, [])


@pytest.mark.parametrize(
    ("run", "plan"),
    [
        (RunFacts(Runtime.AUTO, 1_999, True, True), RuntimePlan(Runtime.EAGER)),
        (RunFacts(Runtime.AUTO, 2_000, True, True), RuntimePlan(Runtime.EAGER, fold_batchnorms=True)),
        (RunFacts(Runtime.AUTO, 10**9, True, False), RuntimePlan(Runtime.EAGER)),
        (RunFacts(Runtime.AUTO, 9_999, False, False), RuntimePlan(Runtime.EAGER)),
        (RunFacts(Runtime.AUTO, 10_000, False, False), RuntimePlan(Runtime.EAGER, tune_device_batch=True)),
        (RunFacts(Runtime.EAGER, 10**9, False, True), RuntimePlan(Runtime.EAGER)),
        (RunFacts(Runtime.COMPILE, 10**9, True, True), RuntimePlan(Runtime.COMPILE)),
    ],
)
def test_the_number_of_images_decides_what_a_run_with_torch_tries(run, plan):
    """Folding and tuning are planned only where they repay their cost, and from no measured time."""
    assert plan_runtime(run) == plan


FOLDING = RuntimePlan(Runtime.EAGER, fold_batchnorms=True)


@pytest.mark.parametrize("name", [TINY, "timm/mobilenetv2_035", "timm/test_efficientnet", "timm/test_byobnet"])
def test_folded_batch_normalizations_give_the_same_vectors_and_are_restored(name):
    """Every normalization after a convolution moves into its weights; afterwards every bit is as it was."""
    network = load(Recipe(name, random_init=True), device="cpu")
    for layer in network.module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # random weights come with statistics that change nothing
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.data.uniform_(0.5, 1.5)
    first = FirstBatch(prepare(network), network.encode_images(prepare(network)))
    pool = DevicePool([network])
    choice = prepare_eager(pool, first, FOLDING)
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.module.modules())
    assert choice.folded_batchnorms == norms > 10
    assert choice.agreement.min_cosine > 0.99999
    assert not np.array_equal(network.encode_images(first.pixels), first.vectors)
    pool.restore()
    assert np.array_equal(network.encode_images(first.pixels), first.vectors)


def test_a_fold_that_changes_vectors_is_restored_at_once(monkeypatch):
    """The comparison refuses it, a notice reports it, and the network is as it was."""
    network = load(Recipe(TINY, random_init=True), device="cpu")
    first = FirstBatch(prepare(network), network.encode_images(prepare(network)))
    fold = fold_batchnorm._fold
    monkeypatch.setattr(fold_batchnorm, "_fold", lambda conv, norm: (fold(conv, norm), conv.weight.mul_(-2)))
    choice = prepare_eager(DevicePool([network]), first, FOLDING)
    assert choice.folded_batchnorms == 0
    assert "vectors would change" in choice.notices[0]
    assert np.array_equal(network.encode_images(first.pixels), first.vectors)


def test_a_compiled_network_that_lacks_memory_gets_smaller_batches():
    """Memory is not mistaken for a failure to compile: the batch is halved, and every batch has the new size."""
    network, sizes = load(Recipe(TINY, random_init=True), device="cpu"), []
    encoder, pixels = CompiledEncoder(network, 12), prepare(network)

    def limited(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network.vectors_from_pixels(batch)

    encoder._forward = limited
    vectors = encoder.encode_images(pixels)
    assert sizes == [12, 12, 6, 6]
    assert encoder.batch_size == 6
    assert compare_vectors(network.encode_images(pixels), vectors).is_close


def test_a_choice_that_fails_halfway_leaves_no_fold_behind():
    """A requested half precision is refused after the batch norms were folded: the end of the run restores the network,
    which the session uses for searches.
    """
    network = load(Recipe("timm/mobilenetv2_035", random_init=True), device="cpu", precision="bf16")
    pixels = prepare(network)
    vectors = network.encode_images(pixels)
    encoder = AdaptiveEncoder([network], Runtime.EAGER, expected_images=100)
    first = FirstBatch(pixels, vectors)
    with pytest.raises(RuntimeMismatch, match="--precision bf16"):
        prepare_eager(encoder._pool, first, FOLDING)
    assert not np.array_equal(network.encode_images(pixels), vectors)
    encoder.close()
    assert np.array_equal(network.encode_images(pixels), vectors)


def test_searches_use_the_network_while_it_is_folded_and_restored():
    """Another thread embeds all the time: it sees the whole network folded or not, and every fold finds every pair."""
    network = load(Recipe(TINY, random_init=True), device="cpu")
    pixels, done, seen = prepare(network)[:1], threading.Event(), []
    plain = network.encode_images(pixels)
    pool = DevicePool([network])
    pool.fold_batchnorms()
    folded = network.encode_images(pixels)
    pool.restore()

    def search() -> None:
        while not done.is_set():
            seen.append(network.encode_images(pixels))

    thread = threading.Thread(target=search)
    thread.start()
    try:
        counts = set()
        for _ in range(10):
            counts.add(pool.fold_batchnorms())
            pool.restore()
    finally:
        done.set()
        thread.join()
    assert counts == {sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.module.modules())}
    assert seen
    assert all(np.array_equal(vectors, plain) or np.array_equal(vectors, folded) for vectors in seen)


def test_pixels_may_be_on_the_device_already(clip):
    """A tensor gives the vectors of the array; another shape or type is refused either way."""
    network, _ = clip
    pixels = prepare(network)
    assert np.array_equal(network.encode_images(torch.from_numpy(pixels)), network.encode_images(pixels))
    for wrong in (pixels[:, :, 1:], torch.from_numpy(pixels).float()):
        with pytest.raises(ValueError, match="expected uint8"):
            network.encode_images(wrong)


def test_a_tuned_batch_size_is_near_the_default_and_the_same_on_every_device():
    """With much work ahead on a device, sizes from a quarter to four times the default are tried."""
    networks = [load(Recipe(TINY, random_init=True), device="cpu") for _ in range(2)]
    default = networks[0].batch_size
    pool = DevicePool(networks)
    pool.tune_batch_size(torch.from_numpy(prepare(networks[0])))
    assert default // 4 <= pool.batch_size <= 4 * default
    assert {n.batch_size for n in networks} == {pool.batch_size}


def test_damaged_foreign_and_outdated_towers_are_never_used(tmp_path, clip):
    """One flipped byte, another space, another format, another onnxruntime: each is a reason."""
    network, _ = clip
    export_tower(network, tmp_path, Tower.TEXT)
    path, key = tower_folder(tmp_path, Tower.TEXT), network.space.key

    def reason(space=key, tower=Tower.TEXT):
        opened = open_tower(tmp_path, tower, space, threads=1, fast_start=True)
        return opened.reason if isinstance(opened, Unavailable) else ""

    assert reason() == ""
    assert reason("f" * 16) == f"it belongs to space {key}"
    assert reason(tower=Tower.IMAGE) == "it was not exported"
    data = bytearray((path / WEIGHTS_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (path / WEIGHTS_FILE).write_bytes(data)
    assert "differs from what was exported" in reason()
    manifest = json.loads((path / MANIFEST_FILE).read_text())
    (path / MANIFEST_FILE).write_text(json.dumps(manifest | {"logit_scale": 1.0}))
    assert "does not match its checksum" in reason()
    checksum = manifest.pop(DESCRIPTION_CHECKSUM_KEY)
    (path / MANIFEST_FILE).write_text(json.dumps(manifest))
    assert "does not match its checksum" in reason()
    assert checksum
    (path / MANIFEST_FILE).write_bytes(dump_description(manifest | {"onnxruntime": "1.0"}, DESCRIPTION_CHECKSUM_KEY))
    assert "checked with onnxruntime 1.0" in reason()
    (path / MANIFEST_FILE).write_text(json.dumps(manifest | {"format": 3}))
    assert "another version of embedstore" in reason()
    export_tower(network, tmp_path, Tower.TEXT)
    assert reason() == ""
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_the_manifest_of_a_tower_has_its_stored_names(clip):
    """``tower.json`` is read by other versions: its names do not change."""
    _, folder = clip
    names = json.loads((tower_folder(folder, Tower.TEXT) / MANIFEST_FILE).read_text()).keys()
    identity, agreement = {"tower", "space", "files", "onnxruntime", "torch", "format"}, {"cosine", "centred", "rows"}
    assert names == identity | agreement | {"length", "logit_scale", DESCRIPTION_CHECKSUM_KEY}


def test_concurrent_exports_leave_one_whole_tower(tmp_path, clip):
    """Whichever is first, the tower that remains is whole, and no other file is left."""
    network, _ = clip
    threads = [threading.Thread(target=export_tower, args=(network, tmp_path, Tower.TEXT)) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    opened = open_tower(tmp_path, Tower.TEXT, network.space.key, threads=1, fast_start=True)
    assert isinstance(opened, OnnxTower)
    assert [p.name for p in tmp_path.iterdir()] == ["text"]
