"""What every pruner must do, over the listing of their folder: a new file there is tested by being there."""

import pytest
import torch

from ingle.compress.calibration import Inputs
from ingle.compress.pruning import BEST, PRUNERS, STRUCTURES, Cut, PrunedBlock, Structure, columns_of, find_pruner, names
from ingle.core.errors import ConfigError
from ingle.core.registry import titles

SPARSE = [(name, structure) for structure in ("none", "2:4") for name in names(structure)]
UNITS = [(name, structure) for structure in ("channels", "heads") for name in names(structure)]
ROWS, COLUMNS = 24, 96


def correlated(columns: int = COLUMNS, seed: int = 0) -> torch.Tensor:
    """float32 [400, columns]: inputs of very different sizes, most of which can be told from others."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(400, columns // 3, generator=draw)
    x = hidden @ torch.randn(columns // 3, columns, generator=draw) + 0.3 * torch.randn(400, columns, generator=draw)
    return x * torch.rand(columns, generator=draw).mul(3).exp()


def weight(seed: int = 1) -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def inputs_of(x: torch.Tensor) -> Inputs:
    h = x.double().T @ x.double() / len(x)
    return Inputs(len(x), h, torch.zeros_like(h))


def block(size: int) -> PrunedBlock:
    w = weight()
    return PrunedBlock(w, inputs_of(correlated()), size, w.square().sum(0).view(-1, size).sum(1))


def sparse(name: str, structure: Structure, share: float = 0.5) -> Cut:
    return find_pruner(name, structure)(weight(), inputs_of(correlated()), share, 4 if structure == "2:4" else 0)


def error_of(made: torch.Tensor, x: torch.Tensor) -> float:
    return float(((made - weight()) @ x.T).square().sum())


def whole(made: Cut, size: int) -> torch.Tensor:
    """[N, K] with zeros where units went."""
    columns, full = columns_of(made.stays, size), torch.zeros(ROWS, COLUMNS)
    full[:, columns] = weight()[:, columns] if made.weight is None else made.weight
    return full


def test_the_pruners_that_are_promised() -> None:
    assert {"magnitude", "wanda", "sparsegpt", "width", "depth"} <= set(names())
    assert set(BEST) == set(STRUCTURES)
    for structure, name in BEST.items():
        find_pruner(name, structure)
    with pytest.raises(ConfigError, match=r"Did you mean wanda\?"):
        find_pruner("wander", "none")
    with pytest.raises(ConfigError, match=r"can't prune layers.*take depth"):
        find_pruner("wanda", "layers")
    with pytest.raises(ConfigError, match="Known: depth"):
        find_pruner("zzz", "layers")


@pytest.mark.parametrize("name", names())
def test_it_says_what_it_is(name: str) -> None:
    title = titles(PRUNERS)[name]
    assert "arXiv" in title
    assert len(title) < 140


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize(("name", "structure"), SPARSE)
def test_exactly_the_share_goes_and_nothing_is_touched_that_was_given(name: str, structure: Structure, share: float) -> None:
    w, inputs = weight(), inputs_of(correlated())
    before, h = w.clone(), inputs.hessian.clone()
    made = find_pruner(name, structure)(w, inputs, share, 4 if structure == "2:4" else 0)
    assert made.stays.shape == w.shape
    assert int((~made.stays).sum()) == share * w.numel()
    assert torch.equal(w, before) and torch.equal(inputs.hessian, h)
    if made.weight is not None:
        assert made.weight.dtype == torch.float32
        assert not made.weight[~made.stays].any()
    again = find_pruner(name, structure)(w, inputs, share, 4 if structure == "2:4" else 0)
    assert torch.equal(made.stays, again.stays)


@pytest.mark.parametrize("name", names("2:4"))
def test_two_of_every_four_neighbours_stay(name: str) -> None:
    assert (sparse(name, "2:4").stays.view(ROWS, -1, 4).sum(-1) == 2).all()
    with pytest.raises(ConfigError, match="multiple of 4"):
        find_pruner(name, "2:4")(weight()[:, :90], inputs_of(correlated(90)), 0.5, 4)


@pytest.mark.parametrize(("name", "structure"), [one for one in SPARSE if one[0] != "magnitude"])
def test_who_looks_at_the_inputs_loses_less_than_magnitude_on_others_of_the_kind(name: str, structure: Structure) -> None:
    x = correlated()[:200]
    errors = []
    for one in ("magnitude", name):
        made = find_pruner(one, structure)(weight(), inputs_of(correlated()[200:]), 0.5, 4 if structure == "2:4" else 0)
        errors.append(error_of(weight() * made.stays if made.weight is None else made.weight, x))
    assert errors[1] < 0.8 * errors[0]


def test_sparsegpt_makes_up_for_what_goes() -> None:
    x = correlated()
    made = sparse("sparsegpt", "none")
    assert made.weight is not None
    assert error_of(made.weight, x) < 0.5 * error_of(weight() * made.stays, x)


def test_inputs_that_are_always_zero_are_no_trouble() -> None:
    x = correlated()
    x[:, 7] = 0
    for name in names("none"):
        made = find_pruner(name, "none")(weight(), inputs_of(x), 0.5, 0)
        assert torch.isfinite(weight() if made.weight is None else made.weight).all()


@pytest.mark.parametrize(("name", "structure"), UNITS)
def test_as_many_units_stay_as_are_asked_for(name: str, structure: Structure) -> None:
    size = 1 if structure == "channels" else 24
    given = block(size)
    before, count = given.weight.clone(), COLUMNS // size // 2
    made = find_pruner(name, structure)(given, count)
    assert len(made.stays) == count
    assert (made.stays.diff() > 0).all()
    assert torch.equal(given.weight, before)
    assert made.weight is None or made.weight.shape == (ROWS, count * size)


@pytest.mark.parametrize("size", [1, 24])
def test_width_loses_less_than_magnitude_and_fits_what_stays(size: int) -> None:
    count, x = COLUMNS // size // 2, correlated()
    structure: Structure = "channels" if size == 1 else "heads"
    errors = {name: error_of(whole(find_pruner(name, structure)(block(size), count), size), x) for name in names(structure)}
    assert errors["width"] < 0.5 * errors["magnitude"]
    assert errors["width"] < 0.8 * errors["wanda"]


def test_width_fits_to_what_the_original_gave() -> None:
    """With D, the target is the original's output, though what comes now has drifted."""
    x0 = correlated()
    x = x0 * 0.7 + 0.5 * correlated(seed=5).roll(3, 1)
    h = x.double().T @ x.double() / len(x)
    drift = (x0 - x).double().T @ x.double() / len(x)
    errors = []
    for d in (torch.zeros_like(h), drift):
        made = find_pruner("width", "channels")(PrunedBlock(weight(), Inputs(len(x), h, d), 1, weight().square().sum(0)), 64)
        columns = made.stays
        errors.append(float((x[:, columns] @ made.weight.T - x0 @ weight().T).square().sum()))
    assert errors[1] < 0.9 * errors[0]


def test_width_fits_nothing_to_too_little_text() -> None:
    few = inputs_of(correlated())
    few = Inputs(COLUMNS, few.hessian, few.drift)
    assert find_pruner("width", "channels")(PrunedBlock(weight(), few, 1, weight().square().sum(0)), 64).weight is None


def test_layers_that_change_little_go() -> None:
    assert find_pruner("depth", "layers")(torch.tensor([0.9, 0.1, 0.3, 0.2, 0.8]), 3).tolist() == [0, 2, 4]
