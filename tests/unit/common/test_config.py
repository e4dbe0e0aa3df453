# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from vdsm import config
from vdsm.common.paths import Paths


@pytest.fixture
def paths(tmp_path):
    return Paths(etc=str(tmp_path / "etc"), run=str(tmp_path / "run"), usr_lib=str(tmp_path / "lib"))


def write(folder, name, text):
    from pathlib import Path

    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_without_any_file(paths):
    assert config.load(paths) == config.Settings()


def test_keys_of_vdsm_that_mean_something_are_honoured(paths):
    ours = "[sanlock]\nio_timeout = 15\n[irs]\nsd_health_check_delay = 5\n"
    engines = "[vars]\nssl = false\nssl_ciphers = HIGH\n[addresses]\nmanagement_port = 54322\nmanagement_ip = 0.0.0.0\n"
    write(paths.etc, "vdsm.conf", ours + engines)
    settings = config.load(paths)
    assert (settings.sanlock_io_timeout_s, settings.health_check_delay_s) == (15, 5.0)
    assert (settings.ssl, settings.ssl_ciphers, settings.management_port) == (False, "HIGH", 54322)
    assert settings.management_address == "0.0.0.0"
    assert settings.warnings == ()


def test_what_the_engine_writes_and_bad_values_are_told_never_fatal(paths):
    text = "[vars]\nssl= maybe\n[addresses]\nmanagement_port= many\n[sanlock]\nio_timeout = soon\n[gluster]\nx = y\n"
    write(paths.etc, "vdsm.conf", text)
    settings = config.load(paths)
    assert (settings.sanlock_io_timeout_s, settings.ssl, settings.management_port) == (10, True, 54321)
    places = [warning.partition(": ")[0].rpartition("/")[2] for warning in settings.warnings]
    assert places == ["vdsm.conf:2", "vdsm.conf:4", "vdsm.conf:6", "vdsm.conf:8"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[agnet]\nlog_level = INFO\n", "did you mean [agent]?"),
        ("[hook_timeout]\nbefore_vm_start = 5\n", "did you mean [hook_timeouts]?"),
        ("[sanlock]\nio_timeouts = 5\n", "did you mean io_timeout?"),
        ("[gluster]\nx = y\n", "is ignored"),
        ("[irs]\nmaximum_allowed_tasks = 5\n", "is ignored"),
        ("[vars]\nssl_excludes = x\n", "is ignored"),
    ],
)
def test_a_name_that_is_nearly_one_is_told_with_what_was_meant(paths, text, meant):
    write(paths.etc, "vdsm.conf", text)
    (warning,) = config.load(paths).warnings
    assert warning.endswith(meant)


def test_a_key_of_ours_that_is_nearly_one_is_told_with_what_was_meant(paths):
    write(paths.etc, "vdsm.conf", "[agent]\nlog_levl = INFO\n")
    with pytest.raises(config.BadConfiguration, match=r"; did you mean log_level\?$"):
        config.load(paths)


def test_etc_wins_over_run_wins_over_usr_lib(paths):
    for folder, level in ((paths.usr_lib, "ERROR"), (paths.run, "WARNING"), (paths.etc, "DEBUG")):
        write(folder, "vdsm.conf.d/50_level.conf", f"[agent]\nlog_level = {level}\n")
        assert config.load(paths).log_level == level


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[agent]\nlog_levl = INFO\n", r"vdsm\.conf:2: \[agent\] has no key 'log_levl'; it knows: .*log_level"),
        ("[agent]\n\nlog_level = LOUD\n", r"vdsm\.conf:3: \[agent\] log_level = 'LOUD': expected DEBUG"),
        ("[hooks]\ntimeout_s = -1\n", r"timeout_s = '-1': expected seconds"),
        ("[hook_timeouts]\nbefore_vm_start = soon\n", r"before_vm_start = 'soon': expected seconds"),
        ("[virt]\nstart_slots = few\n", r"start_slots = 'few': expected a whole number from 0 to 64$"),
        ("[agent]\nplain_http_port = x\n", r"plain_http_port = 'x': expected a port number$"),
        ("no section\n", r"vdsm\.conf:1: 'no section' stands below no \[section\]$"),
        ("[agent]\n\nlog_level\n", r"vdsm\.conf:3: 'log_level.*' is neither a \[section\] nor key = value$"),
    ],
)
def test_our_own_sections_are_strict_and_name_file_and_line(paths, text, place):
    write(paths.etc, "vdsm.conf", text)
    with pytest.raises(config.BadConfiguration, match=place):
        config.load(paths)


def test_a_file_that_is_no_text_is_said_so(paths):
    write(paths.etc, "vdsm.conf", "").write_bytes(b"[agent]\n\xff")
    with pytest.raises(config.BadConfiguration, match=r"vdsm\.conf: is no text in UTF-8 \(byte 8\)$"):
        config.load(paths)


def test_an_address_that_is_none_is_told_in_words(paths):
    write(paths.etc, "vdsm.conf", "[addresses]\nmanagement_ip = here\n")
    (warning,) = config.load(paths).warnings
    assert warning.endswith("management_ip = 'here' is ignored: expected an IPv4 or IPv6 address")


def test_timeouts_by_hook_point(paths):
    write(paths.etc, "vdsm.conf", "[hook_timeouts]\nbefore_vm_start = 5\n")
    assert config.load(paths).hook_timeouts_s == {"before_vm_start": 5.0}
