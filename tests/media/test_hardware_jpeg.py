"""The JPEG decoder of a device: which files it gets, several at once, and that it never spoils what others use."""

import contextlib
import io
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.backbones import load
from embedstore.errors import RuntimeMismatch
from embedstore.media.image import decode, fast_jpeg, hardware_jpeg, plain_jpeg
from embedstore.media.image.decode_stream import DecodeStream
from embedstore.media.image.gpu_decode import GpuImagePreparer
from embedstore.media.image.hardware_jpeg import HardwareJpegs, has_end_marker, torchvision_jpeg_decoder
from embedstore.pipeline import decode_method
from embedstore.pipeline.decode_method import DecodeMethod, DeviceTurns, choose_decode_method
from embedstore.pipeline.decoder import Decoder
from embedstore.space import Recipe
from tests.conftest import TINY
from tests.helpers.pretend_cuda import pretended_gpus
from tests.helpers.pretend_device import DeviceFault
from tests.media.test_fast_jpeg import FILES, Image, detailed, jpeg, make_preprocess

P = make_preprocess(32, 32)


def png(image):
    """Return the bytes of a PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def rotated(image):
    """Return a JPEG that a viewer turns."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = 6
    return jpeg(image, exif=exif)


FOR_THE_CPU = {
    "progressive": jpeg(detailed(1), progressive=True),
    "rotated": rotated(detailed(2)),
    "cmyk": jpeg(detailed(3).convert("CMYK")),
    "truncated": jpeg(detailed(4))[:-60],
    "without its end": jpeg(detailed(5))[:-2],
    "png": png(detailed(6)),
    "empty": b"",
    "text": b"not an image",
}
PLAIN = {"color": jpeg(detailed(7)), "gray": jpeg(detailed(8).convert("L")), "padded": jpeg(detailed(9)) + b"\0\0"}
EVERY = FOR_THE_CPU | PLAIN


@given(st.lists(st.sampled_from(sorted(EVERY)), max_size=8))
def test_plain_files_go_to_the_decoder_together_and_all_others_to_the_cpu(names):
    """Whatever is in a task: the decoder gets the plain files in one call, and gives each its own image."""
    calls, decoder = [], torchvision_jpeg_decoder("cpu")

    def count(data):
        calls.append([len(d) for d in data])
        return decoder(data)

    together = HardwareJpegs("cpu", count).prepare_together([EVERY[name] for name in names], P)
    plain = [n for n, name in enumerate(names) if name in PLAIN]
    assert sorted(together) == plain
    assert calls == ([[len(EVERY[names[n]]) for n in plain]] if plain else [])
    for n in plain:
        expected, facts = fast_jpeg.prepare(EVERY[names[n]], P)
        assert together[n][1] == facts
        assert np.abs(np.asarray(together[n][0]).astype(int) - expected).max() <= 3


def test_one_file_that_the_decoder_refuses_costs_a_task_its_speed():
    """All files of the task are decoded on the CPU, with the same pixels; a wrong size costs its file alone."""

    def refuses(data):
        raise RuntimeError("not this one")

    assert HardwareJpegs("cpu", refuses).prepare_together(FILES, P) == {}
    decoder = torchvision_jpeg_decoder("cpu")

    def crops_the_second(data):
        images = list(decoder(data))
        images[1] = images[1][:, :-1]
        return images

    assert sorted(HardwareJpegs("cpu", crops_the_second).prepare_together(FILES, P)) == [0, 2, 3, 4, 5, 6, 7]


def test_what_torch_cannot_resize_is_not_decoded_on_the_device():
    """Lanczos is Pillow's alone."""
    decoder = torchvision_jpeg_decoder("cpu")
    lanczos = make_preprocess(32, 32, interpolation="lanczos")
    assert HardwareJpegs("cpu", decoder).prepare_together(FILES, lanczos) == {}


