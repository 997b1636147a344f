"""Count the PGGAN's images a second on a GPU: eager, as a CUDA graph, and compiled.

python benchmarks/gpu.py [resolution [batch ...]]. Random weights of the published size. Float32
without TF32, as the app sets it, and with; bfloat16; a plain transcription beside them in the same
rounds, which alternate. Times are those of CUDA events, without the copy to the processor.
"""

import statistics
import sys

import torch
from generators import draw_weights, plain_forward, plain_prepare

from hyper_bids.generators import pggan

BATCHES = (1, 4, 16)
ROUNDS, REPEATS = 5, 10


def as_graph(function):
    """Return a function that records the kernels of one when first called, then replays them."""
    kept = []

    def record(latents):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                function(latents)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            images = function(latents)
        kept.extend((graph, images))

    def replay(latents):
        if not kept:
            record(latents)
        kept[0].replay()
        return kept[1]

    return replay


def with_tf32(function):
    """Return the function with TF32 in its convolutions; the app leaves it off."""

    def run(latents):
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            return function(latents)

    return run


def build_rows(weights):
    """Return the function of each row, from latents to the network's output."""
    plain = plain_prepare(weights)
    rows = {"plain, float32": lambda z: plain_forward(plain, z)}
    for precision in pggan.PRECISIONS:
        ready = pggan.prepare(weights, precision)

        def eager(z, ready=ready):
            return pggan.forward(ready, z)

        rows[precision] = eager
        rows[f"{precision}, CUDA graph"] = as_graph(eager)
        rows[f"{precision}, compiled"] = torch.compile(eager, dynamic=False)
        rows[f"{precision}, compiled, graph"] = torch.compile(eager, mode="reduce-overhead")
        if precision == "float32":
            rows["float32, TF32"] = with_tf32(eager)
    return rows


def milliseconds(function, latents):
    """Return the time of one call, averaged over some."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPEATS):
        function(latents)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / REPEATS


def warm_up(rows, latents):
    """Run every row, drop with a message those that fail, and return the images of the others."""
    images = {}
    for name, function in list(rows.items()):
        try:
            for _ in range(3):
                # A compiled row hands out memory that its next call overwrites.
                images[name] = function(latents).add(1).mul(0.5).clamp(0, 1)
        except Exception as error:
            print(f"       {name:28} failed: {str(error).splitlines()[0][:90]}")
            del rows[name]
    return images


def report(batch, weights, n_latents):
    """Print the table of one batch size."""
    torch.compiler.reset()
    latents = torch.randn((batch, n_latents), device="cuda")
    rows = build_rows(weights)
    images = warm_up(rows, latents)
    times = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, function in rows.items():
            times[name].append(milliseconds(function, latents))
    plain = statistics.median(times["plain, float32"])
    for name, values in times.items():
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        rows[name](latents)
        peak = (torch.cuda.max_memory_allocated() - held) / 2**20
        median = statistics.median(values)
        difference = (images[name] - images["plain, float32"]).abs()
        print(
            f"{batch:5}  {name:28}{1000 * batch / median:10.1f}{median / batch:10.2f}"
            f"{plain / median:8.2f}{difference.max():10.1e}{255 * difference.mean():10.4f}"
            f"{peak:9.0f}"
        )


def main(resolution, batches):
    """Print the tables, or why there are none."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: PyTorch sees no GPU here; nothing was timed.")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    architecture = pggan.Architecture(resolution)
    weights = {name: tensor.to("cuda") for name, tensor in draw_weights(architecture).items()}
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {resolution} pixels")
    print(f"bfloat16 in this GPU: {pggan.native_bfloat16('cuda')}")
    print(
        f"{'batch':5}  {'':28}{'images/s':>10}{'ms/image':>10}{'times':>8}"
        f"{'max diff':>10}{'mean*255':>10}{'peak MB':>9}"
    )
    for batch in batches:
        report(batch, weights, architecture.n_latents)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    with torch.inference_mode():
        main(given[0] if given else 1024, given[1:] or BATCHES)
