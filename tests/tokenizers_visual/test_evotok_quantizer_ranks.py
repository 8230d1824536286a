"""Two ranks teach the codebooks what one rank would at the same global batch."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from tokenizers_visual.evotok.quantizer import QuantizerSettings, ResidualQuantizer

STEPS = 4


def train(rank: int, ranks: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    quantizers = {
        "corrected": ResidualQuantizer(QuantizerSettings(8, 4, 1, 3, kmeans_init=True, restart_threshold=0.5)),
        "faithful": ResidualQuantizer(QuantizerSettings(8, 4, 1, 3, mode="faithful", vq_warmup=1)),
        "crowded": ResidualQuantizer(QuantizerSettings(64, 4, 1, 2)),  # fewer vectors than codes: noisy copies
    }
    random = torch.Generator().manual_seed(100 + rank)  # only rank 0's may matter
    for step in range(STEPS):
        batch = torch.randn(4, 4, 2, 3, generator=torch.Generator().manual_seed(step))
        share = batch.split([3, 1])[rank] if ranks == 2 else batch  # uneven, as after a broken sample
        for quantizer in quantizers.values():
            quantizer(share, generator=random)
    states = {f"{name}.{k}": v for name, q in quantizers.items() for k, v in q.state_dict().items()}
    return {key: value.clone() for key, value in states.items()}


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    save_file(train(rank, 2), Path(folder) / f"{rank}.safetensors")
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    for key, expected in train(0, 1).items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], expected, atol=1e-6, rtol=1e-6, msg=key)