def test_size_limits_hold_for_the_decoder_too(monkeypatch):
    """An image that no thread may decode is not decoded on the device, nor are more at once than its memory allows."""
    jpegs = HardwareJpegs("cpu", torchvision_jpeg_decoder("cpu"))
    monkeypatch.setattr(hardware_jpeg, "MAX_TOGETHER_PIXELS", 3 * 300 * 220)
    assert sorted(jpegs.prepare_together(FILES, P)) == [0, 1, 2]
    monkeypatch.setattr(plain_jpeg, "max_in_process_pixels", lambda: 300 * 220 - 1)
    assert jpegs.prepare_together(FILES, P) == {}


def test_the_decoder_has_one_thread_at_a_time():
    """The threads that find it busy decode on the CPU at once."""
    begun, go_on = threading.Event(), threading.Event()
    decoder = torchvision_jpeg_decoder("cpu")

    def slow(data):
        begun.set()
        go_on.wait(60)
        return decoder(data)

    jpegs, results = HardwareJpegs("cpu", slow), []
    thread = threading.Thread(target=lambda: results.append(jpegs.prepare_together(FILES, P)))
    thread.start()
    assert begun.wait(60)
    assert jpegs.prepare_together(FILES, P) == {}
    go_on.set()
    thread.join()
    assert sorted(results[0]) == list(range(8))
    assert sorted(jpegs.prepare_together(FILES, P)) == list(range(8))


def test_the_end_marker_may_be_padded():
    """Zeros after the end are common; a missing end is a truncated file."""
    assert has_end_marker(PLAIN["padded"])
    assert not has_end_marker(FOR_THE_CPU["without its end"])


def test_images_of_one_task_go_to_one_device_and_turns_follow_their_number():
    """A device gets whole batches: what was decoded at once counts for its turn, and what is left goes there too."""
    given_to = []

    def way(name):
        def together(files, p):
            given_to.append((name, len(files)))
            return {0: (name, None), 1: (name, None)}

        return DecodeMethod(Decoder.GPU_JPEG, lambda data, p: (name, None), together=together)

    turns = DeviceTurns([way("a"), way("b")], lambda: 3)
    assert [x for x, _ in turns.prepare_together([b""] * 3, P).values()] == ["a", "a"]
    assert turns.prepare(b"", P)[0] == "a"
    assert turns.prepare_together([b""] * 3, P)[0][0] == "b"
    assert given_to == [("a", 3), ("b", 3)]


# ---- the order of work on a pretended device


def pretended_decoder(monkeypatch, machine):
    """Let every device have a decoder of hardware, which writes at once whatever is queued on its stream."""
    on_cpu = torchvision_jpeg_decoder("cpu")

    def of(device):
        gpu = machine.gpu(device)

        def decode_at_once(data):
            machine.order.require_idle(gpu)
            images = [machine.wrap(image, gpu) for image in on_cpu(data)]
            machine.order.ran(gpu, [], [image.allocation.use for image in images])
            return images

        return decode_at_once

    monkeypatch.setattr(hardware_jpeg, "torchvision_jpeg_decoder", of)


def embed_two_tasks(device):
    """Prepare two tasks of files by a device's decoder, and use the images on the stream of this thread."""
    method = decode_method.fast_decoders(device)[Decoder.GPU_JPEG]
    sums = []
    for files in (FILES[:4], FILES[4:]):
        together = method.prepare_together(files, P)
        assert sorted(together) == [0, 1, 2, 3]
        sums += [float(pixels.float().mean()) for pixels, _ in together.values()]
    return sums


def test_the_decoder_works_in_a_stream_of_its_own_behind_events(monkeypatch):
    """Nothing reads too early, no memory is handed out too early, and the decoder finds its stream empty."""
    with pretended_gpus(monkeypatch, 2) as machine:
        pretended_decoder(monkeypatch, machine)
        for device in ("cuda:0", "cuda:1"):
            sums = embed_two_tasks(device)
            expected = [float(fast_jpeg.prepare(data, P)[0].mean()) for data in FILES]
            assert sums == pytest.approx(expected, abs=0.2)
        assert [len(gpu.streams) for gpu in machine.gpus] == [2, 2]
        assert machine.counts["pageable_copies"] == machine.counts["peer_copies"] == 0


