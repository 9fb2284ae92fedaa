"""The values that an alarm looks at: one per period, of exactly the metric it names, or computed from several."""

import ast
import operator
from collections import defaultdict

from ministack.core.responses import get_account_id
from ministack.services import cloudwatch

BASIC = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def of_alarm(alarm):
    """(period, {start of the period: value}), or None where this emulator cannot tell: such an alarm keeps its state."""
    if "Metrics" not in alarm:
        if "MetricName" not in alarm:
            return None
        statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic")
        name = (alarm["Namespace"], alarm["MetricName"], alarm["Dimensions"])
        values = of_metric(*name, alarm["Period"], statistic, alarm.get("Unit"))
        return None if values is None else (alarm["Period"], values)
    queries = {query["Id"]: query for query in alarm["Metrics"]}
    returned = [query for query in alarm["Metrics"] if query.get("ReturnData", True)]
    periods = [query["MetricStat"]["Period"] for query in alarm["Metrics"] if "MetricStat" in query]
    if len(returned) != 1 or not periods:
        return None
    try:
        return max(periods), of_query(returned[0], queries)
    except (NotComputable, RecursionError):
        return None


class NotComputable(Exception):
    """A statistic, function or account that this emulator does not know."""


def of_metric(namespace, name, dimensions, period, statistic, unit=None):
    if statistic not in BASIC and not cloudwatch._is_percentile_stat(statistic):
        return None
    periods = defaultdict(list)
    key = (namespace, name, cloudwatch._dims_key(cloudwatch._dims_from_list(dimensions)))
    for point in cloudwatch._metrics.get(key) or []:
        if unit in (None, point["Unit"]):
            periods[int(point["Timestamp"] // period) * period].append(point)
    values = {}
    for start, points in periods.items():
        value = cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points)
        if value is not None:
            values[start] = value
    return values


def of_query(query, queries):
    stat = query.get("MetricStat")
    if query.get("AccountId", get_account_id()) != get_account_id():
        raise NotComputable
    if stat is None:
        return of_expression(query["Expression"], queries)
    metric = stat["Metric"]
    name = (metric["Namespace"], metric["MetricName"], metric.get("Dimensions") or [])
    values = of_metric(*name, stat["Period"], stat["Stat"], stat.get("Unit"))
    if values is None:
        raise NotComputable
    return values


def of_expression(expression, queries):
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise NotComputable from error
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in queries}
    inputs = {name: of_query(queries[name], queries) for name in names}
    if not inputs:
        raise NotComputable
    # A moment counts only where every input has a value.
    moments = set.intersection(*(set(values) for values in inputs.values()))
    at = {moment: {name: values[moment] for name, values in inputs.items()} for moment in moments}
    computed = {moment: compute(tree, values) for moment, values in at.items()}
    return {moment: value for moment, value in computed.items() if value is not None}


def compute(node, at):
    """Arithmetic only; None is AWS's answer to a division by zero: no data point."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in at:
        return at[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = compute(node.operand, at)
        return None if value is None else -value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = compute(node.left, at), compute(node.right, at)
        if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0):
            return None
        return OPERATORS[type(node.op)](left, right)
    raise NotComputable
