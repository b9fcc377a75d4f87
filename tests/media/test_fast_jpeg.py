"""Every way from a file to pixels gives the same images, the same vectors and the same failures."""

import io
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import embedstore as es
from embedstore.backbones import load
from embedstore.backbones.base import Backbone
from embedstore.backbones.runtimes.runtime import compare_vectors
from embedstore.errors import BadOption, ImageError, RuntimeMismatch
from embedstore.media.image import decode, fast_jpeg, plain_jpeg, preprocess
from embedstore.media.image.gpu_decode import MAX_UPLOAD_PIXELS, GpuImagePreparer
from embedstore.media.image.hardware_jpeg import HardwareJpegs, torchvision_jpeg_decoder
from embedstore.media.image.screening import is_safe_in_process
from embedstore.pipeline import decode_method
from embedstore.pipeline.decode_method import DecodeMethod, choose_decode_method, stack_pixels
from embedstore.pipeline.decoder import Decoder, parse_decoder
from embedstore.space import Interpolation, Preprocess, Recipe, ResizeMode
from embedstore.types import ContentInfo
from tests.conftest import TINY, picture


def make_preprocess(size, resize, mode="shortest", interpolation="bicubic", fill=0):
    """Return a preprocessing from plain values."""
    half = (0.5, 0.5, 0.5)
    pair = (resize, resize)
    return Preprocess((size, size), pair, half, half, ResizeMode(mode), Interpolation(interpolation), fill)


PREPS = [
    make_preprocess(224, 256),
    make_preprocess(64, 64, "squash"),
    make_preprocess(96, 96, "longest", fill=128),
    make_preprocess(160, 160, interpolation="bilinear"),
    make_preprocess(96, 96, interpolation="lanczos"),
    make_preprocess(96, 40),
]


