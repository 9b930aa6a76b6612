"""Memory that a forward pass asked for and did not get."""

import torch

# Of torch on the CPU, and of the allocators below it; of CUDA's own calls and its libraries, which
# ask the driver for memory beside torch.
_SAID = (
    "DefaultCPUAllocator",
    "std::bad_alloc",
    "annot allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device, or the host, has no more memory to give."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
