"""The forward stage: several batches at once, results in order."""

import time
from types import SimpleNamespace

import numpy as np

from embedstore.pipeline.decode import PreparedFile
from embedstore.pipeline.forward import ForwardStage
from embedstore.pipeline.plan import PlannedFile
from embedstore.types import ImageRef


def test_batches_keep_their_order_when_later_ones_are_faster():
    """With four batches at once and a slow first one, files and vectors remain together and in order."""

    def encode(inputs):
        time.sleep(0.2 if inputs[0][0] == 0 else 0.0)
        return np.stack(inputs).astype(np.float32)

    taken = 0

    def files():
        nonlocal taken
        for n in range(20):
            taken += 1
            yield PreparedFile(PlannedFile(ImageRef(str(n), str(n), 0, 0), n), input=np.full(3, n, np.uint8))

    encoder = SimpleNamespace(encode=encode, batch_size=1, concurrency=4)
    stage = ForwardStage(encoder, max_files=100)
    batches = []
    for batch in stage.run(files()):
        batches.append(batch)
        assert taken - len(batches) <= 4, "no more batches than threads are in progress"
    stage.close()
    assert [(b.files[0].planned.item, int(b.vectors[0, 0])) for b in batches] == [(n, n) for n in range(20)]
    assert stage.item_count == 20
