"""Tests of `service.engine.cuda.engine` and `cuda_graphs`: what is CUDA's own needs a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.engine.cuda.engine import CudaEngine, bound_memory, can_record, convert
from service.engine.cuda.graphs import IN_FLIGHT, probabilities_of
from service.engine.errors import EngineError
from service.engine.torch_engine import TorchEngine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import NetworkConfig
from training.model.network import AttentionFER

on_gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this host")


@pytest.fixture
def checkpoint(random_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(random_checkpoint)


def random_faces(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 48, 48), np.uint8)


# On any host.


def test_what_a_graph_records_is_what_the_engine_computes(checkpoint: Checkpoint) -> None:
    faces, manifest = random_faces(5), checkpoint.manifest
    got = probabilities_of(
        checkpoint.network, torch.from_numpy(faces), manifest.input_spec, 1.0, torch.float32
    )
    expected = TorchEngine(checkpoint, "cpu").infer(faces)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_padding_changes_no_answer(checkpoint: Checkpoint) -> None:
    spec = checkpoint.manifest.input_spec

    def answers(faces: np.ndarray) -> torch.Tensor:
        return probabilities_of(
            checkpoint.network, torch.from_numpy(faces), spec, 1.0, torch.float32
        )

    padded = np.concatenate([random_faces(3), random_faces(5, seed=1)])
    torch.testing.assert_close(answers(padded)[:3], answers(random_faces(3)))


def test_converted_weights_give_what_autocast_gives(checkpoint: Checkpoint) -> None:
    network, spec = checkpoint.network, checkpoint.manifest.input_spec
    converted = convert(network, torch.bfloat16)
    assert next(network.parameters()).dtype == torch.float32
    assert {p.dtype for p in converted.stem.parameters()} >= {torch.bfloat16}
    faces = torch.from_numpy(random_faces(4))
    by_weights, by_autocast = (
        probabilities_of(each, faces, spec, 1.0, torch.bfloat16) for each in (converted, network)
    )
    assert by_weights.dtype == torch.float32
    torch.testing.assert_close(by_weights, by_autocast)


@pytest.mark.parametrize(
    ("config", "can"),
    [
        (NetworkConfig(widths=(8,), depths=(1,)), True),
        (NetworkConfig(widths=(8,), depths=(1,), stn=False), True),
        (NetworkConfig(widths=(8,), depths=(1,), transform="affine"), False),
    ],
)
def test_a_free_transform_is_not_recorded(config: NetworkConfig, can: bool) -> None:
    assert can_record(AttentionFER(config)) is can


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_the_engine_says_so(checkpoint: Checkpoint) -> None:
    bound_memory("cuda:1", 0.5)
    with pytest.raises(EngineError, match="no CUDA device was found"):
        CudaEngine(checkpoint, "cuda")


# On a GPU.


@pytest.fixture
def engine(checkpoint: Checkpoint) -> CudaEngine:
    return CudaEngine(checkpoint, "cuda:0", max_batch=9, precision="float32")


@on_gpu
@needs_gpu
def test_graphs_answer_as_a_cpu_does_at_every_size(
    engine: CudaEngine, checkpoint: Checkpoint
) -> None:
    reference = TorchEngine(checkpoint, "cpu")
    for count in (*range(10), 20):
        faces = random_faces(count, seed=count)
        # TF32, if the host's torch has it on, keeps ten bits.
        np.testing.assert_allclose(engine.infer(faces), reference.infer(faces), atol=2e-3)


@on_gpu
@needs_gpu
def test_two_batches_are_in_flight_and_no_third(engine: CudaEngine) -> None:
    batches = [random_faces(count, seed=count) for count in (3, 9, 5)]
    expected = [engine.infer(faces) for faces in batches]
    first, second = engine.begin(batches[0]), engine.begin(batches[1])
    with pytest.raises(RuntimeError, match="more batches were begun"):
        engine.begin(batches[2])
    np.testing.assert_array_equal(first(), expected[0])
    np.testing.assert_array_equal(engine.infer(batches[2]), expected[2])
    np.testing.assert_array_equal(second(), expected[1])


@on_gpu
@needs_gpu
def test_answers_are_the_callers_to_keep(engine: CudaEngine) -> None:
    kept = engine.infer(random_faces(4))
    before = kept.copy()
    for seed in range(2 * IN_FLIGHT):
        engine.infer(random_faces(4, seed=seed + 1))
    np.testing.assert_array_equal(kept, before)


@on_gpu
@needs_gpu
def test_explanations_come_while_a_batch_is_begun(engine: CudaEngine) -> None:
    faces, emotions = random_faces(4), np.arange(4)
    expected, alone = engine.infer(faces), engine.explain(faces, emotions)
    finish = engine.begin(faces)
    for one, other in zip(engine.explain(faces, emotions), alone, strict=True):
        np.testing.assert_allclose(one.evidence, other.evidence, atol=1e-4)
    np.testing.assert_array_equal(finish(), expected)


@on_gpu
@needs_gpu
def test_bfloat16_answers_nearly_the_same(checkpoint: Checkpoint) -> None:
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    half = CudaEngine(checkpoint, "cuda:0", max_batch=8)
    assert half.precision == "bfloat16"
    faces = random_faces(8)
    expected = TorchEngine(checkpoint, "cpu").infer(faces)
    np.testing.assert_allclose(half.infer(faces), expected, atol=0.03)


@on_gpu
@needs_gpu
def test_too_little_memory_is_said_by_the_settings_name(checkpoint: Checkpoint) -> None:
    try:
        with pytest.raises(EngineError, match="raise FER_GPU_MEMORY"):
            CudaEngine(checkpoint, "cuda:0", max_batch=1024, memory_share=1e-4)
    finally:
        bound_memory("cuda:0", 1.0)
