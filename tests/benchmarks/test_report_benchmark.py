"""The benchmark of the report runs, on few rows."""

import json

from benchmarks import report


def test_it_tells_what_a_page_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SETTINGS", report.SETTINGS[:1])
    monkeypatch.setattr(report, "EDITORS", ["identity", "rome"])
    monkeypatch.setattr("sys.argv", ["report", "--rows", "300", "--out", str(tmp_path / "found.json")])
    report.main()
    found = json.loads((tmp_path / "found.json").read_text())
    metrics = set(report.rows(300)["metric"].to_pylist())
    cases = 300 // (2 * len(metrics))
    assert cases > 1 and found["rows"] == 2 * len(metrics) * cases
    assert found["answers"] == 2 * len(report.QUESTIONS) * cases
    assert 0 < found["page_mb"] < 10 and found["cpu_seconds"] > 0 and found["peak_gib"] > 0.05
