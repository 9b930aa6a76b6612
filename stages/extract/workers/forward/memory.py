"""Memory that a forward pass asked for and did not get."""

import torch

# Of torch on the CPU, and of the allocators below it.
_HOST = ("DefaultCPUAllocator", "std::bad_alloc", "annot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device, or the host, has no more memory to give."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _HOST)
