"""The record of an experiment, that is of a comparison or a sweep: planned cells and their states.

A cell is one training, of one setting with one seed. `experiment.json` in the experiment's folder
has all of them, and is written whole whenever one changes: whoever shows an experiment reads it and
guesses nothing. Its numbers are those that cells ended with; means, intervals and ranks are worked
out of them by whoever wants them.

Readers know the folders of an older egapipe too, see `former`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue, ValidationError

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.labels import setting_label
from egapipe.pipeline.results.runs import RunFolder, open_run

RECORD = "experiment.json"
FORMAT = 1
State = Literal["planned", "running", "stopped", "failed", "done"]
"""`stopped`: ended early, as others did better; `failed`: by an error, which `Cell.error` has;
`done`: trained to its last epoch. A command that was killed leaves `running` ones, see `beat`."""
STATES: tuple[State, ...] = get_args(State)
ENDED: frozenset[State] = frozenset({"stopped", "failed", "done"})


def _finite(value: Any) -> Any:
    """None for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]


class _Part(BaseModel):
    """A part of the record. What a later version adds to it is left out, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Setting(_Part):
    """What the cells of all seeds have in common.

    name: unlike that of any other setting. group: the student of a comparison: a setting is
    compared with the baseline of its own group. label: its name within the group, such as the
    variant's. changes: what it changes of the experiment's configuration, by dotted path, without
    the seed.
    """

    name: str
    label: str
    group: str = ""
    changes: dict[str, JsonValue] = {}


class Cell(_Part):
    """One training.

    number: from 0, in the order of the plan. setting: name of its `Setting`. run: its run folder
    as a path relative to the experiment's folder, None while it has none. epoch: of `epochs` that
    are done. value: the experiment's metric, of a cell that is not done after the last epoch that
    is; None where there is none or it is no finite number. seconds: of training. started, ended:
    seconds since 1970.
    """

    number: int
    setting: str
    seed: int
    state: State
    run: str | None = None
    error: str | None = None
    epoch: int = 0
    epochs: int
    value: Number = None
    seconds: Number = None
    started: Number = None
    ended: Number = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state in ENDED


class Experiment(_Part):
    """Everything that is known of a comparison or a sweep.

    metric: what `Cell.value` is, a metric of an epoch such as `test/top1` (%). mode: whether more
    of it is better. weights: whose metric it is: of the `last` epoch, the `best` one, or the moving
    average, `ema`. confidence: level of the intervals. baseline: label of the settings that the
    others of their group are compared with, None where there is none. planned: cells that there
    will be; a searcher has not proposed all of them yet. concurrent: most that ran at once.
    teacher: mean top-1 of the teacher's head on the same labels, %. beat: when the command that
    runs it last said so, seconds since 1970; None once it has ended. finished: whether no cell is
    to come any more.
    """

    format: int = FORMAT
    kind: Literal["comparison", "sweep"]
    name: str
    metric: str
    mode: Literal["max", "min"]
    weights: Literal["last", "best", "ema"] = "last"
    confidence: float = 0.95
    baseline: str | None = None
    finished: bool = False
    planned: int
    concurrent: int = 1
    seconds: Number = None
    teacher: Number = None
    beat: Number = None
    settings: tuple[Setting, ...]
    cells: tuple[Cell, ...]

    def model_post_init(self, context: Any) -> None:
        """Refuse a record whose parts do not fit."""
        unknown = {cell.setting for cell in self.cells} - {s.name for s in self.settings}
        if unknown:
            raise ValueError(f"no setting is called {min(unknown)}")

    @cached_property
    def groups(self) -> dict[str, list[Setting]]:
        """The settings of each group, in their order; of a sweep one group without a name."""
        groups: dict[str, list[Setting]] = {}
        for setting in self.settings:
            groups.setdefault(setting.group, []).append(setting)
        return groups

    @cached_property
    def counts(self) -> Mapping[State, int]:
        """Cells in each state, those that are still to be proposed among the planned ones."""
        counted = Counter(cell.state for cell in self.cells)
        counted["planned"] += max(0, self.planned - len(self.cells))
        return {state: counted[state] for state in STATES}

    def setting(self, name: str) -> Setting:
        """The setting of a name."""
        return self._by_name[name]

    def cells_of(self, setting: Setting) -> list[Cell]:
        """The cells of a setting, whatever their state."""
        return self._by_setting.get(setting.name, [])

    def values_of(self, setting: Setting) -> dict[int, float]:
        """Seed -> value, of the setting's cells that are done and have one."""
        done = (cell for cell in self.cells_of(setting) if cell.state == "done")
        return {cell.seed: cell.value for cell in done if cell.value is not None}

    def baseline_of(self, setting: Setting) -> Setting | None:
        """What a setting is compared with; None for that itself, and where there is none."""
        found = (s for s in self.groups[setting.group] if s.label == self.baseline)
        other = next(found, None)
        return None if other == setting else other

    @cached_property
    def _by_name(self) -> dict[str, Setting]:
        return {setting.name: setting for setting in self.settings}

    @cached_property
    def _by_setting(self) -> dict[str, list[Cell]]:
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.setting, []).append(cell)
        return found


@dataclass(frozen=True)
class Recorded:
    """An experiment and the folder whose record it is."""

    folder: RunFolder
    experiment: Experiment

    def run(self, cell: Cell) -> RunFolder | None:
        """The run folder of a cell, which may be gone; None if it has none yet."""
        return None if cell.run is None else self.folder.beside(cell.run)


def is_experiment(folder: RunFolder) -> bool:
    """Whether a folder is of a comparison or a sweep, of this egapipe or an older one."""
    from egapipe.pipeline.results.former import is_former

    return folder.has(RECORD) or is_former(folder)


def read_experiment(place: RunFolder | str) -> Recorded:
    """The experiment in a folder, at a path or a URL.

    Raises UsageError if there is none, its record is damaged, or a later egapipe wrote it.
    """
    folder = open_run(place)
    if folder.has(RECORD):
        return Recorded(folder, _parsed(folder))
    from egapipe.pipeline.results.former import read_former

    return Recorded(folder, read_former(folder))


def write_experiment(folder: RunFolder, experiment: Experiment) -> None:
    """Write the record, whole or not at all."""
    folder.write_json(RECORD, experiment.model_dump(mode="json"))


def settings_of(changes: Iterable[Mapping[str, Any]]) -> list[Setting]:
    """Settings that are told apart by what they change, as a sweep has them."""
    settings, seen = list[Setting](), Counter[str]()
    for change in changes:
        label = setting_label(change)
        seen[label] += 1
        name = label if seen[label] == 1 else f"{label} ({seen[label]})"
        settings.append(Setting(name=name, label=name, changes=dict(change)))
    return settings


def _parsed(folder: RunFolder) -> Experiment:
    content, where = folder.read_json(RECORD), f"{folder.where}/{RECORD}"
    number = content.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise UsageError(
            f"{where} has format {number}, this egapipe reads up to {FORMAT}: upgrade egapipe"
        )
    try:
        return Experiment.model_validate(content)
    except (ValidationError, RecursionError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "nested too deep"
        raise UsageError(
            f"{where} is damaged ({said}): run the same command again, which writes it anew"
        ) from None
