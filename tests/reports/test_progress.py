"""The bar of a run on stderr."""

import time

import pytest

from embedstore.modality import Modality
from embedstore.pipeline.run import EmbedProgress
from embedstore.reports.progress import embedding_progress


@pytest.mark.parametrize(("modality", "unit"), [("image", "images/s"), ("text", "texts/s"), ("audio", "clips/s")])
def test_the_speed_names_what_is_read(capfd, modality, unit):
    """A run over texts is not measured in images per second."""
    with embedding_progress(True) as show:
        for done in (1, 20, 40):
            show(EmbedProgress(done, 40, done, 0, Modality(modality)))
            time.sleep(0.01)
    assert unit in capfd.readouterr().err
