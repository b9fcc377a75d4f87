"""Runtimes: the same vectors whatever runs the network, refused where they are not, and searches without torch."""

import html.entities
import json
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnx
import open_clip
import pytest
import torch
from onnx import numpy_helper

import embedstore as es
from embedstore import decode
from embedstore.backbone import bpe, choose, fold, load
from embedstore.backbone.choose import Chosen
from embedstore.backbone.export import export
from embedstore.backbone.exported import GRAPH, NOTE, TOGETHER, WEIGHTS, Exported, opened, place, refused
from embedstore.backbone.loading import spread
from embedstore.backbone.replicas import Replicas
from embedstore.backbone.runtime import Runtime, Tower, agreement
from embedstore.decode import preprocess
from embedstore.disk import xxh3
from embedstore.embed.forward import Forwards
from embedstore.embed.spent import Spent, Time
from embedstore.errors import BadBackbone, MissingExtra, RuntimeMismatch
from embedstore.space import Recipe
from tests.conftest import ROOT, TINY, picture
from tests.networks import local_clip


def prepared(network, count=12):
    """Different pictures, ready for a network."""
    images = [picture(n, (300, 220)) for n in range(count)]
    return np.stack([preprocess.apply(i, network.space.preprocess) for i in images])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP, and the folder where its exported towers are."""
    folder = tmp_path_factory.mktemp("clip")
    network = load(Recipe(local_clip(folder / "clip")), device="cpu")
    export(network, folder / "towers", Tower.IMAGE, prepared(network))
    export(network, folder / "towers", Tower.TEXT)
    return network, folder / "towers"


@pytest.fixture
def searched(tmp_path, photos):
    """A store of twelve pictures whose network understands words."""
    store = es.create(tmp_path / "s", local_clip(tmp_path / "clip"), device="cpu")
    store.embed(photos)
    return store


def no_torch(code, *arguments):
    """Run Python in a process of its own that fails where it imports torch; what it printed."""
    guard = "import sys; sys.modules['torch'] = None\n"
    run = subprocess.run(
        [sys.executable, "-c", guard + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def strings():
    """A corpus of many thousand strings: prose, code, every kind of Unicode, entities, mojibake."""
    rng = random.Random(0)
    out = ["", " ", "<start_of_text> a <end_of_text>", "&amp;amp;lt;b&gt;", "schÃ¶n cafÃ©", "ſſ 'ſ it'ſ", "İstanbul ẞ",
           "don't I'LL we'VE", "１２３ ①Ⅷ", "x" * 500, "\u200bzero\x00\x07", "e\u0301", "“curly” ‘q’", "&#x1F600; &amp",
           "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈", "word " * 100]  # fmt: skip
    ascii_, entities = [chr(c) for c in range(32, 127)], list(html.entities.html5)
    ranges = [(0x20, 0x250), (0x20, 0x3000), (0x1F300, 0x1FAFF), (0x4E00, 0x9FFF), (0, 0xD7FF), (0xE000, 0x10FFFF)]
    for _ in range(2500):
        out.append("".join(rng.choices(ascii_, k=rng.randint(1, 60))))
        low, high = rng.choice(ranges)
        letters = [chr(rng.randint(low, high)) for _ in range(rng.randint(1, 30))]
        out.append("".join(c if rng.random() < 0.7 else " " for c in letters))
        out.append(" ".join(rng.choice(["dog", "CAT", "it's", "1999", f"&{rng.choice(entities)}"]) for _ in range(6)))
    for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("embedstore/backbone/*.py")):
        out += path.read_text(encoding="utf-8").split("\n")
    return out


def test_tokens_are_open_clips_own():
    """The tokenizer without torch gives open_clip's ids for every string of a large corpus, cut or not."""
    corpus = strings()
    assert len(corpus) > 10_000
    theirs = open_clip.get_tokenizer("ViT-B-32")
    for length in (77, 16):
        assert np.array_equal(bpe.tokens(corpus, length), theirs(corpus, context_length=length).numpy())


