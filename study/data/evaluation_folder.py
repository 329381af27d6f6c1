"""One folder of class folders to evaluate on: every image once, in sorted order, decoded by threads ahead of use."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from study.data.image_folder import find_images, list_subfolders
from study.data.images import Pixels, UnreadableImage, read_image_file
from study.data.preprocessing import Preprocessing
from study.errors import Problem, UserError

_AHEAD = 2  # batches that are decoded while one is used
_PARTS = frozenset("train training val valid validation test testing dev eval".split())


@dataclass(frozen=True)
class EvaluationFolder:
    """Images by path below `root`, with their labels: positions in the sorted class names."""

    root: Path
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]


def scan_evaluation_folder(root: Path) -> EvaluationFolder:
    """The images of `root/<class>/*`, or of its `test/` or `val/` where it has one; raises UserError if there are none.

    A folder of other parts (`train/` and `valid/`) is refused: their names would be taken for classes.
    """
    part = next((root / name for name in ("test", "val") if (root / name).is_dir()), root)
    names = list_subfolders(part) if part.is_dir() else []
    found = sorted((label, path) for label, name in enumerate(names) for path, _ in find_images(part, name))
    empty = sorted(set(range(len(names))) - {label for label, _ in found})
    problems = [Problem(f"class {names[label]!r} has no images", place=str(part), key="--data") for label in empty]
    if not names:
        rule = f"{part.name}/ has no class folders" if part != root else "a folder of class folders is expected"
        others = [str(root / name) for name in list_subfolders(root) if name != part.name] if root.is_dir() else []
        rule = f"{rule}; or one that holds them in test/ or val/; --data may name another part itself"
        problems = [Problem(rule, place=str(root), key="--data", choices=others)]
    elif len(parts := sorted({name.lower() for name in names} & _PARTS)) > 1:
        rule = f"{', '.join(parts)} are parts of a data set, not classes: name the one to evaluate on"
        problems = [Problem(rule, place=str(root), key="--data", choices=[str(root / name) for name in names])]
    if problems:
        raise UserError(*problems)
    return EvaluationFolder(part, tuple(names), tuple(path for _, path in found), tuple(label for label, _ in found))


def match_classes(folder: EvaluationFolder, class_names: tuple[str, ...] | None, *, outputs: int) -> tuple[int, ...]:
    """The model's output for each class of the folder, by name; for weights without names (None), in sorted order.

    Raises UserError for a class that the model doesn't have, and where names are needed to know which classes there are.
    """
    if class_names is None:
        if len(folder.class_names) == outputs:
            return tuple(range(outputs))
        rule = f"the model has {outputs:,} classes, and the folder has {len(folder.class_names):,}"
        rule += "; --classes FILE, with the class of each output on a line, evaluates on some of them"
        raise UserError(Problem(rule, str(folder.root), "--data"))
    output_of = {name: output for output, name in enumerate(class_names)}
    unknown = [name for name in folder.class_names if name not in output_of]
    if unknown:
        raise UserError(*(Problem("no class of the model", str(folder.root), "--data", name, class_names) for name in unknown))
    return tuple(output_of[name] for name in folder.class_names)


@dataclass(frozen=True)
class FolderBatches:
    """Normalized images `b 3 h w` with their labels `b` on `device`; raises UserError naming files that can't be decoded."""

    folder: EvaluationFolder
    preprocessing: Preprocessing
    image_size: int
    batch_size: int
    device: torch.device
    layout: torch.memory_format
    workers: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        decoding: deque[tuple[int, list[Future[Pixels | Problem]]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(self.folder.files), self.batch_size):
                files = self.folder.files[start : start + self.batch_size]
                decoding.append((start, [pool.submit(self._decode, file) for file in files]))
                if len(decoding) > _AHEAD:
                    yield self._make_batch(*decoding.popleft())
            while decoding:
                yield self._make_batch(*decoding.popleft())

    def _decode(self, file: str) -> Pixels | Problem:
        path = self.folder.root / file
        try:
            return self.preprocessing.decode(read_image_file(path), self.image_size)
        except (UnreadableImage, OSError) as error:
            return Problem(str(error), place=str(path))

    def _make_batch(self, start: int, decoding: list[Future[Pixels | Problem]]) -> tuple[Tensor, Tensor]:
        results = [future.result() for future in decoding]
        problems = [result for result in results if isinstance(result, Problem)]
        if problems:
            raise UserError(*problems)
        images = torch.from_numpy(np.stack([result for result in results if not isinstance(result, Problem)]))
        labels = torch.tensor(self.folder.labels[start : start + len(results)])
        mean, std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (self.preprocessing.mean, self.preprocessing.std)
        )
        values = images.to(self.device).to(torch.float32, memory_format=self.layout).div_(255)
        return values.sub_(mean).div_(std), labels.to(self.device)
