"""An endpoint against the artefact in a loop: `python -m benchmarks.serving [--backbone NAME] [--out DIR]`.

Callers, one thread each, send one JPEG picture of 500 × 375 px a request, and the next as soon as the
response is there.

    loop            the artefact, loaded in this process, called with one picture at a time
    loop of 32      the same with 32 pictures a call: what joining requests can gain at most
    single          what `rll serve` starts, each request run by itself; by REST and by gRPC
    batched         with --batching, which the development server ignores: the same with
                    serving/config/batching.pbtxt, requests are joined on the server
    endpoint        instead of the last two, the server at RLL_SERVING_URL (REST) and RLL_SERVING_GRPC, as it
                    is; the loops then need RLL_SERVING_ARTEFACT, the folder of versions that it serves

`rll serve` starts TensorFlow Serving where it finds it, else the development server, which is written in
Python: its threads take turns at parsing requests, and it shares this machine's cores with the callers. The
first line printed is the server's own name for itself.

With --memory it measures something else: the peak of the server process while 32 callers send the largest
pictures that the limits allow, beside the bound that docs/serving.md states.

All take turns, so that what else the machine does hits all alike. Latencies are those of all turns' requests
together; a rate is the median of the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image

from benchmarks.memory import status_bytes
from rll_tf.data import Preprocessing
from rll_tf.models import embedding_model
from serving.artefact import Artefact
from serving.client import EmbeddingClient
from serving.export import export
from serving.guard import BYTES_A_PIXEL, LARGE_PIXELS, Limits
from serving.serve import CONFIG

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT, PICTURES = 500, 375, 64
CALLERS = (1, 8, 32)
JOINED = 32
SIZES_PX = {"convnet": 32, "inception_bn": 227}
START_S = 120

Call = Callable[[int], object]


def draw_pictures() -> list[bytes]:
    """JPEG files of smooth colours with noise, about 58 kB each."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, [12, 16, 3], np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=85)
        files.append(file.getvalue())
    return files


def drive(call: Call, callers: int, seconds: float) -> tuple[np.ndarray, float]:
    """Call from so many threads at once until the time is over, each thread at least once.

    Args:
        call: one request; takes a number that differs from call to call.
        callers: threads.
        seconds: no call begins later.

    Returns:
        The seconds of each call, and calls a second.
    """
    taken: list[list[float]] = [[] for _ in range(callers)]
    failures: list[BaseException] = []
    start = time.perf_counter()

    def work(caller: int) -> None:
        number = caller
        try:
            while not taken[caller] or (time.perf_counter() < start + seconds and not failures):
                began = time.perf_counter()
                call(number)
                taken[caller].append(time.perf_counter() - began)
                number += callers
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    elapsed = time.perf_counter() - start
    calls = np.concatenate([np.array(each) for each in taken])
    return calls, len(calls) / elapsed


@contextlib.contextmanager
def rll_serve(folder: Path, *options: str) -> Iterator[tuple[str, dict[str, str], int]]:
    """`rll serve` as a process: the line with which it starts, its addresses by transport, its number."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        rest, grpc = (each.getsockname()[1] for each in sockets)
    command = [sys.executable, "-m", "trainers.cli", "serve", str(folder)]
    ports = [f"--rest-port={rest}", f"--grpc-port={grpc}"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *ports, *options], cwd=ROOT, stderr=log)
        try:
            addresses = {"rest": f"http://127.0.0.1:{rest}", "grpc": f"grpc://127.0.0.1:{grpc}"}
            is_ready = wait_until_ready(addresses["rest"], process)
            log.seek(0)
            if not is_ready:
                raise RuntimeError(f"the server must be ready within {START_S} s; its log: {log.read()}")
            yield log.readline().removeprefix("rll serve: ").strip(), addresses, process.pid
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether a version was available before the time was over or the process ended."""
    with EmbeddingClient(url, attempts=1) as client:
        end = time.monotonic() + START_S
        while not client.is_ready():
            if process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.1)
    return True


