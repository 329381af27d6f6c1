"""Ranks as processes on this machine, gloo on the CPU, forked from one that has imported torch already."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from study.training.distributed import MultipleRanks

PATIENCE_S = 120


def run_on_ranks(work: Callable[..., Any], folder: Path, *arguments: Any, ranks: int = 2) -> list[Any]:
    """What `work(ranks, *arguments)` returns on each of the ranks; an AssertionError with what one of them raised.

    None stands for a rank that ended without a word. `work` is a function that can be imported by its name.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["study.training.engine", "torch._dynamo"])  # the latter comes with the first optimizer
    folder.mkdir(parents=True, exist_ok=True)
    store = f"file://{folder}/store-{len(list(folder.iterdir()))}"
    pipes, processes = [], []
    for rank in range(ranks):
        here, there = context.Pipe(duplex=False)
        processes.append(context.Process(target=run_one_rank, args=(there, store, rank, ranks, work, arguments)))
        processes[-1].start()
        there.close()
        pipes.append(here)
    answers = [receive_answer(pipe) for pipe in pipes]
    for process in processes:
        process.join(PATIENCE_S)
    for answer in answers:
        assert not isinstance(answer, Raised), answer
    return answers


class Raised(str):
    """A traceback."""


def receive_answer(pipe: Connection) -> Any:
    """One rank's answer, or None where it has ended without one."""
    assert pipe.poll(PATIENCE_S), "a rank hangs"
    try:
        return pickle.loads(pipe.recv_bytes())  # tensors as bytes, not as files of a process that ends
    except EOFError:
        return None


def run_one_rank(pipe: Connection, store: str, rank: int, size: int, work: Callable[..., Any], arguments: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    ranks = MultipleRanks(rank, size, device=torch.device("cpu"), host_group=distributed.new_group(backend="gloo"))
    try:
        answer = work(ranks, *arguments)
    except BaseException:
        answer = Raised(traceback.format_exc())
    pipe.send_bytes(pickle.dumps(answer))
    distributed.destroy_process_group()
