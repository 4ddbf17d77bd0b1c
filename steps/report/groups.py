"""EERs of groups of trials: by the duration of the shorter side, by gender and by age.

A trial belongs to a group of speakers if both its speakers do. Gender and age come from spk2gender and spk2age of the
list's data directory, if data preparation left them; durations from the number of frames of its features.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from steps.report.material import SHIFT, Material, Summary, best_of_systems
from steps.report.plotting import Drawn, LeftOut, line_style, new_figure
from utils.errors import InputError
from utils.kaldi.ark import read_table
from utils.labelled_scores import read_scores_with_rows
from utils.metrics import measure

FEWEST = 20  # targets, and non-targets, of a group
QUARTERS = (25, 50, 75)  # % of the targets' durations: bounds of the groups
AGES = ((0, 15), (16, 35), (36, 60), (61, 200))  # years, as in speechocean762's list: children up to 15
NAMES = {"f": "women, girls", "m": "men, boys"}


class Traits(NamedTuple):
    """What is known about the utterances of a data directory; None: unknown."""

    ids: list[str]
    seconds: np.ndarray | None    # of each utterance
    genders: list[str] | None     # of each utterance's speaker, "" if not in the table
    ages: np.ndarray | None       # years, NaN if not in the table


class Group(NamedTuple):
    """Trials of a kind: which of a list's, and a label."""

    label: str
    chosen: np.ndarray  # (N,) bool


def read_traits(data: Path) -> Traits:
    """Return what is known about a data directory; raises InputError on a damaged table."""
    ids, speakers = read_table(data / "utt2spk")
    tables = {name: dict(zip(*read_table(data / name), strict=True)) for name in ("spk2gender", "spk2age")
              if (data / name).is_file()}
    frames = next((dict(zip(*read_table(path), strict=True))
                   for path in sorted(data.parent.glob(f"*/{data.name}/utt2num_frames"))), None)
    try:
        seconds = None if frames is None else np.array([SHIFT * float(frames.get(name, "nan")) for name in ids])
        ages = np.array([float(tables["spk2age"].get(one, "nan")) for one in speakers]) if "spk2age" in tables else None
    except ValueError as error:
        raise InputError(f"{data}: spk2age or utt2num_frames: {error}; prepare the data again") from error
    genders = [tables["spk2gender"].get(one, "") for one in speakers] if "spk2gender" in tables else None
    return Traits(ids, seconds, genders, ages)


def duration_groups(seconds: np.ndarray, is_target: np.ndarray) -> list[Group]:
    """Return groups of trials by the duration of their shorter side (N seconds), each with a quarter of the targets."""
    bounds = np.unique(np.percentile(seconds[is_target], QUARTERS).round(1))
    groups = np.searchsorted(bounds, seconds, side="right")
    ends = ["", *(f"{bound:g}" for bound in bounds), ""]
    labels = [f"{low} to {high} s" if low and high else f"under {high} s" if high else f"{low} s and over"
              for low, high in zip(ends[:-1], ends[1:], strict=True)]
    return [Group(label, groups == number) for number, label in enumerate(labels)]


def speaker_groups(traits: Traits, rows: np.ndarray) -> dict[str, list[Group]]:
    """Return the groups by gender and by age of trials with these utterances (N x 2)."""
    found = {}
    if traits.genders is not None:
        genders = np.array(traits.genders)[rows]
        known = sorted(set(traits.genders) - {""})
        found["gender"] = [Group(NAMES.get(one, one), (genders == one).all(axis=1)) for one in known]
    if traits.ages is not None:
        ages = traits.ages[rows]
        found["age"] = [Group(f"{low} to {high} years" if high < 200 else f"over {low - 1} years",
                              ((ages >= low) & (ages <= high)).all(axis=1)) for low, high in AGES]
    return found


def group_rates(one: Summary, traits: Traits) -> dict[str, dict[str, tuple[float, int]]]:
    """Return EER (%) and number of targets of each group that is large enough, by kind and label."""
    values, is_target, rows = read_scores_with_rows(one.of.trials, one.of.path, traits.ids)
    if rows.min(initial=0) < 0:
        raise InputError(f"{one.of.trials} names utterances that are not in utt2spk beside it")
    kinds = speaker_groups(traits, rows)
    if traits.seconds is not None and np.isfinite(shorter := traits.seconds[rows].min(axis=1)).all():
        kinds = {"shorter side": duration_groups(shorter, is_target)} | kinds
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for kind, groups in kinds.items():
        for label, chosen in groups:
            targets, nontargets = values[chosen & is_target], values[chosen & ~is_target]
            if min(len(targets), len(nontargets)) >= FEWEST:
                found.setdefault(kind, {})[label] = measure(targets, nontargets).eer, len(targets)
    return found


def draw(title: str, rates: Mapping[str, Mapping], names: Mapping[str, str], systems: Sequence[str]) -> Figure:
    """Return the figure of a list. rates: of each system, as `group_rates` returns them; names: in the legend."""
    kinds = list(next(iter(rates.values())))
    counts = [len(next(iter(rates.values()))[kind]) for kind in kinds]
    figure = new_figure(max(4.4, 1.0 + 1.05 * sum(counts)), 3.4 + 0.17 * -(-len(rates) // 2))
    figure.suptitle(title, fontsize=11, fontweight="bold")
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True, width_ratios=counts)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        for system, found in rates.items():
            axis.plot([eer for eer, _ in found[kind].values()], marker="o", markersize=4,
                      label=names[system], **line_style(systems.index(system)))
        groups = next(iter(rates.values()))[kind]
        axis.set_xticks(range(len(groups)), [f"{label}\n{targets:,} targets" for label, (_, targets) in groups.items()],
                        fontsize=7.5)
        axis.set(title=kind, xlim=(-0.5, len(groups) - 0.5))
        axis.grid(axis="y", color="0.9", linewidth=0.6)
    axes[0].set(ylabel="EER, %", ylim=(0, None))  # only now: it ends the scaling to what is drawn
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of each list; systems with the back-end of their lowest EER."""
    for name, some in material.lists.items():
        data = some[0].of.trials.parents[1]
        try:
            traits, best = read_traits(data), best_of_systems(some)
            rates = {system: group_rates(one, traits) for system, one in best.items()}
        except (InputError, OSError) as error:
            yield LeftOut(f"Groups of {name}: {error}.")
            continue
        kinds = list(next(iter(rates.values())))
        for kind, table, values in (("duration of the shorter side", "utt2num_frames", traits.seconds),
                                    ("gender", "spk2gender", traits.genders), ("age", "spk2age", traits.ages)):
            if values is None:
                yield LeftOut(f"Groups of {name} by {kind}: data preparation left no {table}.")
            elif not any(kind.endswith(one) for one in kinds):
                yield LeftOut(f"Groups of {name} by {kind}: fewer than {FEWEST} targets or non-targets in each, or "
                              f"utterances that {table} lacks.")
        if kinds:
            names = {system: f"{system} ({one.of.backend})" for system, one in best.items()}
            yield Drawn(f"groups_{name}", f"EER of {len(best)} systems on {name} by {', '.join(kinds)}",
                        f"EER on groups of the trials of {material.of_list(name)}, each system with the back-end of "
                        "its lowest EER; small groups have wide intervals.",
                        draw(material.of_list(name), rates, names, material.systems))
