"""Inside the context float32 products are float32; outside nothing has changed."""

import pytest
import torch

from mmzoo.ops.exact_float32 import exact_float32

BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


@pytest.fixture
def low_precision():
    before = [backend.fp32_precision for backend in BACKENDS]
    for backend, low in zip(BACKENDS, ("tf32", "bf16"), strict=True):
        backend.fp32_precision = low
    yield
    for backend, precision in zip(BACKENDS, before, strict=True):
        backend.fp32_precision = precision


def fail_inside() -> None:
    with exact_float32("cpu"):
        assert [backend.fp32_precision for backend in BACKENDS] == ["ieee", "ieee"]
        raise KeyError


def test_precision_is_exact_inside_and_restored_after_an_error(low_precision):
    with pytest.raises(KeyError):
        fail_inside()
    assert [backend.fp32_precision for backend in BACKENDS] == ["tf32", "bf16"]


def test_autocast_is_off_inside():
    left, right = torch.randn(8, 8), torch.randn(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (left @ right).dtype == torch.bfloat16
        with exact_float32("cpu"):
            assert (left @ right).dtype == torch.float32


def test_devices_without_autocast_are_served():
    with exact_float32("meta"):
        assert (torch.empty(2, 3, device="meta") @ torch.empty(3, 4, device="meta")).shape == (2, 4)
