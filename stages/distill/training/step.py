"""One step of a training: eagerly, and on a GPU recorded once and replayed as a CUDA graph."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.errors import one_line
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.batches import Batches
from egapipe.stages.distill.model.average import average_weight
from egapipe.stages.distill.model.forward import Losses
from egapipe.stages.distill.training.gradient import Gradient, OnePass, step_seed
from egapipe.stages.distill.training.learner import Learner
from egapipe.stages.distill.training.meters import Clock, Sums
from egapipe.stages.distill.training.schedule import learning_rate
from egapipe.stages.distill.workers.world import World

Inspect = Callable[[Batch, Losses], None]

# Steps made eagerly first: they make what a recording must find made (optimiser, workspaces).
_EAGER = 3


class Steps:
    """The steps of a training on one device.

    A step is the batch, the forward pass, the losses, the backward pass, the optimiser, the moving
    average and the running sums. It takes all it needs from tensors on the device: rows, rates and
    weights of a step are looked up by a counter there. So the same function can be run eagerly or,
    on one GPU, be recorded and replayed, which spares the launches of some hundred kernels.
    """

    def __init__(
        self,
        config: DistillConfig,
        world: World,
        learner: Learner,
        gradient: Gradient,
        batches: Batches,
        steps: int,
    ) -> None:
        """steps: of an epoch."""
        self._config, self._world = config, world
        self._learner, self._gradient = learner, gradient
        self.batches, self._steps = batches, steps
        self._on_gpu = world.device.type == "cuda"
        self._recordable = (
            config.cuda_graphs
            and config.compile != "reduce-overhead"
            and self._on_gpu
            and world.size == 1
            and batches.fixed
            and isinstance(gradient, OnePass)
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager_steps = 0
        self.sums = Sums()
        self._batch: Batch | None = None
        self._losses: Losses | None = None
        if self._on_gpu:
            # Rate of the student and weight of the moving average of every step.
            self._scalars = torch.zeros(steps, 2, device=world.device)
            self._rate = torch.zeros((), device=world.device)
            self._first_bad = torch.full((1,), -1, dtype=torch.int64, device=world.device)
            learner.set_rate(self._rate)

    def begin(self, epoch: int, first_step: int) -> None:
        """Stand at a step of an epoch."""
        self.batches.begin(epoch, first_step)
        self.sums.begin()
        if self._on_gpu:
            scalars = [self._scalars_of(epoch, step) for step in range(self._steps)]
            self._scalars.copy_(torch.tensor(scalars), non_blocking=True)
            self._first_bad.fill_(-1)

    def advance(self, clock: Clock) -> None:
        """Wait for the batch of the next step, which `run` then makes."""
        with clock.waiting():
            self.batches.advance()

    def run(self, epoch: int, step: int, inspect: Inspect | None = None) -> None:
        """Make a step.

        inspect: called between gradient and update of a step that is made eagerly.
        """
        config = self._config
        torch.manual_seed(step_seed(config.seed, epoch, step, self._world.rank))
        if self._graph is None and self._recordable and self._settled:
            self._graph = self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._backward()
            if inspect is not None:
                batch, losses = self.last
                inspect(batch, losses)
            self._update(epoch, step)
            self._eager_steps += 1
        self.sums.count(self.last[0])

    @property
    def last(self) -> tuple[Batch, Losses]:
        """Batch and losses of the last step. Raises RuntimeError before the first."""
        if self._batch is None or self._losses is None:
            raise RuntimeError("no step was made yet")
        return self._batch, self._losses

    @property
    def recorded(self) -> bool:
        """Whether steps are replayed from a CUDA graph."""
        return self._graph is not None

    def first_bad_step(self) -> int | None:
        """The first step of this epoch whose gradient was not finite; waits for the device.

        Such a step moves no weight. Only known on a GPU, where steps are not inspected.
        """
        if not self._on_gpu:
            return None
        step = int(self._first_bad)
        return None if step < 0 else step

    @property
    def _settled(self) -> bool:
        return self._eager_steps >= _EAGER and self._learner.model.steady

    def _record(self) -> torch.cuda.CUDAGraph | None:
        """The step as a graph; None, and not tried again, if it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(self._world.device)):
                self._backward()
                self._update(0, 0)
        except RuntimeError as error:
            self._recordable = False
            warnings.warn(
                f"training goes on without a CUDA graph, which the step does not allow: "
                f"{one_line(error)}; distill.cuda_graphs=false leaves it out",
                stacklevel=2,
            )
            return None
        return graph

    def _backward(self) -> None:
        self._batch = self.batches.batch()
        self._losses = self._gradient(self._batch, self._learner.scaler)

    def _update(self, epoch: int, step: int) -> None:
        """Move the weights, their average, the sums and the counter. On a GPU nothing here depends
        on epoch and step but through the device's own counter."""
        learner, config = self._learner, self._config
        _, losses = self.last
        if self._on_gpu:
            scalars = self._scalars.index_select(0, self.batches.step)[0]
            self._rate.copy_(scalars[0])
            bad = self._note_bad(losses)
            learner.step(config, scalars[1], skip=bad)
        else:
            rate, weight = self._scalars_of(epoch, step)
            learner.set_rate(rate)
            learner.step(config, weight)
        self.sums.add(losses)
        self.batches.step.add_(1)

    def _note_bad(self, losses: Losses) -> Tensor:
        """bool [1]: whether loss or gradient are not finite; the first such step is remembered.

        A float16 gradient may overflow, which its scaler sees to.
        """
        good = losses.total.detach().isfinite()
        if not self._learner.scaler.is_enabled():
            norm = torch.nn.utils.get_total_norm(self._learner.gradients(), foreach=True)
            good = good & norm.isfinite()
        bad = ~good.view(1)
        first = bad & (self._first_bad < 0)
        self._first_bad.copy_(torch.where(first, self.batches.step, self._first_bad))
        return bad

    def _scalars_of(self, epoch: int, step: int) -> tuple[float, float]:
        decay = None if self._learner.average is None else self._learner.average.decay
        done = epoch * self._steps + step
        weight = 0.0 if decay is None else average_weight(decay, done)
        return learning_rate(self._config, epoch, step, self._steps), weight


@contextmanager
def device_settings(config: DistillConfig, device: torch.device) -> Iterator[None]:
    """The device as a training wants it, for the length of a block; as it was afterwards.

    On a GPU: a stream of its own (a recording needs one), TF32 as configured, and either the
    fastest convolutions found by trying, or deterministic operations only.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32)
    strict = torch.are_deterministic_algorithms_enabled()
    cudnn.benchmark, cudnn.deterministic = not config.deterministic, config.deterministic
    cudnn.allow_tf32, matmul.allow_tf32 = config.tf32 != "none", config.tf32 == "all"
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
        with torch.cuda.device(device), torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream(device).wait_stream(stream)
    finally:
        torch.use_deterministic_algorithms(strict)
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before