def do_not_wait_for_the_event(monkeypatch):
    """Use the images at once."""
    monkeypatch.setattr("tests.helpers.pretend_streams.PretendedStream.wait_event", lambda self, event: None)


def do_not_record_the_use(monkeypatch):
    """Free the images while the other stream may use them."""
    monkeypatch.setattr("tests.helpers.pretend_device.DeviceTensor.record_stream", lambda self, stream: None)


def do_not_empty_the_stream(monkeypatch):
    """Decode while the resize of the task before is queued."""
    monkeypatch.setattr("tests.helpers.pretend_cuda.StreamOfTorch.synchronize", lambda self: None)


def decode_on_the_streams_of_the_network(monkeypatch):
    """Decode where forward passes are queued, as torchvision does by itself."""
    monkeypatch.setattr(DecodeStream, "_run", lambda self, work: work())


@pytest.mark.parametrize(
    ("break_something", "fault"),
    [
        (do_not_wait_for_the_event, "reads what another one writes"),
        (do_not_record_the_use, "handed out again"),
        (do_not_empty_the_stream, "before the work that is queued"),
        (decode_on_the_streams_of_the_network, "before the work that is queued"),
    ],
)
def test_each_part_of_the_protection_is_needed(monkeypatch, break_something, fault):
    """Without it a real device would spoil images or vectors in silence."""

    def run():
        with pretended_gpus(monkeypatch) as machine:
            pretended_decoder(monkeypatch, machine)
            break_something(monkeypatch)
            with contextlib.suppress(DeviceFault):
                machine.order.ran(machine.gpus[0], [], [])  # a forward pass is queued
                method = decode_method.fast_decoders("cuda")[Decoder.GPU_JPEG]
                for files in (FILES[:4], FILES[4:]):
                    for pixels, _ in method.prepare_together(files, P).values():
                        pixels + 1

    with pytest.raises(DeviceFault, match=fault):
        run()


# ---- the comparison


class BusyNetwork:
    """A real network that says that it is on a GPU, whose vectors are spoiled while a decoder works."""

    def __init__(self, spoils):
        self.network = load(Recipe(TINY, random_init=True), device="cpu")
        self.space, self.device, self.spoils = self.network.space, "cuda:0", spoils
        self.decoding, self.decoded = threading.Event(), threading.Event()

    def encode_images(self, batch):
        vectors = self.network.encode_images(batch)
        if self.decoding.is_set() and not self.decoded.is_set():
            self.decoded.set()
            return -vectors if self.spoils else vectors
        return vectors

    def together(self, files, p):
        """Decode until a forward pass has run meanwhile."""
        self.decoding.set()
        assert self.decoded.wait(60), "no forward pass ran while the decoder did"
        return HardwareJpegs("cpu", torchvision_jpeg_decoder("cpu")).prepare_together(files, p)


@pytest.mark.parametrize("spoils", [False, True])
def test_the_decoder_is_compared_while_the_network_works(monkeypatch, spoils):
    """Its images may be right, and the vectors of what was computed beside it wrong: then it is refused."""
    network = BusyNetwork(spoils)
    way = DecodeMethod(Decoder.GPU_JPEG, GpuImagePreparer("cpu").prepare, together=network.together)
    monkeypatch.setattr(decode_method, "fast_decoders", lambda device: {Decoder.GPU_JPEG: way})
    if spoils:
        with pytest.raises(RuntimeMismatch, match="--decoder hardware gives other vectors than Pillow"):
            choose_decode_method(network, lambda: FILES, requested=Decoder.GPU_JPEG)
    else:
        chosen = choose_decode_method(network, lambda: FILES, requested=Decoder.GPU_JPEG)
        assert chosen.together is not None
        assert chosen.agreement.is_close
    assert network.decoded.is_set()
