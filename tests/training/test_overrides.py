import pytest

from training.config import TrainConfig
from training.overrides import OverrideError, override


def test_changes_what_is_named_and_nothing_else() -> None:
    changed = override(
        TrainConfig(),
        ["epochs=3", "learning_rate=1", "augment.mixup=0", "network.stn=false",
         "network.widths=[8,16]", "network.depths=[1,1]", "optimiser=sgd"],
    )  # fmt: skip
    assert changed.epochs == 3
    assert changed.learning_rate == 1.0
    assert changed.augment.mixup == 0.0
    assert changed.network.stn is False
    assert changed.network.widths == (8, 16)
    assert changed.optimiser == "sgd"
    assert override(TrainConfig(), []) == TrainConfig()


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("epochs", "expected KEY=VALUE"),
        ("epoch=3", "no setting 'epoch'"),
        ("epochs=many", "expected int, got 'many'"),
        ("epochs=true", "expected int, got True"),
        ("network.stn=1", "expected bool, got 1"),
        ("network=3", "network is a group"),
        ("epochs.more=3", "epochs has no settings of its own"),
        ("epochs=0", "epochs must be 1 or more"),
        ("optimiser=lion", "optimiser is 'lion'"),
        ("network.widths=[8]", "widths and depths"),
    ],
)
def test_refuses_by_name(assignment: str, named: str) -> None:
    with pytest.raises(OverrideError, match=named) as caught:
        override(TrainConfig(), [assignment])
    assert repr(assignment) in str(caught.value)
