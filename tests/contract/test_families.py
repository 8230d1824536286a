"""One contract over every family that is found (architecture, section 4)."""

from __future__ import annotations

import warnings

import pytest
import torch

from mmzoo.families import Family, find_families, load_object
from mmzoo.hub.fresh_process import differing_outputs, outputs_of
from mmzoo.hub.save import save_model

FAMILIES = [entry.family for entry in find_families().values()]
pytestmark = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def tiny_config(family: Family, **settings):
    return load_object(family.config)(**{**family.variants["tiny"], **settings})


def tiny_model(family: Family, **settings):
    torch.manual_seed(0)
    return load_object(family.model)(tiny_config(family, **settings))


def batch_of(family: Family, size: int):
    return load_object(family.contract).example_batch(tiny_config(family), size, seed=0)


def test_the_folder_is_complete(family):
    assert find_families()[family.name].missing == ()


@pytest.mark.parametrize("public", [False, True], ids=["tiny", "all"])
def test_variants_build_on_the_meta_device(family, public):
    for name in family.variants if public else ["tiny"]:
        with torch.device("meta"):
            model = load_object(family.model)(load_object(family.config)(**family.variants[name]))
        assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_the_model_answers_what_a_forward_pass_costs(family):
    with torch.device("meta"):
        model = load_object(family.model)(tiny_config(family))
    assert 0 < 2 * model.flops(16) <= model.flops(32)


def test_batch_of_one_equals_batch_of_many(family):
    model = tiny_model(family).eval()
    batch = batch_of(family, 4)
    names = load_object(family.contract).PER_SAMPLE_OUTPUTS
    assert names
    with torch.inference_mode():
        together = model(**batch)
        for index in range(4):
            alone = model(**{name: tensor[index : index + 1] for name, tensor in batch.items()})
            for name in names:
                torch.testing.assert_close(alone[name][0], together[name][index], atol=1e-4, rtol=1e-4)


def test_overfits_one_batch(family):
    contract = load_object(family.contract)
    model = tiny_model(family, **contract.OVERFIT_SETTINGS).train()
    batch = batch_of(family, 2)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    errors = []
    for _ in range(60):
        loss, error = contract.objective(model(**batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.25 * errors[0], errors[::10]


def test_saved_and_read_by_a_fresh_process_it_answers_bit_for_bit(family, tmp_path):
    model = tiny_model(family).train()
    batch = batch_of(family, 2)
    model(**batch)  # state that only training moves is no longer what a new model starts from
    folder = save_model(model, tmp_path / "model", processor=load_object(family.processor)())
    assert outputs_of(model, batch).keys() >= set(load_object(family.contract).PER_SAMPLE_OUTPUTS)
    assert differing_outputs(model, folder, batch) == []


def test_official_layout_is_bit_equal_both_ways(family):
    official = load_object(family.official)
    model = tiny_model(family)
    state, config = model.state_dict(), model.config
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exported = official.to_official(state, config, None)
    assert {name: tuple(t.shape) for name, t in exported.items()} == official.expected_layout(config)
    ours, extra = official.to_ours(exported, config)
    assert ours.keys() == state.keys()
    assert all(torch.equal(ours[name], state[name]) for name in state)
    assert official.to_official(ours, config, extra).keys() == exported.keys()
