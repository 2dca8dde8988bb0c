"""Which machine this is, without telling which; and whether compiled programs are kept on it."""

from pathlib import Path

import pytest

from shared_spec.machine import caches, identity, nvml, probe


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an invented Linux, which is no container."""
    for name, text in (("etc/machine-id", "4c4c4544"), ("proc/sys/kernel/random/boot_id", "11-22")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    monkeypatch.setattr(probe, "ROOT", tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("container", raising=False)
    return tmp_path


def test_a_machine_is_the_same_by_salt_and_identity_and_says_neither(linux: Path) -> None:
    here = identity.salted("salt", "cpu")
    assert here == identity.salted("salt", "cpu")
    assert len(here) == 16
    assert int(here, 16) >= 0
    assert here != identity.salted("another folder's", "cpu")
    (linux / "etc/machine-id").write_text("another\n")
    assert here != identity.salted("salt", "cpu")


def test_containers_of_one_image_are_told_apart_by_the_start_of_their_host(linux: Path) -> None:
    (linux / ".dockerenv").touch()
    here = identity.salted("salt", "cpu")
    (linux / "etc/machine-id").write_text("of another image\n")
    assert here == identity.salted("salt", "cpu")
    (linux / "proc/sys/kernel/random/boot_id").write_text("33-44\n")
    assert here != identity.salted("salt", "cpu")


def test_what_has_no_identity_goes_by_its_name(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (linux / "etc/machine-id").unlink()
    monkeypatch.setattr("platform.node", lambda: "ada")
    one = identity.salted("salt", "cpu")
    monkeypatch.setattr("platform.node", lambda: "bob")
    assert one != identity.salted("salt", "cpu")


def test_another_gpu_is_another_machine(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        uuid = "GPU-1"

        def ask(self, question: str) -> str:
            assert question == "nvmlDeviceGetUUID"
            return self.uuid

    card = Card()
    monkeypatch.setattr(nvml, "load", lambda: None)
    monkeypatch.setattr(nvml, "connect", lambda module, environ: card)
    one = identity.salted("salt", "cuda")
    card.uuid = "GPU-2"
    assert one != identity.salted("salt", "cuda")
    assert identity.salted("salt", "cpu") == identity.salted("salt", "cpu")


def test_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    told = '    "IOPlatformSerialNumber" = "X"\n    "IOPlatformUUID" = "1F-2E"\n'
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(identity, "command_output", lambda *words: told)
    one = identity.salted("salt", "gpu")
    monkeypatch.setattr(identity, "command_output", lambda *words: told.replace("2E", "3D"))
    assert one != identity.salted("salt", "gpu")


def test_cached_programs_are_counted(tmp_path: Path) -> None:
    assert caches.programs(None) is None
    assert caches.programs([]) == caches.programs([tmp_path, tmp_path / "missing"]) == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/one", "a/b/two"):
        (tmp_path / name).touch()
    assert caches.programs([tmp_path, tmp_path / "missing"]) == 2


def test_where_the_driver_keeps_its_programs(tmp_path: Path) -> None:
    assert caches.cuda_driver({"CUDA_CACHE_PATH": str(tmp_path)}) == [tmp_path]
    assert caches.cuda_driver({"CUDA_CACHE_PATH": str(tmp_path), "CUDA_CACHE_DISABLE": "1"}) == []
    assert caches.cuda_driver({})[0].name == "ComputeCache"
