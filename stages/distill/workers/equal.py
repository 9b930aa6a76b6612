"""What workers may hold of their own, made that of the first one."""

from egapipe.stages.distill.training.learner import Learner
from egapipe.stages.distill.workers.world import World


def make_equal(learner: Learner, world: World) -> None:
    """Give all workers the first one's buffers, and its average of the student's weights.

    Gradients, and so weights, are equal on all of them anyway. Running statistics of batch
    normalisation are of a worker's own rows, and those that are saved are the first one's: what is
    measured must be of the same. It changes no step, since in training mode nothing is computed
    from them. With `distill.sync_batchnorm` they are of all rows. All workers call it together.
    """
    if world.group is None:
        return
    own = set(learner.model.replicated)
    world.broadcast(b for name, b in learner.model.named_buffers() if name not in own)
    if learner.average is not None:
        world.broadcast(learner.average.state_dict().values())
