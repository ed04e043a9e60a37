"""docs/from-tensorflow-addons.md: its code and its names, against Addons' own numbers."""

import re

import keras
import pytest

from rll_tf import losses
from tests.conftest import ROOT
from tests.losses.golden import difference, golden

PAGE = (ROOT / "docs" / "from-tensorflow-addons.md").read_text("utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]  # tests/test_readme.py runs the other


@pytest.mark.parametrize("name", ["triplet_semihard", "triplet_hard", "lifted_struct"])
def test_a_script_logs_what_addons_gave(name):
    """The first code, compiled with the page's import: Keras's loss of each golden batch is Addons'."""
    names = {}
    exec(CODE, names)
    assert isinstance(names["model"].loss, losses.TripletSemiHardLoss)
    for parameter in golden(name, "tfa")[:4]:
        if parameter.marks:
            pytest.skip("RLL_SHARED is unset: the golden numbers are elsewhere")
        (case,) = parameter.values
        inputs = keras.Input(case["embeddings"].shape[1:])
        model = keras.Model(inputs, keras.layers.Identity()(inputs))
        loss = type(losses.LOSSES[name]()).__name__
        model.compile("sgd", loss=getattr(names["tfa"].losses, loss)(**case.arguments), run_eagerly=True)
        logged = model.test_on_batch(case["embeddings"], case["labels"])
        assert difference(logged, case["value"]) < case.tolerance


@pytest.mark.parametrize("name", re.findall(r"`(\w+_loss|\w+Loss)`", PAGE))
def test_the_names_are_there(name):
    """Every one that the page's tables mention."""
    assert hasattr(losses, name)