def jpeg(image, **options):
    """Return the bytes of a JPEG file."""
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def detailed(seed, size=(300, 220)):
    """Return an image with edges and fine noise."""
    noise = np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 1))
    coarse = np.asarray(picture(seed, (16, 12)).resize(size, Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(coarse + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def jpeg_decoder():
    """Return torchvision's CPU decoder, in place of a GPU's."""
    return torchvision_jpeg_decoder("cpu")


@pytest.fixture(params=["quick", "device", "hardware"])
def prepare_fast(request, jpeg_decoder):
    """Return each faster way; the two for a GPU run on the device ``cpu``."""
    ways = {"quick": fast_jpeg.prepare, "device": GpuImagePreparer("cpu").prepare}
    return ways.get(request.param) or by_hardware(jpeg_decoder)


def by_hardware(jpeg_decoder):
    """Return the way of a run with the decoder of a device: one file at once, and what it refuses as without it."""
    jpegs, other = HardwareJpegs("cpu", jpeg_decoder), GpuImagePreparer("cpu")
    return lambda data, p: jpegs.prepare_together([data], p).get(0) or other.prepare(data, p)


@pytest.mark.parametrize("p", PREPS, ids=str)
def test_pixels_differ_from_pillows_by_at_most_three_levels(prepare_fast, p):
    """This holds for every resize mode and filter, and for wide, tall, tiny and enlarged images; few values differ at
    all.
    """
    for n, size in enumerate([(300, 220), (220, 300), (500, 375), (64, 64), (31, 200), (1, 1)]):
        data = jpeg(detailed(n, size), quality=92)
        reference, facts = preprocess.prepare(data, p)
        pixels, facts_fast = prepare_fast(data, p)
        difference = np.abs(reference.astype(int) - np.asarray(pixels))
        assert facts_fast == facts
        assert difference.max() <= 3, size
        assert (difference > 0).mean() < 0.06


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_turned_upright(prepare_fast, orientation):
    """The eight of EXIF, and two that do not exist, are turned as Pillow turns them."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = orientation
    data = jpeg(detailed(3, (120, 80)), exif=exif)
    p = make_preprocess(80, 80)
    reference, facts = preprocess.prepare(data, p)
    pixels, facts_fast = prepare_fast(data, p)
    assert facts_fast == facts
    assert np.abs(reference.astype(int) - np.asarray(pixels)).max() <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_gray_and_cmyk_agree_with_pillow(prepare_fast, mode):
    """A gray JPEG becomes equal channels; CMYK is left to Pillow."""
    data = jpeg(detailed(5).convert(mode))
    reference, _ = preprocess.prepare(data, PREPS[0])
    assert np.abs(reference.astype(int) - np.asarray(prepare_fast(data, PREPS[0])[0])).max() <= 3


def test_a_truncated_file_has_pillows_result(prepare_fast):
    """40 cuts of a baseline and a progressive file give Pillow's image or Pillow's failure."""
    p = make_preprocess(32, 32)
    for progressive in (False, True):
        data = jpeg(detailed(7, (90, 60)), progressive=progressive)
        for end in range(len(data) // 20, len(data), len(data) // 20):
            assert outcome(prepare_fast, data[:end], p) == outcome(preprocess.prepare, data[:end], p)


def outcome(prepare, data, p):
    """Return the facts, or the reason of the failure."""
    try:
        return prepare(data, p)[1]
    except ImageError as e:
        return e.reason


def test_the_corpus_decodes_to_the_bytes_of_pillow(unpacked):
    """Every small file of image libraries' test suites that is not isolated gives equal pixels or the same reason."""
    files = [f for f in sorted(unpacked("nasty").rglob("*")) if f.is_file() and 0 < f.stat().st_size < 60_000]
    compared, p = 0, make_preprocess(32, 32)
    for file in files:
        data = file.read_bytes()
        if not data.startswith(b"\xff\xd8") or not is_safe_in_process(data):
            continue
        assert outcome(fast_jpeg.prepare, data, p) == outcome(preprocess.prepare, data, p), file
        if isinstance(outcome(preprocess.prepare, data, p), ContentInfo):
            pixels = fast_jpeg.decode_to_tensor(data)[0].permute(1, 2, 0).numpy()
            assert np.array_equal(pixels, np.asarray(decode.open_image(data)[0])), file
            compared += 1
    assert compared > 50


def test_resizing_floats_agrees_with_resizing_bytes(unpacked):
    """The resize for devices without one for bytes is within 2 levels of Pillow's, and nearly always equal."""
    for n, size in enumerate([(500, 375), (375, 500), (40, 30)]):
        image = detailed(n, size)
        p = make_preprocess(224, 256)
        width, height = preprocess.resize_dimensions(*size, p)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        found = fast_jpeg.center_crop(fast_jpeg.resize_as_float(pixels, height, width, "bicubic"), p).numpy()
        difference = np.abs(preprocess.resize_and_crop(image, p).astype(int) - found)
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.01


def test_vectors_of_real_photos_agree_for_every_way(shared_data, unpacked, jpeg_decoder):
    """With real weights the cosine to Pillow's vectors is at least 0.9999, plain and centered."""
    weights = shared_data / "weights" / "mobilenetv2_035_imagenet.safetensors"
    recipe = Recipe("timm/mobilenetv2_035", weights=str(weights), args={"pad_type": "same", "bn_eps": 1e-3})
    network = load(recipe, device="cpu")
    p = network.space.preprocess
    files = sorted((unpacked("hymenoptera") / "val" / "bees").glob("*.jpg"))[:16]
    data = [f.read_bytes() for f in files]
    reference = network.encode_images(np.stack([preprocess.prepare(d, p)[0] for d in data]))
    for prepare in (fast_jpeg.prepare, GpuImagePreparer("cpu").prepare, by_hardware(jpeg_decoder)):
        vectors = network.encode_images(stack_pixels([prepare(d, p)[0] for d in data]))
        assert compare_vectors(reference, vectors).is_close


def test_an_image_that_the_device_cannot_resize_is_resized_on_the_cpu(monkeypatch):
    """One failing resize costs one image its speed, not the run."""

    def no_memory(pixels, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    p, data = make_preprocess(32, 32), jpeg(detailed(1))
    monkeypatch.setattr("embedstore.media.image.gpu_decode.copy_to_device", no_memory)
    assert np.array_equal(GpuImagePreparer("cpu").prepare(data, p)[0], fast_jpeg.prepare(data, p)[0])


def ways_of(prepare, *names):
    """Return ways of decoding that all prepare images in the same way."""
    return {name: DecodeMethod(name, prepare) for name in names}


class PretendedGpu:
    """A network that says that it is on a GPU."""

    def __init__(self, network):
        self.space, self.device, self.encode_images = network.space, "cuda:0", network.encode_images


def test_auto_is_exact_on_the_cpu_and_resizes_on_a_gpu(network, monkeypatch):
    """It never chooses the decoder of the GPU, which can overwrite memory that queued work reads; a person may."""
    names = (Decoder.GPU_JPEG, Decoder.GPU_RESIZE, Decoder.FAST)
    monkeypatch.setattr(decode_method, "fast_decoders", lambda device: ways_of(fast_jpeg.prepare, *names))
    for files in (FILES, [], [b"broken"]):
        assert choose_decode_method(network, lambda f=files: f, requested=Decoder.AUTO) is decode_method.EXACT_METHOD
    on_gpu = choose_decode_method(PretendedGpu(network), lambda: FILES, requested=Decoder.AUTO)
    assert (on_gpu.decoder, on_gpu.agreement.is_close) == (Decoder.GPU_RESIZE, True)
    assert choose_decode_method(PretendedGpu(network), lambda: [b"broken"], requested=Decoder.AUTO).decoder == "exact"
    assert choose_decode_method(network, lambda: FILES, requested=Decoder.GPU_JPEG).decoder is Decoder.GPU_JPEG


def test_a_large_image_is_resized_on_the_cpu(monkeypatch):
    """The images that are copied to the device are bounded in size."""
    preparer, p = GpuImagePreparer("cpu"), make_preprocess(32, 32)
    moved = []
    monkeypatch.setattr(
        "embedstore.media.image.gpu_decode.copy_to_device", lambda x, device: moved.append(x.shape) or x
    )
    big = Image.new("RGB", (4096, MAX_UPLOAD_PIXELS // 4096 + 1), (10, 20, 30))
    assert preparer.prepare(jpeg(big), p)[1].width == 4096
    assert moved == []
    preparer.prepare(jpeg(detailed(1)), p)
    assert len(moved) == 1


@pytest.fixture(scope="module")
def network():
    """Return a small real network."""
    return load(Recipe(TINY, random_init=True), device="cpu")


FILES = [jpeg(detailed(n)) for n in range(8)]


def test_a_decoder_is_used_only_after_its_vectors_were_compared(network, monkeypatch):
    """A requested decoder with other vectors is an error; with ``auto`` it is a notice, and Pillow is used."""
    method = choose_decode_method(network, lambda: FILES, requested=Decoder.FAST)
    assert method.decoder is Decoder.FAST
    assert method.agreement.is_close
    assert method.agreement.rows == 8

    def wrong(data, p):
        return 255 - preprocess.prepare(data, p)[0], None

    monkeypatch.setattr(decode_method, "fast_decoders", lambda device: ways_of(wrong, Decoder.FAST, Decoder.GPU_RESIZE))
    with pytest.raises(RuntimeMismatch, match="--decoder quick gives other vectors than Pillow on your images"):
        choose_decode_method(network, lambda: FILES, requested=Decoder.FAST)
    found = choose_decode_method(PretendedGpu(network), lambda: FILES, requested=Decoder.AUTO)
    assert found.decoder is Decoder.EXACT
    assert "--decoder device gives other vectors" in found.notices[0]


def test_a_run_records_its_decoder_and_its_agreement(tmp_path):
    """The report and the record of the run hold both; a decoder that is not available is refused."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for n, data in enumerate(FILES):
        (photos / f"{n}.jpg").write_bytes(data)
    es.create(tmp_path / "s", TINY, random_init=True, device="cpu")
    report = es.open(tmp_path / "s", device="cpu", decoder="quick").embed(photos)
    assert (report.embedded, report.decoder) == (8, "quick")
    assert report.decoder_agreement.min_cosine > 0.9999
    assert es.open(tmp_path / "s").sql("SELECT result->>'decoder' FROM runs").rows == (("quick",),)
    es.create(tmp_path / "t", TINY, random_init=True, device="cpu")
    with pytest.raises(BadOption, match="--decoder hardware needs a GPU, and this run is on cpu"):
        es.open(tmp_path / "t", device="cpu", decoder="hardware").embed(photos)
    with pytest.raises(
        BadOption, match="unknown decoder 'cv2'; use one of auto, pillow, exact, quick, device, hardware"
    ):
        parse_decoder("cv2")


def test_decoding_threads_use_one_torch_thread_and_the_count_is_restored(tmp_path, monkeypatch):
    """Two decoders with two OpenMP threads each would wait for each other; the network uses all threads."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for n, data in enumerate(FILES):
        (photos / f"{n}.jpg").write_bytes(data)
    seen = {}
    before, threads = torch.get_num_threads(), 3

    def look():
        kind = threading.current_thread().name.partition("_")[0]
        seen.setdefault(kind, set()).add(torch.get_num_threads())

    def prepare(data, p):
        look()
        return fast_jpeg.prepare(data, p)

    monkeypatch.setattr(decode_method, "fast_decoders", lambda device: ways_of(prepare, Decoder.FAST))
    own = Backbone.encode_images
    monkeypatch.setattr(Backbone, "encode_images", lambda self, batch: (look(), own(self, batch))[1])
    torch.set_num_threads(threads)
    try:
        es.create(tmp_path / "s", TINY, random_init=True, device="cpu")
        es.open(tmp_path / "s", device="cpu", decoder="quick", runtime="eager").embed(photos)
        assert (seen["decode"], seen["forward"]) == ({1}, {threads})
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_without_simplejpeg_the_pixels_are_the_same(monkeypatch):
    """Pillow decodes and torch resizes."""
    want = [fast_jpeg.prepare(d, PREPS[0])[0] for d in FILES[:3]]
    monkeypatch.setattr(plain_jpeg, "HAS_SIMPLEJPEG", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data, pixels in zip(FILES, want, strict=False):
            assert np.array_equal(fast_jpeg.prepare(data, PREPS[0])[0], pixels)


@pytest.mark.gpu
def test_on_a_gpu_every_way_agrees_or_is_refused():
    """Resizing on the GPU agrees with Pillow; the GPU decoder agrees, or the comparison refuses it."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    network = load(Recipe(TINY, random_init=True), device="cuda", precision="fp32")
    assert choose_decode_method(network, lambda: FILES, requested=Decoder.GPU_RESIZE).agreement.is_close
    method = choose_decode_method(network, lambda: FILES, requested=Decoder.AUTO)
    assert method.agreement is None or method.agreement.is_close
    assert all("--decoder hardware gives other vectors" in n for n in method.notices)
