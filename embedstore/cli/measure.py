"""The verb that measures this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.quickstart.bench_result import BenchResult


@app.command(rich_help_panel=Panel.MEASURE)
def bench(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Your images; by default generated ones.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="The architecture to measure, with random weights.")] = (
        "timm/resnet50"
    ),
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    max_images: Annotated[int, typer.Option(min=1, help="Use at most this many images of the folder.")] = 256,
    seconds_per_stage: Annotated[float, typer.Option(min=0.1, help="Measure each stage this long.")] = 5.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; by default one per core, if memory allows.")
    ] = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    as_json: o.Json = False,
) -> None:
    """Measure how fast this machine embeds: each stage alone, all together, and which one is the bottleneck.

    `embedstore bench photos --backbone timm/mobilenetv2_100`
    """
    from embedstore.backbones.runtimes.runtime import parse_runtime
    from embedstore.quickstart import bench as b
    from embedstore.quickstart.bench_result import BenchSettings

    settings = BenchSettings(
        backbone,
        o.parse_assignments(backbone_arg, "--backbone-arg"),
        o.parse_assignments(preprocess, "--preprocess"),
        max_images=max_images,
        seconds_per_stage=seconds_per_stage,
        threads=threads,
        device=device,
        precision=precision,
        runtime=parse_runtime(runtime),
    )
    result = b.run(folder, settings, console.print_note)
    console.print_json(result.to_json()) if as_json else _print(result)


def _print(r: BenchResult) -> None:
    """Print the rates as a table."""
    rows: list[tuple[Any, ...]] = [("reading", r.read_rate, f"{r.threads} threads")]
    for decoder, rate in r.decode_rates.items():
        megapixels = f"{r.mean_pixels / 1e6:.2f} megapixels"
        rows.append((f"decoding, {decoder}", rate, f"{r.threads} threads, {megapixels}{_failed(r)}"))
    for n in r.runtimes:
        note = n.error or ("" if n.min_cosine is None else f"least cosine to eager {n.min_cosine:.6f}")
        rows.append((f"network, {n.runtime}", n.images_per_second, note))
    rows.append(("writing", r.write_rate, "vectors/s"))
    rows.append(("limit", r.expected_rate, f"of {r.decoder} and the fastest network together"))
    share = f"{r.end_to_end_rate / r.expected_rate:.2f} of the limit"
    rows.append(("end to end", r.end_to_end_rate, f"{r.decoder}, {r.runtime}, {share}"))
    console.print_line(f"{r.backbone} on {r.device}, {r.precision}, {r.cores} cores, {counted(r.images, 'image')}")
    console.print_table(("stage", "images/s", ""), [(name, round(rate, 1), note) for name, rate, note in rows])
    rates = ", ".join(f"{size}: {rate:.0f}/s" for size, rate in r.rate_by_batch_size.items())
    console.print_line(f"batch size: {r.batch_size} is enough ({rates})")
    console.print_line(r.bottleneck)


def _failed(r: BenchResult) -> str:
    return f"; {counted(r.failed, 'file')} failed" if r.failed else ""
