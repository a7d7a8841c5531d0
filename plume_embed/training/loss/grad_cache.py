"""Large batches on small machines: embeddings are cached, gradients replayed in chunks (GradCache, arXiv 2101.06983).

In-batch negatives make the loss a function of all rows, but the memory is in the activations of the model. So: (1) all
chunks forward without a graph, keeping only what the loss needs of each row; (2) the loss of the whole batch, and its
gradient with regard to those few numbers; (3) each chunk forward once more with a graph, and backward from its share of
that gradient. The gradient is that of one large backward pass, the memory that of one chunk.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.utils.checkpoint import get_device_states, set_device_states

from plume_embed.training.loss.batch_loss import LossWeights, TrainingBatch, batch_losses, join
from plume_embed.training.objective import SideBatch, SideOutput

Forward = Callable[[list[SideBatch], int, Sequence[int]], list[SideOutput]]
Backward = Callable[[torch.Tensor, bool], None]


def backward(share: torch.Tensor, is_last: bool) -> None:
    """Autograd's own: adds to the gradients."""
    share.backward()


def cached_backward(
    forward: Forward, batch: TrainingBatch, weights: LossWeights, backward: Backward = backward
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Adds the gradient of the batch's loss to the parameters, chunk by chunk.

    Args:
        forward: [`PlumeForTraining`], or what wraps it. Under DDP, call this inside `no_sync` and
            [`average_gradients`] behind it.
        batch ([`TrainingBatch`]): Its chunks are what fits into memory.
        weights ([`LossWeights`]): Of the loss.
        backward: Called with a scalar for each chunk and whether it is the last; DeepSpeed has one of its own.

    Returns:
        The loss and its terms, as [`batch_losses`] gives them, detached.
    """
    chunks = batch.queries + batch.targets
    states, cached = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_RandomState(chunk))
            cached += forward([chunk], batch.num_latent_steps, batch.early_steps)
    leaves = [
        SideOutput(*(None if t is None else t.detach().requires_grad_() for t in output.tensors())) for output in cached
    ]
    loss, terms = batch_losses(join(leaves[: len(batch.queries)]), join(leaves[len(batch.queries) :]), batch, weights)
    loss.backward()
    for chunk, leaf, state in zip(chunks, leaves, states, strict=True):
        with state.replayed():
            output = forward([chunk], batch.num_latent_steps, batch.early_steps)[0]
        share = sum(  # its gradient with regard to the output is that of the batch's loss
            (tensor * cache.grad).sum()
            for tensor, cache in zip(output.tensors(), leaf.tensors(), strict=True)
            if tensor is not None and cache.grad is not None and tensor.requires_grad
        )
        backward(share, chunk is chunks[-1])
    return loss.detach(), terms


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Averages the gradients over the processes, as DDP does behind one backward pass.

    DDP itself would leave out a parameter that only the earlier chunks have used. A gradient that no process has counts
    as zero.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()


class _RandomState:
    """The random state in front of a chunk, so that dropout draws the same masks in both passes."""

    def __init__(self, chunk: SideBatch):
        self.cpu = torch.get_rng_state()
        self.devices, self.states = get_device_states(*chunk.prefix.values())

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, the random state is the saved one; afterwards it is what it was."""
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.cpu)
            set_device_states(self.devices, self.states)
            yield
