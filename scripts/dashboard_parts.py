"""What Erg's dashboards are made of: variables, rows, panels with their units and links, by Grafana's SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
SERVERS: Final = 'namespace=~"$namespace",job=~"$job",pod=~"$pod"'
"""What every query is limited to. Off Kubernetes there is no namespace and no pod: "All" matches that, too."""
MODELS: Final = f'{SERVERS},model=~"$model"'
HEIGHT: Final = 8
STAT_HEIGHT: Final = 4
ALERTS_URL: Final = "/alerting/list?queryString=Erg"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Where a figure turns from green: upwards (`bad` above `warn`) or downwards. `warn` may be left out."""

    bad: float
    warn: float | None = None

    def build(self) -> Builder[model.ThresholdsConfig]:
        """Steps as Grafana has them, from below to above."""
        falling = self.warn is not None and self.warn > self.bad
        colours = ("red", "yellow", "green") if falling else ("green", "yellow", "red")
        values = (self.bad, self.warn) if falling else (self.warn, self.bad)
        steps = [model.Threshold(value=None, color=colours[0])]
        steps += [
            model.Threshold(value=value, color=colour)
            for value, colour in zip(values, colours[1:], strict=True)
            if value is not None
        ]
        return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    levels: Levels | None = None,
    stacked: bool = False,
    least: float | None = 0,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time, or areas on each other where they add up to something."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(HEIGHT)
        .fill_opacity(30 if stacked else 5)
        .show_points(common_model.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.TABLE)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["mean", "lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if levels is not None:
        panel = panel.thresholds(levels.build()).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_model.GraphTresholdsStyleMode.DASHED)
        )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number).range())
    return panel


def figure(
    title: str, description: str, unit: str, query: Query, *, width: int = 4, levels: Levels | None = None
) -> stat.Panel:
    """One figure, as it is at the end of the shown time."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(STAT_HEIGHT)
        .graph_mode(common_model.BigValueGraphMode.NONE)
        .color_mode(common_model.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("none")
        .with_target(_target(query, 0).instant())
    )
    return panel if levels is None else panel.thresholds(levels.build())


def listing(title: str, description: str, unit: str, *queries: Query, width: int = 24) -> table.Panel:
    """A row for each set of labels, a column for each query; of one query every label has a column."""
    panel = table.Panel().title(title).description(description).datasource(SOURCE).unit(unit).span(width).height(HEIGHT)
    panel = panel.show_header(show_header=True)  # Without any option Grafana's own model cannot read it.
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number).instant().format(PromQueryFormat.TABLE))
    hidden = {"Time": True, "__name__": True, "instance": True, "endpoint": True, "service": True, "container": True}
    names = {f"Value #{_letter(number)}": query.legend for number, query in enumerate(queries)}
    if len(queries) > 1:
        panel = panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    else:
        hidden["Value"] = True
    return panel.with_transformation(
        model.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden, "renameByName": names})
    )


def board(title: str, uid: str, description: str, rows: Sequence[tuple[str, Sequence[Builder[model.Panel]]]]) -> str:
    """A whole dashboard as Grafana's JSON, ending with a line feed; `rows` are titles and their panels."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["erg", "inference"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .variables(_variables())
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts")
            .datasource(SOURCE)
            .enable(enable=True)
            .icon_color("red")
            .expr('ALERTS{alertname=~"Erg.+",alertstate="firing",namespace=~"$namespace",job=~"$job"}')
        )
        .link(dashboard.DashboardLink("Alerts of Erg").type(model.DashboardLinkType.LINK).url(ALERTS_URL).icon("bolt"))
        .link(
            dashboard.DashboardLink("Erg's dashboards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["erg"])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    )
    number = 0
    for name, panels in rows:
        number += 1
        built = built.with_row(dashboard.Row(name).id(number))
        for panel in panels:
            number += 1
            built = built.with_panel(_Numbered(panel, number))
    return _as_json(built.build())


class _Numbered(Builder[model.Panel]):
    """A panel with its number, by which links and exports know it."""

    def __init__(self, panel: Builder[model.Panel], number: int) -> None:
        self._panel = panel
        self._number = number

    def build(self) -> model.Panel:
        built = self._panel.build()
        built.id_val = self._number
        return built


def _as_json(built: model.Dashboard) -> str:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415 (untyped: it is named here alone)

    return JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False).encode(built) + "\n"


def _variables() -> list[Builder[model.VariableModel]]:
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _labels("namespace", "erg_server_ready"),
        _labels("job", 'erg_server_ready{namespace=~"$namespace"}'),
        _labels("pod", 'erg_server_ready{namespace=~"$namespace",job=~"$job"}'),
        _labels("model", f"erg_model_ready{{{SERVERS}}}"),
    ]


def _labels(name: str, of: str) -> Builder[model.VariableModel]:
    everything = model.VariableOption(text="All", value="$__all", selected=True)
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({of}, {name})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(everything)
    )


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(_letter(number))
    )


def _letter(number: int) -> str:
    return "ABCDEFGH"[number]
