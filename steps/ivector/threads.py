"""Work on several blocks at once, each on one core.

Many small products are faster on one core each, in parallel, than each spread over all cores. Since blocks are
computed independently, the results do not depend on the number of threads.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch

from utils import ahead
from utils.ahead import Item, Result


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield function(item) of each item, in order; at most `threads` are in progress and one more is waiting."""
    return ahead.in_order(function, items, threads, start=partial(torch.set_num_threads, 1))
