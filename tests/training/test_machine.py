import pytest
import torch

from training.machine import machine


def test_alone_on_the_cpu() -> None:
    with machine("cpu", threads=1) as here:
        assert here.leads
        assert here.world == 1
        assert torch.get_num_threads() == 1
        assert not here.compiles


def test_deterministic_kernels_last_as_long_as_the_machine() -> None:
    with machine("cpu", threads=1, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_missing_gpu_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device on this host")
    with pytest.raises(ValueError, match="sees no CUDA device"), machine("cuda"):
        pass


def test_a_cuda_graph_without_cuda_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="CUDA graph on one CUDA device only"),
        machine("cpu", threads=1, graphs=True),
    ):
        pass


@pytest.mark.gpu
def test_cuda_trains_in_bfloat16_channels_last() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this host")
    with machine("auto") as here:
        assert here.device.type == "cuda"
        assert here.bfloat16
        assert here.memory_format == torch.channels_last