def make_artefact(backbone: str, to: Path) -> Path:
    """An artefact of a network with random weights."""
    keras.utils.set_random_seed(0)
    px = SIZES_PX[backbone]
    model = embedding_model(backbone, input_shape=(px, px, 3))
    export(model, Preprocessing(px, px), to, {"recipe": "benchmark"})
    return to


Method = tuple[str, str, int, Call]  # server, transport, callers, one request


def endpoint_methods(
    server: str, addresses: dict[str, str], pictures: list[bytes], stack: contextlib.ExitStack
) -> list[Method]:
    """A client of an endpoint by each transport, for each number of callers; it sends nothing again."""
    name = os.environ.get("RLL_SERVING_MODEL", "rll_tf")
    methods: list[Method] = []
    for transport, address in addresses.items():
        client = EmbeddingClient(address, name, attempts=1, concurrency=max(CALLERS))

        def embed(number: int, client: EmbeddingClient) -> object:
            return client.embed([pictures[number % PICTURES]])

        stack.enter_context(client)
        methods += [
            (server, transport, callers, functools.partial(embed, client=client)) for callers in CALLERS
        ]
    return methods


def loop_methods(folder: Path, pictures: list[bytes]) -> list[Method]:
    """The artefact in this process."""
    artefact = Artefact(folder)
    joined = pictures[:JOINED]
    return [
        ("loop", "", 1, lambda number: artefact.embed([pictures[number % PICTURES]])),
        (f"loop of {JOINED}", "", 1, lambda _: artefact.embed(joined)),
    ]


