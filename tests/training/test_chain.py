from pathlib import Path

import pytest

from training.chain import SHIPPED, ChainError, load_chain
from training.config import RECIPES


def written(path: Path, text: str) -> str:
    (path / "chain.toml").write_text(text)
    return str(path / "chain.toml")


@pytest.mark.parametrize("name", [path.stem for path in SHIPPED.glob("*.toml")])
def test_what_a_shipped_chain_needs_comes_first(name: str) -> None:
    made: set[str] = set()
    for stage in load_chain(name).stages:
        assert made.issuperset(stage.needs), stage.name
        made.add(stage.name)


def test_everywhere_goes_on_from_what_ferplus_ends_in() -> None:
    stages = {stage.name: stage for stage in load_chain("everywhere").stages}
    assert stages["everywhere"].start == "ferplus"
    assert stages["everywhere"].config == RECIPES["everywhere"]
    assert stages["again-2"].needs == ("taught", "seed-0", "seed-1", "seed-2")
    assert stages["large-1"].config.augment.mixup == 0.4


def test_seeds_are_stages_and_patterns_name_them(tmp_path: Path) -> None:
    text = '[run.a]\nrecipe="quick"\nseeds=[3,5]\nset=["epochs=2"]\n[export.b]\naverage=["a-*"]\n'
    first, second, mean = load_chain(written(tmp_path, text)).stages
    assert (first.config.seed, first.config.epochs, second.config.seed) == (3, 2, 5)
    assert mean.average == ("a-3", "a-5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run = 3 3", "chain.toml"),
        ("colour = 1", "'colour' is unknown"),
        ('[run.a]\nrecipe="none"', "run.a: no recipe 'none'"),
        ('[run.a]\nrecipe="quick"\nfrom="b"', "run.a: 'from' is unknown"),
        ('[run.a]\nrecipe="quick"\nseeds="0"', "run.a: 'seeds' is unknown or of the wrong type"),
        ('[run.a]\nrecipe="quick"\nset=["epoch=2"]', "run.a: .*no setting 'epoch'"),
        ('[run.a]\nrecipe="quick"\nstart="b"', "a: needs 'b', which no other stage"),
        ('[run.a]\nrecipe="quick"\nstart="a"', "a: needs 'a', which no other stage"),
        (
            '[run.a]\nrecipe="quick"\nstart="b"\n[run.b]\nrecipe="quick"\nstart="a"',
            "a, b: each needs another",
        ),
        ('[run.a]\nrecipe="quick"\n[export.a]\naverage=["a"]', "two stages are named a"),
        ('extends = "none"', "no chain 'none'; there are everywhere, ferplus, tiny"),
    ],
)
def test_a_wrong_chain_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ChainError, match=said):
        load_chain(written(tmp_path, text))
