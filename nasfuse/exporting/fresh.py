"""What an exported folder answers: run by path in an isolated interpreter, in another folder.

    python -I fresh.py FOLDER REQUEST

Nothing of nasfuse can be imported in it. The folder REQUEST holds `request.json` and `images.pt`,
and gets `answer.pt`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

WARM_UP, RUNS = 10, 100  # of a measurement of latency, batch 1
BATCH = 64  # images at once, where classes are asked for
GRACE = 5  # seconds between being asked to end and being ended
Answer = Callable[[Tensor], Tensor]


def of_python(folder: Path) -> Answer:
    import model  # type: ignore[import-not-found]

    del folder
    network: Answer = model.load()
    return network


def of_pt2(folder: Path) -> Answer:
    network: Answer = torch.export.load(folder / "model.pt2").module()
    return network


def of_onnx(folder: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    return lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])


def of_hf(folder: Path) -> Answer:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import model
    from huggingface_hub import PyTorchModelHubMixin

    hub: Any = type("Hub", (model.Network, PyTorchModelHubMixin), {})
    network: Answer = hub.from_pretrained(folder)
    return network


def of_mlflow(folder: Path) -> Answer:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    loaded = mlflow.pyfunc.load_model(str(folder / "mlflow"))
    return lambda x: torch.as_tensor(loaded.predict(x.numpy()))


def of_openvino(folder: Path) -> Answer:
    import openvino

    # without the hint it computes in bfloat16 where the processor can, and differs by 3e-4
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    return lambda x: torch.from_numpy(compiled({"images": x.numpy()})["logits"].copy())


def of_executorch(folder: Path) -> Answer:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(folder / "model.pte").load_method("forward")
    return lambda x: method.execute([x.contiguous()])[0].clone()


LOADERS = {
    "python": of_python,
    "pt2": of_pt2,
    "onnx": of_onnx,
    "hf": of_hf,
    "mlflow": of_mlflow,
    "openvino": of_openvino,
    "executorch": of_executorch,
}


@torch.inference_mode()
def predictions(answer: Answer, images: Tensor) -> Tensor:
    """The class of each raw image, by the preprocessing that was exported."""
    import model

    found = [answer(model.normalise(part)).argmax(1) for part in torch.split(images, BATCH)]
    return torch.cat(found)


@torch.inference_mode()
def latency(answer: Answer, image: Tensor) -> dict[str, float]:
    """Milliseconds for one image on one thread: the median and the 90th percentile."""
    times = []
    for _ in range(WARM_UP + RUNS):
        began = time.perf_counter()
        answer(image)
        times.append(1e3 * (time.perf_counter() - began))
    kept = times[WARM_UP:]
    return {"median": statistics.median(kept), "p90": statistics.quantiles(kept, n=10)[8]}


def limit(seconds: int, memory: int) -> None:
    """Let the system end this process where it takes more: CPU-seconds of each core, and bytes.

    Only Linux is told: others do not hold a process to its address space, or not dependably.
    """
    if sys.platform != "linux":
        return
    import resource

    cpu = seconds * (os.cpu_count() or 1)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + GRACE),
        (resource.RLIMIT_AS, taken + memory, taken + memory),
    ):
        most = resource.getrlimit(what)[1]
        if most == resource.RLIM_INFINITY or hard <= most:
            resource.setrlimit(what, (soft, hard))


def main(folder: Path, elsewhere: Path) -> None:
    """Answer the request."""
    request = json.loads((elsewhere / "request.json").read_text(encoding="utf-8"))
    limit(request["seconds"], request["memory"])
    given: dict[str, Any] = torch.load(elsewhere / "images.pt", weights_only=True)
    answers = {name: LOADERS[name](folder) for name in request["formats"]}
    found: dict[str, Any] = {"outputs": {}, "predictions": {}, "latency": {}}
    with torch.inference_mode():
        for name, answer in answers.items():
            found["outputs"][name] = {n: answer(x) for n, x in given["random"].items()}
        network: Any = answers["python"]
        with FlopCounterMode(display=False) as counter:
            network(given["random"]["1"])
    found["macs"] = counter.get_total_flops() // 2
    found["params"] = sum(parameter.numel() for parameter in network.parameters())
    if given["raw"] is not None:
        for name, answer in answers.items():
            found["predictions"][name] = predictions(answer, given["raw"])
    if request["latency"]:
        for name, answer in answers.items():
            found["latency"][name] = latency(answer, given["random"]["1"])
    torch.save(found, elsewhere / "answer.pt")


if __name__ == "__main__":
    sys.modules["nasfuse"] = None  # type: ignore[assignment]  # importing it is an error from here
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[1])
    main(Path(sys.argv[1]), Path(sys.argv[2]))
