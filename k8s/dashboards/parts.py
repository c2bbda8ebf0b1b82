"""What the panels of all dashboards share: where data comes from, colours, and how lines are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue as Property
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from evaluators.report.colours import COLOURS

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
CAMPAIGN = 'campaign=~"$campaign"'
EDITOR = 'campaign=~"$campaign", editor=~"$editor"'
HALF, QUARTER, WHOLE = 12, 6, 24  # of the page's 24 columns
HIGH, LOW = 8, 4
PAPER = ", paper"  # how the names of the paper's lines end

Part = Builder[models.Panel]
Query = tuple[str, str]  # an expression, and what its lines are called


def new_dashboard(name: str, title: str, description: str) -> dashboard.Dashboard:
    return (dashboard.Dashboard(title).uid(f"editfleet-{name}").description(description).tags(["editfleet"])
             .refresh("30s").time("now-6h", "now").timezone("browser").editable()
             .tooltip(models.DashboardCursorSync.CROSSHAIR)
             .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
             .with_variable(_variable("campaign", "Campaign", "label_values(editfleet_campaign_info, campaign)"))
             .with_variable(_variable("editor", "Editor", f"label_values(editfleet_edits_total{{{CAMPAIGN}}}, editor)"))
             .link(dashboard.DashboardLink("EditFleet").type(models.DashboardLinkType.DASHBOARDS).tags(["editfleet"])
                   .keep_time(True).include_vars(True)))


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """Any of its values, or all, which includes what has none."""
    return (dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE).multi(True)
            .include_all(True).all_value(".*").current(models.VariableOption(text="All", value="$__all"))
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC))


def lines(title: str, description: str, unit: str, *queries: Query, width: int = HALF) -> timeseries.Panel:
    panel = (timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit).span(width)
             .height(HIGH).min(0).line_width(2).fill_opacity(0).span_nulls(False)
             .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST)
                     .placement(LegendPlacement.BOTTOM).show_legend(True))
             .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)))
    for letter, (expression, legend) in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(_target(letter, expression, legend))
    return panel


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    return panel.fill_opacity(40).line_width(1).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))


def bars(panel: timeseries.Panel) -> timeseries.Panel:
    return stacked(panel).draw_style(GraphDrawStyle.BARS).fill_opacity(80)


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """No zero is on such an axis."""
    panel._internal.field_config.defaults.min_val = None
    return panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))


def by_editor(panel: timeseries.Panel) -> timeseries.Panel:
    """Each editor's lines in its colour, whatever else their names say behind the editor's; the paper's dashed."""
    for editor, colour in COLOURS.items():
        panel.override_by_regexp(f"/^{editor}(,.*)?$/", [fixed(colour)])
    return dashed(panel, f"/{PAPER}$/")


def dashed(panel: timeseries.Panel, names: str) -> timeseries.Panel:
    """Lines that stand by themselves, whatever of the others is stacked."""
    return panel.override_by_regexp(names, [
        Property("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}), Property("custom.lineWidth", 1),
        Property("custom.fillOpacity", 0), Property("custom.stacking", {"mode": "none", "group": "B"})])


def fixed(colour: str) -> Property:
    return Property("color", {"mode": "fixed", "fixedColor": colour})


def number(title: str, description: str, unit: str, expression: str, *, legend: str = "{{campaign}}",
           unknown: str = "not known", bad_from: float | None = None) -> stat.Panel:
    """The newest value of each campaign, red from `bad_from` on."""
    steps = [models.Threshold(value=None, color="text")]
    if bad_from is not None:
        steps.append(models.Threshold(value=bad_from, color="red"))
    return (stat.Panel().title(title).description(description).datasource(SOURCE).unit(unit).span(QUARTER).height(LOW)
            .no_value(unknown).with_target(_target("A", expression, legend, instant=True))
            .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)))


def rows(title: str, description: str, unit: str, columns: Sequence[Query]) -> table.Panel:
    """A table: a row for all values of equal labels, a column for each expression."""
    panel = (table.Panel().title(title).description(description).datasource(SOURCE).unit(unit).decimals(3).span(HALF)
             .height(HIGH).with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
             .override_by_name("Time", [Property("custom.hidden", True)]))
    for letter, (expression, name) in zip("ABCDEFGH", columns, strict=False):
        panel.with_target(_target(letter, expression, "", instant=True).format(PromQueryFormat.TABLE))
        panel.override_by_name(f"Value #{letter}", [Property("displayName", name)])
    return panel


def _target(letter: str, expression: str, legend: str, instant: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(expression).legend_format(legend)
    return query.instant() if instant else query.range()


def annotation(name: str, colour: str, expression: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(expression)
