"""Every shipped architecture on a fake CUDA device: a forward pass stays there and has the registered dimension.

Fake tensors (``torch._subclasses``) have a device and a shape and no numbers, so that the largest network costs nothing
but the walk through its code. They refuse operands on different devices, as CUDA does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import open_clip
import pytest
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from embedstore.backbones import list_backbones
from embedstore.backbones.registry import BackboneInfo

QUICK = ("resnet50", "mobilenetv3_large_100", "vit_base_patch16_224", "convnext_tiny", "swin_tiny_patch4_window7_224")
RECURRENT = "sequencer"  # torch gives the weights of an LSTM to cuDNN as soon as they are on CUDA
MAX_REAL_PARAMETERS = 200_000_000  # of a network that is built with its weights


def architectures(library: str) -> dict[str, list[BackboneInfo]]:
    """Return one row per architecture and input size, by family."""
    rows = {}
    for info in list_backbones():
        if info.name.startswith(f"{library}/"):
            rows[_architecture(info), info.input_size] = info
    families = defaultdict(list)
    for info in rows.values():
        families[info.family].append(info)
    return dict(sorted(families.items()))


def _architecture(info: BackboneInfo) -> str:
    """Return the name without library and tag."""
    return info.name.partition("/")[2].partition(":")[0].partition(".")[0]


def build(create: Callable[[], nn.Module], parameters: int) -> nn.Module:
    """Return a network without memory for its weights, or a small one with it if it is built from numbers."""
    try:
        with torch.device("meta"):
            return create()
    except (RuntimeError, NotImplementedError):
        if parameters > MAX_REAL_PARAMETERS:
            pytest.skip("it needs numbers while it is built, and is too large for that")
        return create()


def on_cuda(module: nn.Module) -> nn.Module:
    """Return the network with all parameters and buffers on the fake device, where ``module.to`` puts real ones."""
    for part in module.eval().modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(fake_like(parameter), requires_grad=False)
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else fake_like(buffer)
    return module


def fake_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the fake device with the shape and type of another."""
    return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device="cuda")


def forward_timm(info: BackboneInfo) -> torch.Tensor:
    """Return the features of one image, normalized on the device."""
    config = timm.get_pretrained_cfg(info.name.partition("/")[2])
    arguments = {"img_size": config.input_size[1:]} if config.fixed_input_size else {}
    module = build(lambda: timm.create_model(_architecture(info), num_classes=0, **arguments), info.parameters)
    with fake_cuda():
        return on_cuda(module)(normalized(config.input_size[1:]))


def forward_open_clip(info: BackboneInfo) -> torch.Tensor:
    """Return the image's vector; the text's must stay on the device too."""
    load = partial(open_clip.create_model, load_weights=False, pretrained_text=False)
    module = build(lambda: load(_architecture(info), device="meta"), info.parameters or 0)
    length = getattr(module, "context_length", 77)
    with fake_cuda():
        text = on_cuda(module).encode_text(torch.ones((1, length), dtype=torch.long, device="cuda"))
        assert text.device.type == "cuda"
        return module.encode_image(normalized(open_clip.transform.to_2tuple(module.visual.image_size)))


def normalized(size: tuple[int, int]) -> torch.Tensor:
    """Return one image as a backbone normalizes it."""
    pixels = torch.zeros((1, 3, *size), dtype=torch.uint8, device="cuda")
    half = torch.full((1, 3, 1, 1), 0.5, device="cuda")
    return (pixels.float() / 255 - half) / half


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Enter the mode of fake tensors, and half precision as if the machine had a CUDA device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        half_precision = torch.autocast("cuda", dtype=torch.float16)
    with FakeTensorMode(), half_precision, torch.no_grad():
        yield


def fault_of(info: BackboneInfo, forward: Callable[[BackboneInfo], torch.Tensor]) -> str:
    """Return what is wrong with an architecture on CUDA, or ""."""
    try:
        out = forward(info)
    except Exception as error:
        return f"{info.name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    if out.device.type != "cuda" or tuple(out.shape) != (1, info.dim):
        return f"{info.name}: {tuple(out.shape)} on {out.device}, not (1, {info.dim}) on cuda"
    return ""


@pytest.mark.parametrize("name", QUICK)
def test_a_common_architecture_stays_on_its_device(name):
    """The five that are used most."""
    (info, *_) = (b for b in list_backbones() if b.name.startswith(f"timm/{name}."))
    assert fault_of(info, forward_timm) == ""


def test_an_operand_on_the_cpu_is_a_fault():
    """A network that makes a tensor on the CPU in its forward pass is noticed."""
    info = list_backbones("resnet50")[0]

    def broken(_: BackboneInfo) -> torch.Tensor:
        with fake_cuda():
            return normalized((8, 8)) + torch.ones(8, 8)

    def misshapen(_: BackboneInfo) -> torch.Tensor:
        with fake_cuda():
            return normalized((8, 8))

    assert "tensors to be on the same device" in fault_of(info, broken)
    assert f"not (1, {info.dim}) on cuda" in fault_of(info, misshapen)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", [family for family in architectures("timm") if family != RECURRENT])
def test_every_architecture_of_a_family_stays_on_its_device(family):
    """Once for every input size."""
    assert [fault for info in architectures("timm")[family] if (fault := fault_of(info, forward_timm))] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", architectures("open_clip"))
def test_every_open_clip_network_stays_on_its_device(family):
    """Both towers; a text tower that has to be downloaded is left out."""
    faults = [fault_of(info, forward_open_clip) for info in architectures("open_clip")[family]]
    assert [f for f in faults if f and "huggingface" not in f and "offline" not in f.lower()] == []