def test_tokens_of_a_networks_own_vocabulary_are_open_clips_too():
    """The bundled network's merges, on the same corpus."""
    corpus = strings()
    merges = ROOT / "embedstore" / "backbone" / "tiny" / "merges.txt.gz"
    theirs = open_clip.tokenizer.SimpleTokenizer(bpe_path=str(merges))
    assert np.array_equal(bpe.tokens(corpus, 32, merges), theirs(corpus, context_length=32).numpy())


def test_agreement_looks_at_what_tells_images_apart():
    """A common part hides a wrong runtime from the plain cosine, not from the centred one."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(32, 8)).astype(np.float32)
    common = np.full((32, 8), 1000, np.float32)
    found = agreement(own + common, own[::-1] + common)
    assert found.cosine > 0.9999
    assert found.centred < 0.5
    assert not found.good
    assert agreement(own, own).good
    assert agreement(own[:1], own[:1] * 3).good
    assert not agreement(own, np.full_like(own, np.nan)).good


def test_exported_towers_give_the_eager_vectors(clip):
    """Images and words through onnxruntime: cosine 0.999999 and more to torch, whatever the batch."""
    network, folder = clip
    both = {t: opened(folder, t, network.space.key, threads=1, brief=False) for t in Tower}
    exported = Exported(network.space, image=both[Tower.IMAGE], text=both[Tower.TEXT])
    pixels, words = prepared(network, 21), ["a dog", "Zwei Kätzchen 🐈", "&amp;", "far too long " * 60]
    images = agreement(network.encode_images(pixels), exported.encode_images(pixels))
    texts = agreement(network.encode_texts(words), exported.encode_texts(words))
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
    found = agreement(made["eager"], made[runtime])
    assert found.good, found
    assert len({es.open(tmp_path / how).spaces[0].key for how in made}) == 1


def test_a_runtime_that_gives_other_vectors_is_refused(tmp_path, clip):
    """An exported tower whose weights are wrong does not get past the first batch, and auto goes on eagerly."""
    network, _ = clip
    wrong = tmp_path / "towers"
    export(network, wrong, Tower.IMAGE, prepared(network))
    path = place(wrong, Tower.IMAGE)
    graph = onnx.load(path / GRAPH)
    largest = max(graph.graph.initializer, key=lambda t: np.prod(t.dims))
    noisy = numpy_helper.to_array(largest) + np.random.default_rng(0).normal(0, 0.05, tuple(largest.dims))
    largest.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), largest.name))
    (path / WEIGHTS).unlink()
    onnx.save(graph, path / GRAPH, save_as_external_data=True, location=WEIGHTS)
    note = json.loads((path / NOTE).read_text())
    note["files"] = {n: [(path / n).stat().st_size, xxh3(path / n)] for n in (GRAPH, WEIGHTS)}
    (path / NOTE).write_text(json.dumps(note))
    pixels = prepared(network)
    with pytest.raises(RuntimeMismatch, match="--runtime onnx gives other vectors"):
        Chosen([network], Runtime.ONNX, wrong, images=12).encode_images(pixels)
    auto = Chosen([network], Runtime.AUTO, wrong, images=10**9)
    assert np.array_equal(auto.encode_images(pixels), network.encode_images(pixels))
    assert auto.runtime is Runtime.EAGER
    assert "gives other vectors" in auto.notices[0]


def test_auto_stays_eager_for_short_runs_and_exports_for_long_ones(tmp_path, clip, monkeypatch):
    """What is ahead decides, and then which is faster."""
    network, _ = clip
    pixels = prepared(network)
    short = Chosen([network], Runtime.AUTO, tmp_path / "short", images=100)
    short.encode_images(pixels)
    assert short.runtime is Runtime.EAGER
    assert not (tmp_path / "short").exists()
    monkeypatch.setattr(choose, "FASTER", 0.0)  # faster in any case: which is, depends on the machine
    long = Chosen([network], Runtime.AUTO, tmp_path / "long", images=10**9)
    assert np.array_equal(long.encode_images(pixels), network.encode_images(pixels))
    assert long.runtime is Runtime.ONNX
    assert 1 <= long.batch_size <= TOGETHER
    assert agreement(network.encode_images(pixels), long.encode_images(pixels)).good
    assert (tmp_path / "long" / "image" / NOTE).exists()


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
    chosen = Chosen([network], Runtime.AUTO, tmp_path, images=12)
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
    own = fold._fold
    monkeypatch.setattr(fold, "_fold", lambda conv, norm: (own(conv, norm), conv.weight.mul_(-2)))
    chosen = Chosen([network], Runtime.AUTO, tmp_path, images=12)
    chosen._stay(pixels, want, ahead=1e9)
    assert chosen.folded == 0
    assert "it would give other vectors" in chosen.notices[0]
    assert np.array_equal(network.encode_images(pixels), want)


def test_a_run_on_several_devices_gives_the_vectors_of_one(tmp_path, photos):
    """Two replicas on the CPU share the batches: every item has the vector it has with one."""
    found = {}
    for device in ("cpu", "cpu,cpu"):
        es.create(tmp_path / device, TINY, random_init=True, device="cpu", dtype="float32")
        store = es.open(tmp_path / device, device=device)
        report = store.embed(photos, batch_size=2, runtime="eager")
        assert (report.embedded, report.device) == (12, device)
        features = store.features("uri")
        found[device] = features.X[np.argsort(features.y)]
    assert agreement(found["cpu"], found["cpu,cpu"]).cosine > 0.999999


def test_batches_go_to_the_device_that_is_free():
    """A slow device keeps one batch while the other takes the rest; networks of two spaces are refused."""

    class Device:
        device = "cpu"

        def __init__(self, seconds, key="one"):
            self.space = SimpleNamespace(key=key)
            self.seconds, self.batches = seconds, 0

        def encode_images(self, batch):
            self.batches += 1
            time.sleep(self.seconds)
            return batch

    slow, quick = Device(0.5), Device(0.01)
    replicas = Replicas([slow, quick])
    assert replicas.parallel == 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(replicas.encode_images, range(12)))
    assert slow.batches + quick.batches == 12
    assert quick.batches > slow.batches
    with pytest.raises(BadBackbone, match="comes out differently on another device"):
        Replicas([slow, Device(0, key="two")])


def test_pixels_may_lie_on_the_device_already(clip):
    """A tensor gives the vectors of the array; another shape or type is refused either way."""
    network, _ = clip
    pixels = prepared(network)
    assert np.array_equal(network.encode_images(torch.from_numpy(pixels)), network.encode_images(pixels))
    for wrong in (pixels[:, :, 1:], torch.from_numpy(pixels).float()):
        with pytest.raises(ValueError, match="expected uint8"):
            network.encode_images(wrong)


def test_devices_are_named_with_commas():
    """Every one is checked; a search or a fine-tuning uses the first."""
    assert spread("cpu") == ["cpu"]
    assert spread("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(BadBackbone, match="no device 'cuda:7' here"):
        spread("cpu,cuda:7")
    assert load(Recipe(TINY, random_init=True), device="cpu,cpu").device == "cpu"


def test_the_batch_size_is_looked_for_within_reach(tmp_path, clip):
    """As on a device with much ahead: between a quarter and four times the first choice, which the network keeps."""
    network, _ = clip
    pixels, before = prepared(network), network.batch_size
    try:
        chosen = Chosen([network], Runtime.AUTO, tmp_path, images=10**9)
        found = chosen._sized(torch.from_numpy(pixels))
        assert before // 4 <= found <= 4 * before
        assert network.batch_size == found
    finally:
        network.batch_size = before


def test_damaged_foreign_and_outdated_towers_are_passed_by(tmp_path, clip):
    """One flipped byte, another space, another onnxruntime: none of them is run."""
    network, _ = clip
    export(network, tmp_path, Tower.TEXT)
    path, key = place(tmp_path, Tower.TEXT), network.space.key

    def why(space=key):
        found = opened(tmp_path, Tower.TEXT, space, threads=1, brief=True)
        return found if isinstance(found, str) else "fine"

    assert why() == "fine"
    assert why("f" * 16) == f"it belongs to space {key}"
    assert opened(tmp_path, Tower.IMAGE, key, threads=1, brief=True) == "it was not exported"
    data = bytearray((path / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (path / WEIGHTS).write_bytes(data)
    assert "is not what was written" in why()
    note = json.loads((path / NOTE).read_text()) | {"onnxruntime": "1.0"}
    (path / NOTE).write_text(json.dumps(note))
    assert "checked with onnxruntime 1.0" in why()
    export(network, tmp_path, Tower.TEXT)
    assert why() == "fine"
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_several_exports_at_once_leave_one_whole_tower(tmp_path, clip):
    """Whoever comes first, the tower that stands there is whole, and nothing is left beside it."""
    network, _ = clip
    threads = [threading.Thread(target=export, args=(network, tmp_path, Tower.TEXT)) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not isinstance(opened(tmp_path, Tower.TEXT, network.space.key, threads=1, brief=True), str)
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


SEARCH = """
import embedstore as es
store = es.open(sys.argv[1])
words = store.search("a dog", k=3)
image = store.search(image=sys.argv[2], k=1)
print([h.uri for h in words], [round(h.score, 4) for h in words], image[0].uri)
"""


def test_a_search_in_words_or_by_image_needs_no_torch(searched, photos):
    """With exported towers the same hits come from a process in which torch cannot be imported."""
    said = searched.export_towers()
    assert [s.split(" of ")[0] for s in said] == ["kept the image tower", "kept the text tower"]
    query = photos / "train" / "cat" / "1.png"
    hits = searched.search("a dog", k=3)
    printed = no_torch(SEARCH, searched.path, query)
    assert printed.strip() == f"{[h.uri for h in hits]} {[round(h.score, 4) for h in hits]} {query}"


def test_the_first_search_leaves_towers_for_the_next(searched, tmp_path):
    """The command answers, says that it kept the tower, and the next one is silent and without torch."""
    command = "from embedstore.cli import main; main(sys.argv[1:])"
    arguments = ["search", str(searched.path), "a dog", "--paths"]
    first = subprocess.run(
        [sys.executable, "-c", f"import sys; {command}", *arguments], capture_output=True, text=True, check=True
    )
    assert first.stderr.startswith("kept the text tower of clip for searches without torch: ")
    assert first.stdout == no_torch(command, *arguments)


def test_timing_names_the_steps(searched, capsys):
    """``--timing`` prints on stderr where the time went, before or behind the verb."""
    from embedstore.cli import main

    searched.export_towers(towers=["text"])
    for arguments in (["--timing", "search"], ["search", "--timing"]):
        with pytest.raises(SystemExit):
            main([*arguments, str(searched.path), "a dog"])
        told = capsys.readouterr().err
        for step in ("Python and the command itself", "opening the store", "the text tower", "the search itself"):
            assert step in told


def test_a_store_that_cannot_be_written_is_searched_all_the_same(searched, monkeypatch):
    """No tower can be kept there: the answer comes through torch, and nothing is said or left."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    again = es.open(searched.path, device="cpu")
    assert len(again.search("a dog", k=3)) == 3
    assert again.keep_towers() == []


