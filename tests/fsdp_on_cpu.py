"""`plume-embed train` under FSDP on CPUs, for tests: accelerate has FSDP for accelerators alone, PyTorch for CPUs too.

    torchrun --nproc-per-node 2 tests/fsdp_on_cpu.py training/hops/hops.yaml --set ...

What accelerate finds out about the machine is replaced; everything behind it, the sharding included, is as on GPUs.
"""

import runpy
import sys

import torch
import torch.distributed as dist
from accelerate.state import DistributedType, PartialState


def prepare_backend(self, cpu=False, sagemaker_dp=False, backend=None):
    return "gloo", DistributedType.MULTI_GPU


def set_device(self):
    if self.device is None:
        self.device = torch.device("cpu")


PartialState._prepare_backend = prepare_backend
PartialState.set_device = set_device
dist.init_process_group("gloo")
sys.argv.insert(1, "train")
runpy.run_module("plume_embed", run_name="__main__", alter_sys=True)
