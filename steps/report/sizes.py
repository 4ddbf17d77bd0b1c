"""The number of parameters to the embedding against the EER: one figure per trial list."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from steps.report.material import Material, Summary, best_of_systems
from steps.report.plotting import Drawn, LeftOut, mark_style, new_figure


def in_words(number: float) -> str:
    """Return a number of parameters as 950, 80 k, 1.2 M."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def draw(title: str, best: Mapping[str, Summary], parameters: Mapping[str, int], systems: Sequence[str]) -> Figure:
    """Return the figure of a list. best: by system; parameters: of the networks; other systems are dotted lines."""
    figure = new_figure(5.4, 3.6 + 0.19 * len(best))
    axis = figure.subplots()
    for system, one in sorted(best.items(), key=lambda item: item[1].eer):
        label, style = f"{system} ({one.of.backend}), {one.eer:.2f} %", mark_style(systems.index(system))
        if system in parameters:
            axis.scatter(parameters[system], one.eer, s=46, label=f"{label}, {in_words(parameters[system])}", **style)
        else:
            axis.axhline(one.eer, color=style["color"], linestyle=":", label=f"{label}, no network")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(value)))
    if max(parameters.values()) < 20 * min(parameters.values()):  # label 2 and 5 times a power of ten, too
        axis.xaxis.set_minor_formatter(FuncFormatter(
            lambda value, _: in_words(value) if f"{value:e}"[0] in "25" else ""))
    else:
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set(title=title, xlabel="parameters to the embedding", ylabel="EER, %")
    axis.margins(x=0.15, y=0.1)
    axis.set_ylim(0, None)
    axis.grid(color="0.9", linewidth=0.6)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    return figure


def figures(material: Material) -> Iterator[Drawn | LeftOut]:
    """Yield the figure of each list; systems with the back-end of their lowest EER."""
    parameters = {name: network.parameters_to_embedding() for name, (network, _) in material.networks.items()}
    for name, some in material.lists.items():
        best = best_of_systems(some)
        known = {system: parameters[system] for system in best if system in parameters}
        if not known:
            yield LeftOut(f"Parameters against EER on {name}: no network.")
            continue
        yield Drawn(f"sizes_{name}",
                    f"EER on {name} against parameters: "
                    + ", ".join(f"{system} {in_words(count)}, {best[system].eer:.2f} %"
                                for system, count in known.items()),
                    f"EER on {material.of_list(name)} against the number of parameters that an embedding depends on, "
                    "each system with the back-end of its lowest EER.",
                    draw(material.of_list(name), best, known, material.systems))
