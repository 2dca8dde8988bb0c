"""What the tests of timed outputs share: a workload that is timed otherwise than conformance asks."""

import pytest

from shared_spec.workload.spec import Spec


@pytest.fixture(scope="session")
def spec(tiny_spec: Spec) -> Spec:
    """Trained with a batch above conformance's, for more steps than conformance looks at."""
    return tiny_spec.changed(
        model=tiny_spec.model.changed(image_size=32),
        training=tiny_spec.training.changed(batch_size=8, epochs=8),
        schedule=tiny_spec.schedule.changed(reference_batch=8, reference_lr=1e-3),
        data=tiny_spec.data.changed(train_images=128),
        measuring=tiny_spec.measuring.changed(loss_trace_steps=26, block_steps=1, block_seconds=1e-9),
    )