def test_a_tokenizer_that_is_not_clips_is_refused_and_remembered(searched, monkeypatch):
    """Its words go through torch; the export is not tried at every search."""
    again = es.open(searched.path, device="cpu")
    again.search("a dog")
    monkeypatch.setattr(bpe, "tokens", lambda texts, length, merges: np.zeros((len(texts), length), np.int64))
    (said,) = again.keep_towers()
    assert "is not CLIP's own" in said
    assert refused(searched.path / "spaces" / searched.spaces[0].key / "towers", Tower.TEXT)
    assert again.keep_towers() == []


def test_eager_and_missing_extras(searched, monkeypatch, tmp_path):
    """``eager`` never exports; ``onnx`` without its packages says what to install; another word is refused."""
    eager = es.open(searched.path, device="cpu", runtime="eager")
    eager.search("a dog")
    assert eager.keep_towers() == []
    with pytest.raises(BadBackbone, match="unknown runtime 'tensorrt'; use one of auto, eager, onnx, compile"):
        es.open(searched.path, runtime="tensorrt")
    monkeypatch.setattr("embedstore.backbone.runtime.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'embedstore\[onnx\]'"):
        es.open(searched.path, device="cpu", runtime="onnx").search("a dog")
    with pytest.raises(MissingExtra, match=r"pip install 'embedstore\[onnx\]'"):
        es.create(tmp_path / "other", TINY, random_init=True, runtime="onnx")
    assert not (tmp_path / "other").exists()
    assert len(es.open(searched.path, device="cpu").search("a dog", k=2)) == 2