def all_methods(
    backbone: str, batching: bool, pictures: list[bytes], stack: contextlib.ExitStack
) -> list[Method]:
    """Everything that is to be measured, its servers started; prints which servers they are."""
    url, grpc = os.environ.get("RLL_SERVING_URL"), os.environ.get("RLL_SERVING_GRPC")
    if url:
        print(f"measured: the endpoint {url}", flush=True)
        addresses = {"rest": url, **({"grpc": grpc} if grpc else {})}
        folder = os.environ.get("RLL_SERVING_ARTEFACT")
        loops = loop_methods(Path(folder), pictures) if folder else []
        return loops + endpoint_methods("endpoint", addresses, pictures, stack)
    artefact = make_artefact(backbone, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    methods = loop_methods(artefact, pictures)
    servers: dict[str, list[str]] = {"single": []}
    if batching:
        servers["batched"] = [f"--batching-parameters={CONFIG / 'batching.pbtxt'}"]
    for server, options in servers.items():
        what, addresses, _ = stack.enter_context(rll_serve(artefact, *options))
        print(f"{server}: {what}", flush=True)
        methods += endpoint_methods(server, addresses, pictures, stack)
    return methods


def measure(methods: list[Method], turns: int, seconds: float) -> list[dict[str, Any]]:
    """One row a method, in turns."""
    calls: list[list[np.ndarray]] = [[] for _ in methods]
    rates: list[list[float]] = [[] for _ in methods]
    for turn in range(-1, turns):  # one to warm up
        for index, (_, _, callers, call) in enumerate(methods):
            taken, rate = drive(call, callers, seconds if turn >= 0 else seconds / 4)
            if turn >= 0:
                calls[index].append(taken)
                rates[index].append(rate)
    return [
        row_of(method, np.concatenate(taken), float(np.median(rate)))
        for method, taken, rate in zip(methods, calls, rates, strict=True)
    ]


def row_of(method: Method, taken: np.ndarray, rate: float) -> dict[str, Any]:
    """Pictures a second, and percentiles of the calls' milliseconds."""
    server, transport, callers, _ = method
    p50, p99 = (1000 * float(each) for each in np.percentile(taken, [50, 99]))
    pictures = JOINED if server == f"loop of {JOINED}" else 1
    return {
        "server": server,
        "transport": transport,
        "callers": callers,
        "calls": len(taken),
        "pictures_per_second": rate * pictures,
        "p50_ms": p50,
        "p99_ms": p99,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """As Markdown."""
    loop = next((row["pictures_per_second"] for row in rows if row["server"] == "loop"), None)
    print("| server | transport | callers | calls | pictures/s | of the loop's | p50, ms | p99, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        share = "" if loop is None else f"{row['pictures_per_second'] / loop:.2f}"
        print(
            f"| {row['server']} | {row['transport']} | {row['callers']} | {row['calls']} "
            f"| {row['pictures_per_second']:.1f} | {share} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} |"
        )


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Pictures a second and both percentiles against callers; the artefact in a loop as level lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "pictures_per_second": "pictures a second",
        "p50_ms": "latency, median, ms",
        "p99_ms": "latency, 99th percentile, ms",
    }
    servers = dict.fromkeys(row["server"] for row in rows if row["transport"])
    colors = {server: f"C{index}" for index, server in enumerate(servers)}
    figure, all_axes = pyplot.subplots(1, 3, figsize=(11, 4.2), constrained_layout=True)
    for axes, (key, title) in zip(all_axes, panels.items(), strict=True):
        lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            lines.setdefault((row["server"], row["transport"]), []).append(row)
        for (server, transport), points in lines.items():
            values = [point[key] for point in points]
            if not transport:
                axes.axhline(values[0], color="0.5", ls="-" if server == "loop" else ":", label=server)
                continue
            axes.plot(
                [point["callers"] for point in points],
                values,
                color=colors[server],
                ls="-" if transport == "rest" else "--",
                marker="o" if transport == "rest" else "s",
                label=f"{server}, {'REST' if transport == 'rest' else 'gRPC'}",
            )
        axes.set(xscale="log", xlabel="callers", title=title, ylim=(0, None))
        axes.set_xticks(CALLERS, [str(count) for count in CALLERS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def largest_pictures() -> list[bytes]:
    """Files of 64 million pixels each, of the kinds that take most memory, and one that is just not large."""
    side, small = math.isqrt(Limits().max_pixels), math.isqrt(LARGE_PIXELS)
    files = []
    for mode, px in (("CMYK", side), ("RGB", side), ("RGB", small)):
        file = io.BytesIO()
        Image.new(mode, (px, px)).save(file, "jpeg", progressive=True, subsampling=0)
        files.append(file.getvalue())
    return files


def measure_memory(backbone: str, seconds: float) -> None:
    """Print the server's memory before, its peak, and the bound."""
    callers = max(CALLERS)
    with contextlib.ExitStack() as stack:
        artefact = make_artefact(backbone, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        what, addresses, process = stack.enter_context(rll_serve(artefact))
        client = stack.enter_context(EmbeddingClient(addresses["rest"], concurrency=callers))
        before, pictures = status_bytes("VmRSS", process), largest_pictures()
        print(f"measured: {what}", flush=True)
        # Every request has several pictures.
        batches = [[pictures[number % 3]] * (4 if number % 3 == 2 else 2) for number in range(callers)]
        taken, _ = drive(lambda number: client.embed(batches[number % callers]), callers, seconds)
        peak = status_bytes("VmHWM", process)
    decoding = BYTES_A_PIXEL * (Limits().max_pixels + callers * LARGE_PIXELS)
    bodies = 5 * callers * max(sum(map(len, batch)) for batch in batches) * 4 // 3
    before, peak, decoding, bodies = (each // 2**20 for each in (before, peak, decoding, bodies))
    print(f"{len(taken)} requests of {callers} callers; before {before} MB, peak {peak} MB")
    print(
        f"bound: {before} + {decoding} for decoding + {bodies} for bodies = {before + decoding + bodies} MB"
    )


def main() -> None:
    """Measure, print one table, write it as JSON and draw it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", choices=SIZES_PX, default="convnet")
    parser.add_argument("--batching", action="store_true", help="also with requests joined on the server")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each method in each turn")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--memory", action="store_true", help="the server's peak instead")
    given = parser.parse_args()
    if given.memory:
        measure_memory(given.backbone, given.seconds)
        return
    with contextlib.ExitStack() as stack:
        methods = all_methods(given.backbone, given.batching, draw_pictures(), stack)
        rows = measure(methods, given.turns, given.seconds)
    print_table(rows)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "serving.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    plot(rows, given.out / "serving.png")
    print(f"written: {given.out / 'serving.json'}, {given.out / 'serving.png'}")


if __name__ == "__main__":
    main()
