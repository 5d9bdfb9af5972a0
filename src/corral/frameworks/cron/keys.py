"""Under which keys the records of runs are kept."""

from corral.frameworks.cron.spec import HistoryRecord, Run


def run_key(run: Run) -> str:
    return f"run/{run.job}/{run.id}"


def history_key(entry: HistoryRecord) -> str:
    return f"history/{entry.job}/{round(entry.ended_at * 1000):015d}-{entry.token}"