def test_batches_come_back_in_order_whoever_is_faster():
    """Four at once, the first the slowest: files and vectors stay together and in order."""

    def encode(pixels):
        time.sleep(0.2 if pixels[0, 0] == 0 else 0.0)
        return pixels.astype(np.float32)

    forwards = Forwards(encode, lambda: 4)
    out = []
    for n in range(20):
        forwards.put([n], [np.full(3, n, np.uint8)])
        out += forwards.done()
        assert len(forwards._under_way) <= 4
    out += forwards.done(everything=True)
    forwards.close()
    assert [(d.files[0], int(d.vectors[0, 0])) for d in out] == [(n, n) for n in range(20)]
    assert forwards.images == 20


SPENT = {
    "images": 1000, "seconds": 10.0, "read": Time(1.0, 0.5), "decode": Time(40.0, 39.0), "forward": 4.0,
    "write": Time(0.1, 0.1), "cpu": 20.0, "threads": 4, "cores": 16, "shared": False, "runtime": "eager",
}  # fmt: skip


def test_the_verdict_names_the_stage_that_limits():
    """Worked by hand: a device at 40% with 4 of 16 threads, one that is busy, shared cores, a slow disk."""
    assert Spent(**SPENT).verdict() == (
        "decode-bound: 40% of the device's rate (250 images/s); 11 threads instead of 4 would lift it to 100%"
    )
    assert Spent(**SPENT | {"forward": 9.5}).verdict().startswith("backbone-bound: 95% of the device's rate (105 ")
    assert (
        Spent(**SPENT | {"cores": 4})
        .verdict()
        .endswith("all 4 cores decode: smaller files or more cores would lift it")
    )
    shared = SPENT | {"shared": True, "cores": 2, "decode": Time(5.0, 4.0), "cpu": 19.0, "threads": 2}
    assert Spent(**shared).verdict() == (
        "backbone-bound: of the CPU time the network 76%, reading 3%, decoding 21%, writing 1%; "
        "--runtime onnx, a smaller backbone or a GPU would lift it"
    )
    slow = SPENT | {"read": Time(38.0, 0.5), "decode": Time(1.0, 1.0)}
    assert Spent(**slow).verdict().startswith("read-bound: 4 threads waited for files 94% of the time; more --threads")
    assert Spent(**SPENT | {"images": 0}).verdict() == ""


def test_an_embedding_run_ends_with_its_bottleneck(tmp_path, photos):
    """The line is in the report, the run's record and on the terminal; the stages were measured."""
    store = es.create(tmp_path / "s", TINY, random_init=True, device="cpu")
    report = store.embed(photos)
    assert report.bottleneck.split(":")[0] in {"backbone-bound", "decode-bound", "read-bound", "write-bound"}
    assert report.stages["images"] == 12
    assert report.stages["decode"]["cpu"] > 0
    assert store.sql("SELECT result->>'bottleneck' FROM runs").rows == ((report.bottleneck,),)


def test_image_queries_are_prepared_as_embedded_images_are(searched, photos):
    """A picture of the store, asked as a file without torch, is found with the cosine of its own stored row."""
    searched.export_towers(towers=["image"])
    again = es.open(searched.path, device="cpu")
    for path in sorted(photos.rglob("*.png"))[:4]:
        (hit,) = again.search(image=path, k=1)
        assert hit.uri == str(path)
        assert hit.score > 0.9995
    assert not again._networks
    assert decode.open_image(path)[0].mode == "RGB"
