"""A sweep in Python: defined as a dictionary or read from a file, then planned, launched and reported as by the commands.

Its definition is written to runs/<name>/sweep.yaml when it is launched, so that the commands, and jobs on a cluster, find it
there: `python -m study.status runs/<name>/sweep.yaml`. Mistakes are raised as `study.errors.UserError`.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from study.cli.arguments import DEFAULT_RUNS
from study.cli.console import open_console
from study.config.sweep import Sweep as Definition
from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError
from study.records.record import read_records
from study.records.sweep_folder import SweepFolder, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from study.reporting.result_files import Report


@dataclass(frozen=True, eq=False, repr=False)
class PlannedSweep:
    """What a sweep will train and compare.

    `runs`: a row per planned run, with its levels, cost (`params`, `macs` of one image) and status; `contrasts`: a row per
    contrast that the report will make, and whether it is primary.
    """

    runs: "pd.DataFrame"
    contrasts: "pd.DataFrame"


@dataclass(frozen=True)
class Sweep:
    """One study: made by `from_dict` or `from_file`. `path` is its YAML file, `folder` is where its runs are."""

    definition: Definition
    folder: Path

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, runs: str | Path = DEFAULT_RUNS) -> "Sweep":
        """The sweep of a dictionary with the keys of a sweep's file, `name` among them. Nothing is written yet.

        Raises UserError with all mistakes; lines are those of the file that a launch will write.
        """
        name = document.get("name")
        if not isinstance(name, str):
            raise UserError(Problem("a sweep that is defined in Python needs a name", key="name", value=name))
        try:
            plain = json.loads(json.dumps(document))  # tuples become lists
            if isinstance(files := plain.get("plugins"), list):  # the file will be elsewhere
                plain["plugins"] = [str(Path(str(file)).resolve()) for file in files]
        except (TypeError, ValueError) as error:
            raise UserError(Problem(f"only numbers, text, true/false, lists and mappings are known here ({error})")) from None
        yaml, text = YAML(), io.StringIO()
        yaml.default_flow_style, yaml.width = None, 100
        yaml.dump(plain, text)
        definition = read_sweep(Path(runs) / name / "sweep.yaml", text=text.getvalue())
        return cls(definition, Path(runs) / definition.name)

    @classmethod
    def from_file(cls, path: str | Path, *overrides: str, runs: str | Path = DEFAULT_RUNS) -> "Sweep":
        """The sweep of a YAML file, with overrides such as "train.epochs=2". Raises UserError with all mistakes."""
        definition = read_sweep(path, overrides)
        return cls(definition, Path(runs) / definition.name)

    @property
    def path(self) -> Path:
        return Path(self.definition.path)

    def plan(self) -> PlannedSweep:
        """Every planned run with its width and cost, and every planned contrast. Raises UserError as `study.plan` does."""
        import pandas as pd

        from study.plan import format_plan_as_json
        from study.planning.trials import make_plan_so_far

        place = SweepFolder(self.folder)
        with self.definition.plugins.in_use():
            plan = make_plan_so_far(self.definition, place)
        statuses = {run_id: attempts.record.status for run_id, attempts in read_records(place.records).items()}
        document = format_plan_as_json(plan, statuses)
        rows = [
            {**{name: value for name, value in run.items() if name != "levels"}, **run["levels"]} for run in document["runs"]
        ]
        return PlannedSweep(pd.DataFrame(rows), pd.DataFrame(document["contrasts"]))

    def launch(
        self,
        *,
        cluster: str = "auto",
        profile: str | None = None,
        workers: int | None = None,
        threads: int | None = None,
        limit: int | None = None,
        wait: bool = False,
    ) -> "pd.DataFrame":
        """Train the missing runs, on Slurm or here, as `study.launch` does with these options; returns the run table.

        On this machine it returns when the runs have ended; on Slurm at once, unless it is to `wait`. Failed runs are in the
        table with status `failed` and their reason.
        """
        from study import launch
        from study.records.table import load_table

        if self.path.parent == self.folder:  # defined in Python
            write_whole(self.path, self.definition.text)
        options = {"profile": profile, "workers": workers, "threads": threads, "limit": limit}
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        words = [str(self.path), *self.definition.overrides, "--runs", str(self.folder.parent), "--cluster", cluster, *given]
        words += ["--wait"] if wait else []
        with self.definition.plugins.in_use():
            launch.launch_sweep(self.definition, launch.parser().parse_intermixed_args(words), console=open_console())
        return load_table(self.folder)

    def report(self, *, out: str | Path | None = None, formats: Sequence[str] = ("svg", "png", "pdf")) -> "Report":
        """Draw the report of what is recorded so far, in `out` or runs/<name>/report, and load it (see `load_report`)."""
        from study import report
        from study.reporting.result_files import load_report

        words = [str(self.folder), "--formats", ",".join(formats), *(["--out", str(out)] if out else [])]
        drawn = report.write_report(report.parser().parse_args(words), open_console())
        return load_report(drawn.folder)
