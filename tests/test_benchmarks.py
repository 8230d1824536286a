"""The benches' own parts: peers that compute the right thing, timing that is fair, records that can be read."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mmzoo.ops.residual_vq import code_statistics_reference, reference
from tests.benchmarks import code_reading, quantizer, trainer
from tests.benchmarks.memory import peak_mib
from tests.benchmarks.peers import residual_vq as dense
from tests.benchmarks.peers import streaming_formats
from tests.benchmarks.record import Comparison, NotMeasured, write
from tests.benchmarks.small_training import small_model
from tests.benchmarks.timing import Contender, Figures, in_turns, interleaved


def figures(*values):
    return Figures(tuple(values))


def test_the_dense_peer_is_the_definition():
    random = torch.Generator().manual_seed(0)
    latent, tables = torch.randn(300, 8, generator=random), torch.randn(3, 40, 8, generator=random)
    codes, statistics = dense.assign_with_statistics(latent, tables)
    assert torch.equal(codes, reference(latent, tables))
    assert torch.equal(dense.assign(latent, tables), codes)
    residual = latent
    for level, (counts, sums) in enumerate(statistics):
        expected_counts, expected_sums = code_statistics_reference(codes[:, level], residual, 40)
        assert torch.equal(counts, expected_counts)
        torch.testing.assert_close(sums, expected_sums)
        residual = residual - tables[level][codes[:, level]]


def test_the_dense_peer_gives_the_recorded_codes(shared):
    folder = shared / "parity/evotok/quantizer_train"
    recorded = load_file(folder / "run_a_warmup1.safetensors")
    inputs = load_file(folder / "inputs.safetensors")["x"]
    for step, expected in enumerate(recorded["codes"]):
        latent = inputs[step].permute(0, 2, 3, 1).flatten(0, 2)
        found = dense.assign(latent, recorded["weight"][step][:, :-1])
        assert torch.equal(found, expected.flatten(0, 2)), step


def test_the_quantisers_agree_and_a_wrong_one_is_caught(monkeypatch):
    monkeypatch.setattr(quantizer, "SIZE", 64)
    latent, tables = quantizer.case(200)
    module, restore = quantizer.their_module(tables, training=True)
    assert quantizer.check(latent, tables, module) == "0 and 0 of 400 codes differ"
    moved = module.layers[0]._codebook.embed.clone()
    restore()
    assert not torch.equal(moved, module.layers[0]._codebook.embed)
    codes = reference(latent, tables)
    assert quantizer.differing(latent, tables, codes, codes) == 0
    with pytest.raises(AssertionError, match="more than rounding"):
        quantizer.differing(latent, tables, codes, (codes + 1) % 64)


def test_contenders_take_turns():
    calls = []
    contenders = {
        name: Contender(lambda name=name: calls.append(name), lambda name=name: calls.append(f"prepare {name}"))
        for name in "abc"
    }
    found = interleaved(contenders, rounds=3)
    assert [call for call in calls if len(call) == 1] == list("abcbcacab")
    assert all(calls[i] == f"prepare {calls[i + 1]}" for i in range(0, len(calls), 2))
    assert all(len(found[name].values) == 3 for name in "abc")


def test_peak_memory_counts_what_was_alive_at_once():
    mib = 2**18  # float32 values

    def call():
        first = torch.zeros(3 * mib)
        del first
        return torch.zeros(mib) + 1  # two of them, one after the other freed

    assert peak_mib(call) == pytest.approx(3, abs=0.01)
    assert peak_mib(lambda: torch.zeros(2 * mib) + torch.zeros(2 * mib)) == pytest.approx(6, abs=0.01)


def test_a_line_says_whether_the_bar_is_met():
    comparison = Comparison("case", "peer", figures(0.2, 0.1, 0.4), figures(2.0, 3.0, 1.0), at_least=10, at_most=0.1)
    assert comparison.line() == "case: 0.1 s, peer 1 s: 10.0x (medians 10.0x); bar >= 10x and <= 0.1 s: met"
    slower = Comparison("case", "peer", figures(0.2), figures(2.0), at_least=10, at_most=0.1)
    assert slower.line().endswith("MISSED")
    assert Comparison("case", "peer", figures(2.0), figures(1.0)).line() == "case: 2 s, peer 1 s: 0.5x (medians 0.5x)"


def test_the_record_holds_every_repeat_and_the_machine(tmp_path):
    path = write("some", [Comparison("case", "peer", figures(0.2, 0.1), figures(2.0, 3.0))], tmp_path / "bench")
    record = json.loads(path.read_text())
    assert path == tmp_path / "bench/some.json"
    assert record["comparisons"][0]["ours"] == {"least": 0.1, "median": pytest.approx(0.15), "all": [0.2, 0.1]}
    assert record["comparisons"][0]["ratio"] == 20
    assert record["machine"]["cores"]
    assert {"torch", "webdataset", "transformers"} <= record["versions"].keys()
    assert record["date"].endswith("+00:00")


def test_a_peer_that_is_not_there_is_not_measured(tmp_path):
    absent = NotMeasured("case", "litdata", streaming_formats.ADVICE)
    assert absent.line() == "case: litdata: not measured: run `make bench-env`"
    record = json.loads(write("some", [absent], tmp_path).read_text())
    assert record["comparisons"] == [{"case": "case", "peer": "litdata", "not_measured": streaming_formats.ADVICE}]
    assert len(record["machine"]["load_average"]) == 3


def test_contenders_that_measure_themselves_take_turns():
    calls = []
    contenders = {name: lambda name=name: float(calls.append(name) or len(calls)) for name in "ab"}
    assert in_turns(contenders, rounds=2) == {"a": figures(1.0, 4.0), "b": figures(2.0, 3.0)}
    assert calls == list("abba")


def test_trainers_that_train_otherwise_are_caught():
    start = trainer.weights_of(small_model())
    trained = {name: weight + 0.1 for name, weight in start.items()}
    same = {name: trainer.Trained(1.0, dict(trained)) for name in ("ours", "transformers", "by hand")}
    trainer.check(same)
    other = {**trained, "layers.0.bias": trained["layers.0.bias"] + 1e-3}
    with pytest.raises(AssertionError, match=r"ours trains .* otherwise"):
        trainer.check({**same, "ours": trainer.Trained(1.0, other)})
    with pytest.raises(AssertionError, match="was not trained"):
        trainer.check({"by hand": trainer.Trained(1.0, start)})


def test_the_readers_of_codes_agree_before_they_are_timed(monkeypatch):
    monkeypatch.setattr(code_reading, "SAMPLES", 40)
    monkeypatch.setattr(code_reading, "ROUNDS", 1)
    measured = [found for found in code_reading.compare() if isinstance(found, Comparison)]
    assert "webdataset" in [comparison.peer_name for comparison in measured]
    assert all(comparison.ours.least > 0 for comparison in measured)
    monkeypatch.setattr(code_reading, "theirs", lambda shards: reversed(list(code_reading.ours(shards))))
    with pytest.raises(AssertionError):
        code_reading.compare()


def test_the_averaging_step_is_residual_vqs(monkeypatch):
    monkeypatch.setattr(quantizer, "SIZE", 64)
    latent, tables = quantizer.case(200)
    module, restore = quantizer.their_module(tables, training=True)
    restore()
    for layer in module.layers:
        layer._codebook.cluster_size.fill_(1)
    theirs = module(latent[None])[1][0]
    codes, moved = quantizer.ours_averaging(latent, tables).run()
    assert torch.equal(codes, theirs)
    assert not torch.equal(moved, tables)
    torch.testing.assert_close(moved, torch.stack([layer._codebook.embed[0] for layer in module.layers]))
