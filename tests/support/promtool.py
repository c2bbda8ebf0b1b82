"""Series and expressions that promtool evaluates."""

import shutil
import subprocess

import pytest
import yaml

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's prometheus")


def promtool(*args):
    done = subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def run_tests(folder, tests, rules="groups: []\n"):
    """promtool's verdict on its unit tests, and what it says."""
    (folder / "rules.yml").write_text(rules)
    whole = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yml").write_text(yaml.safe_dump(whole, sort_keys=False))
    code, said = promtool("test", "rules", folder / "tests.yml")
    return code == 0, said


def written(series):
    """{name: values} as promtool wants it."""
    return [{"series": name, "values": str(values)} for name, values in series.items()]
