"""Setting up: what makes it start over, and the sentences it fails with."""

from __future__ import annotations

import os

import pytest
from host import environment


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty checkout, in which commands are noted and not run."""
    commands = []
    monkeypatch.setattr(environment, "VENV", str(tmp_path / "a b" / ".venv"))
    monkeypatch.setattr(environment, "CACHE", str(tmp_path / "a b" / ".cache"))
    monkeypatch.setattr(environment, "LOG", str(tmp_path / "a b" / ".cache" / "setup.log"))
    monkeypatch.setattr(environment, "_run", lambda command, failure: commands.append(command) or _pretend(command))
    monkeypatch.setattr(environment, "_runs", lambda python, code: os.path.exists(python) and "pip" in code or True)
    comfyui = tmp_path / "ComfyUI"
    comfyui.mkdir()
    (comfyui / "main.py").touch()
    (comfyui / "requirements.txt").write_text("torch\n")
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    return commands


def _pretend(command):
    if "venv" in command:
        os.makedirs(environment.VENV)


def installs(commands):
    return [command for command in commands if "install" in command]


def test_the_second_time_nothing_is_done(fresh):
    environment.prepare()
    assert len(installs(fresh)) == 2
    fresh.clear()
    environment.prepare()
    assert fresh == []


def test_other_requirements_are_installed_anew(fresh, monkeypatch, tmp_path):
    environment.prepare()
    (tmp_path / "ComfyUI" / "requirements.txt").write_text("torch\nnumpy\n")
    fresh.clear()
    environment.prepare()
    assert len(installs(fresh)) == 2


def test_an_interrupted_installation_starts_over(fresh, monkeypatch):
    def interrupt(arguments, failure):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "_pip", interrupt)
        with pytest.raises(KeyboardInterrupt):
            environment.prepare()
    half_done = os.path.join(environment.VENV, "half_a_package")
    os.makedirs(half_done)
    environment.prepare()
    assert not os.path.exists(half_done)
    assert len(installs(fresh)) == 2


def test_a_comfyui_path_without_comfyui_is_refused(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(environment.SetupError, match="nowhere.*main.py"):
        environment.prepare()


def test_a_python_that_is_too_old_gets_a_sentence(fresh, monkeypatch):
    monkeypatch.setattr(environment, "_runs", lambda python, code: False)
    with pytest.raises(environment.SetupError, match=r"Python 3\.10 or newer is needed"):
        environment.prepare()


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "LOG", str(tmp_path / "setup.log"))
    with pytest.raises(environment.SetupError, match="(?s)It broke.*exit status 3.*no space left"):
        environment._run(["sh", "-c", "echo no space left >&2; exit 3"], "It broke")
