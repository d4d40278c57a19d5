"""Tests of `service.engine.torch_engine`."""

import copy
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from service.config import SHIPPED
from service.engine.errors import EngineError
from service.engine.torch_engine import TorchEngine, fold_batch_norm
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS
from training.model.manifest import InputSpec, Manifest, NetworkConfig
from training.model.network import AttentionFER
from training.model.preprocess import normalise

pytestmark = pytest.mark.cpu


def some_faces(count: int, side: int = 48) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


def lived_in(network: AttentionFER) -> AttentionFER:
    """Give batch norms and the STN's head values that no fresh network has."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                assert isinstance(tensor, torch.Tensor)
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                assert isinstance(tensor, torch.Tensor)
                tensor.data.normal_(0, 0.2, generator=generator)
    if network.stn is not None:
        network.stn.head.weight.data.normal_(0, 0.05, generator=generator)
    return network.eval().requires_grad_(False)


def build_checkpoint(config: NetworkConfig, **manifest: Any) -> Checkpoint:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = lived_in(AttentionFER(config))
    emotions = FER2013_EMOTIONS if config.classes == 7 else FERPLUS_EMOTIONS
    return Checkpoint(network, Manifest("test", "0", config, emotions, **manifest))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return build_checkpoint(NetworkConfig(widths=(8, 16), depths=(1, 1)))


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint) -> TorchEngine:
    return TorchEngine(checkpoint, "cpu", max_batch=4, threads=1)


@pytest.mark.parametrize(
    ("stn", "channel", "spatial", "activation", "transform"),
    [
        *itertools.product(
            (True, False), (True, False), (True, False), ("gelu", "relu"), ("similarity",)
        ),
        (True, True, True, "gelu", "affine"),
    ],
)
def test_folding_changes_nothing(
    stn: bool, channel: bool, spatial: bool, activation: Any, transform: Any
) -> None:
    config = NetworkConfig(
        widths=(8, 16),
        depths=(1, 2),
        stn=stn,
        channel_attention=channel,
        spatial_attention=spatial,
        activation=activation,
        transform=transform,
    )
    checkpoint = build_checkpoint(config)
    engine = TorchEngine(checkpoint, "cpu", threads=1)
    # The checkpoint stays as it was.
    assert any(isinstance(m, nn.BatchNorm2d) for m in checkpoint.network.modules())
    faces = some_faces(3)
    with torch.inference_mode():
        images = normalise(torch.from_numpy(faces), checkpoint.manifest.input_spec)
        expected = checkpoint.network(images).logits
        folded = fold_batch_norm(copy.deepcopy(checkpoint.network).eval())
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        torch.testing.assert_close(folded(images).logits, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(engine.infer(faces), expected.softmax(1).numpy(), atol=1e-5)


def test_folding_is_generic_over_neighbours() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=True),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 2, 1),
        nn.GELU(),
        nn.BatchNorm2d(2),  # after an activation: not to be folded
        nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3)),
    )
    images = torch.randn(4, 1, 6, 6)
    network(images)  # running statistics that are not 0 and 1
    expected = network.eval()(images)
    folded = fold_batch_norm(network)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 1
    torch.testing.assert_close(folded(images), expected, atol=1e-5, rtol=1e-5)


def test_probabilities(engine: TorchEngine) -> None:
    probabilities = engine.infer(some_faces(5))
    assert isinstance(probabilities, np.ndarray)
    assert probabilities.shape == (5, 7)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    assert len(np.unique(probabilities.argmax(axis=1) * 10 + probabilities[:, 0])) > 1


def test_a_face_does_not_see_its_neighbours(engine: TorchEngine) -> None:
    faces = some_faces(6)
    together = engine.infer(faces)
    alone = np.concatenate([engine.infer(faces[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_answer_is_the_callers_to_keep(engine: TorchEngine) -> None:
    first = engine.infer(some_faces(2))
    before = first.copy()
    engine.infer(255 - some_faces(2))
    np.testing.assert_array_equal(first, before)
    first[0, 0] = 0.5  # and to write to


def test_the_temperature_is_applied(checkpoint: Checkpoint) -> None:
    config = checkpoint.manifest.network
    faces = some_faces(3)
    cool, warm = (
        TorchEngine(build_checkpoint(config, temperature=t), "cpu").infer(faces) for t in (1.0, 2.5)
    )
    expected = torch.softmax(torch.from_numpy(cool).log() / 2.5, dim=1).numpy()
    np.testing.assert_allclose(warm, expected, atol=1e-5)


def test_other_sizes_and_classes() -> None:
    config = NetworkConfig(classes=8, widths=(8,), depths=(1,))
    spec = InputSpec(height=32, width=40)
    engine = TorchEngine(build_checkpoint(config, input_spec=spec), "cpu")
    assert engine.infer(np.zeros((2, 32, 40), np.uint8)).shape == (2, 8)


def test_a_saved_checkpoint_is_served(random_checkpoint: Path) -> None:
    engine = TorchEngine(load_checkpoint(random_checkpoint), "cpu", max_batch=2)
    assert engine.manifest.emotions == FER2013_EMOTIONS
    assert engine.infer(some_faces(1)).shape == (1, 7)


@pytest.mark.parametrize(
    "make",
    [
        lambda faces: faces[:, ::-1, ::-1],
        lambda faces: np.frombuffer(faces.tobytes(), np.uint8).reshape(faces.shape),
    ],
    ids=["not contiguous", "read-only"],
)
def test_any_array_will_do(engine: TorchEngine, make: Any) -> None:
    faces = make(some_faces(2))
    np.testing.assert_array_equal(engine.infer(faces), engine.infer(faces.copy()))


def test_no_faces(engine: TorchEngine) -> None:
    assert engine.infer(np.zeros((0, 48, 48), np.uint8)).shape == (0, 7)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 47, 48), np.uint8),
        np.zeros((48, 48), np.uint8),
        np.zeros((1, 48, 48), np.float32),
    ],
)
def test_other_faces_are_refused(engine: TorchEngine, wrong: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected uint8\[n, 48, 48\]"):
        engine.infer(wrong)


def test_warming_times_batches_up_to_the_limit(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = engine.infer

    def recording(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(faces))
        return original(faces)

    monkeypatch.setattr(engine, "infer", recording)
    seconds = engine.warm()
    assert sizes[:6] == [1, 2, 4, 1, 2, 4]
    assert set(sizes) == seconds.keys()
    assert min(seconds.values()) > 0


def test_without_kernels_the_network_runs_as_it_is(
    checkpoint: Checkpoint, engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.torch_engine.kernels", lambda: None)
    plain = TorchEngine(checkpoint, "cpu")
    np.testing.assert_allclose(plain.infer(some_faces(3)), engine.infer(some_faces(3)), atol=1e-5)


@pytest.mark.parametrize(("threads", "clock"), [(1, time.thread_time), (2, time.perf_counter)])
def test_what_other_processes_do_does_not_count_where_one_thread_computes(
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    clock: Callable[[], float],
) -> None:
    clocks: list[object] = []
    monkeypatch.setattr(
        "service.engine.torch_engine.batch_seconds", lambda *a: clocks.append(a[-1])
    )
    before = torch.get_num_threads()
    try:
        TorchEngine(checkpoint, "cpu", threads=threads).warm()
    finally:
        torch.set_num_threads(before)
    assert clocks == [clock]


PROGRAM = """
import json
from service.config import SHIPPED
from service.engine.torch_engine import TorchEngine
from tests.service.engine.test_torch_engine import some_faces
from training.model.checkpoint import load_checkpoint
engine = TorchEngine(load_checkpoint(SHIPPED["fer2013"]), "cpu", threads=1)
print(json.dumps([engine.precision, engine.infer(some_faces(3)).tolist()]))
"""


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"ONEDNN_MAX_CPU_ISA": "AVX2"}, marks=pytest.mark.slow),
        pytest.param({"ATEN_CPU_CAPABILITY": "avx2"}, marks=pytest.mark.slow),
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    ],
    ids=lambda environment: " ".join(f"{name}={value}" for name, value in environment.items()),
)
def test_it_starts_and_answers_alike_with_any_instructions(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    precision, found = json.loads(done.stdout)
    assert precision == "float32"
    here = TorchEngine(load_checkpoint(SHIPPED["fer2013"]), "cpu", threads=1)
    np.testing.assert_allclose(found, here.infer(some_faces(3)), atol=1e-5)


@pytest.mark.parametrize("sizes", [{"max_batch": 0}, {"threads": 0}])
def test_sizes_are_checked(checkpoint: Checkpoint, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        TorchEngine(checkpoint, "cpu", **sizes)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "mps", "cpu:0"])
def test_an_unknown_device_is_refused(checkpoint: Checkpoint, device: str) -> None:
    with pytest.raises(EngineError, match="expected auto, cpu, cuda or cuda:N"):
        TorchEngine(checkpoint, device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_is_refused_where_there_is_none(
    checkpoint: Checkpoint, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no CUDA device was found"):
        TorchEngine(checkpoint, device)
    assert TorchEngine(checkpoint, "auto").device == "cpu"


def test_a_device_beyond_the_last_is_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EngineError, match="there are 2: 0 to 1"):
        TorchEngine(checkpoint, "cuda:2")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this host")
def test_cuda_answers_as_the_cpu_does(checkpoint: Checkpoint) -> None:
    on_gpu = TorchEngine(checkpoint, "auto", max_batch=8)
    assert on_gpu.device == "cuda:0"
    on_gpu.warm()
    faces = some_faces(8)
    expected = TorchEngine(checkpoint, "cpu").infer(faces)
    # Convolutions round their inputs to TF32, ten bits of mantissa.
    np.testing.assert_allclose(on_gpu.infer(faces), expected, atol=5e-3)
