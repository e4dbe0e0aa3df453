# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm doctor`: runs all checks, also without an agent, and says what to do about each fault."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from rich.markup import escape

from storage.leases import records
from vdsm import config
from vdsm.certificates import places as certificate_places
from vdsm.certificates.examine import examine as examine_certificate
from vdsm.cli.cert import MAKE_ONE
from vdsm.cli.checks import Level, Result, accounts, closed_to_agent, forbidden, host, places
from vdsm.cli.connection import LOOK, agent_socket, connect, explain
from vdsm.cli.output import console, count, print_json
from vdsm.cli.storage.asked import rows
from vdsm.cli.storage.faults import of_domains
from vdsm.client import ClientError, RpcError
from vdsm.client.web import FORBIDDEN
from vdsm.common.errors import AgentError
from vdsm.common.paths import Paths
from vdsm.hooking.limits import Limits
from vdsm.hooking.lint import Severity, lint
from vdsm.host.tree import Tree
from vdsm.root.client import RootClient
from vdsm.rpc.policy import BadPolicy, PolicyFile

_MARKS = {Level.GOOD: "[green]✔[/]", Level.WARNING: "[yellow]![/]", Level.FAULT: "[red]✘[/]"}
_ANSWER_S = 5.0
_ROOT_REMEDY = "systemctl restart vdsm-root; why it ended or hangs: journalctl -u vdsm-root"

__all__ = ["Level", "Result", "examine", "show"]


async def examine(paths: Paths) -> list[Result]:
    tree = Tree()
    found = [
        *accounts(),
        *host(tree),
        *places(paths),
        *_configuration(paths),
        *_certificates(paths),
        *_access(paths),
        *_hooks(paths),
        *_leases(paths),
    ]
    return [*found, await _root_helper(paths.root_socket), await _agent(), *await _domains()]


def _leases(paths: Paths) -> Iterator[Result]:
    """Nothing when all is well, as on most hosts."""
    for domain_id, left in records.all_left(paths.leased).items():
        found = f"domain {domain_id}: writers of process {left.pid}, which has ended, keep its lease: {left}"
        yield Result("leases", Level.FAULT, found, "bring the domain's storage back, or restart this host")


def _configuration(paths: Paths) -> Iterator[Result]:
    try:
        settings = config.load(paths)
    except config.BadConfiguration as e:
        yield Result("configuration", Level.FAULT, str(e), "mend the file; systemctl restart vdsm")
        return
    files = config.files(paths)
    limits = Limits(settings.hook_timeout_s, settings.hook_timeouts_s)
    found = [closed for file in files if (closed := closed_to_agent(file))]
    found += [
        Result("configuration", Level.WARNING, warning, "mend the line, or take it away")
        for warning in (*settings.warnings, *limits.unknown_names())
    ]
    yield from found or [Result("configuration", Level.GOOD, ", ".join(files) or "defaults, no file", "")]


def _certificates(paths: Paths) -> Iterator[Result]:
    renew = "vdsm cert status tells more; vdsm cert renew"
    for place in (place for place in certificate_places.known(paths.pki) if place.exists()):
        if not os.access(place.key, os.R_OK) and os.path.exists(place.key):
            yield forbidden("certificate", place.key)
            continue
        report = examine_certificate(place)
        for problem in report.problems:
            yield Result("certificate", Level.FAULT, f"{place.name}: {problem}", renew)
        if not report.problems:
            found = f"{place.name}: {report.days_left} days left, of its authority {report.authority_days_left}"
            level = Level.WARNING if report.expires_soon else Level.GOOD
            yield Result("certificate", level, found, renew)
    if not certificate_places.host(paths.pki).exists():
        found = f"there is none in {paths.pki}: the port for engines stays closed"
        yield Result("certificate", Level.WARNING, found, MAKE_ONE)


def _access(paths: Paths) -> Iterator[Result]:
    try:
        policy = PolicyFile(paths.etc).current()
    except BadPolicy as e:
        yield Result("access", Level.FAULT, str(e), "mend the file: docs/access.md shows its form")
        return
    found = f"{len(policy.rules)} rules; a certificate that none names: {policy.default or 'refused'}"
    yield Result("access", Level.GOOD, found, "")


def _hooks(paths: Paths) -> Iterator[Result]:
    findings = [f for f in lint(paths.hooks, 36) if f.severity is not Severity.NOTE]
    for finding in findings:
        level = Level.FAULT if finding.severity is Severity.ERROR else Level.WARNING
        yield Result("hooks", level, f"{finding.path}: {finding.problem}", finding.remedy)
    if not findings:
        yield Result("hooks", Level.GOOD, "every script is in order", "")


async def _root_helper(path: str) -> Result:
    """It is asked something: one that is stopped takes connections, too."""
    helper = RootClient(path)
    try:
        if _is_closed_to_us(path):
            return forbidden("root helper", path)
        await helper.call("Network.state", {}, timeout_s=_ANSWER_S)
    except AgentError as e:
        return Result("root helper", Level.FAULT, str(e), _ROOT_REMEDY)
    finally:
        await helper.close()
    return Result("root helper", Level.GOOD, f"answers at {path}", "")


def _is_closed_to_us(path: str) -> bool:
    return os.path.exists(path) and not os.access(path, os.W_OK)


async def _agent() -> Result:
    try:
        async with connect() as client:
            await client.call("Host.ping2", timeout_s=_ANSWER_S)
    except ClientError as e:
        failure = explain(e)
        is_ours = isinstance(e, RpcError) and e.code == FORBIDDEN  # it answered: it runs
        remedy = failure.remedy.removesuffix(LOOK)
        return Result("agent", Level.WARNING if is_ours else Level.FAULT, failure.text, remedy)
    return Result("agent", Level.GOOD, f"answers at {agent_socket()}", "")


async def _domains() -> list[Result]:
    """Nothing of a host without a pool; that the agent does not answer is told already."""
    try:
        async with connect() as client:
            domains = await rows(client, "storage.getDomains")
    except ClientError:
        return []
    found = [
        Result("storage", Level.WARNING if fault.is_warning else Level.FAULT, fault.what, fault.do)
        for fault in of_domains(domains)
    ]
    watched = sum(domain["health"] is not None for domain in domains)
    well = [Result("storage", Level.GOOD, f"{count(watched, 'domain')} of the pool, all valid", "")] if watched else []
    return found or well


def show(results: list[Result], as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(result) for result in results])
        return
    out = console()
    for result in results:
        out.print(f"{_MARKS[result.level]} [bold]{result.what:16}[/] {escape(result.found)}", soft_wrap=True)
        if result.remedy and result.level is not Level.GOOD:
            out.print(f"  {'':16} [dim]→ {escape(result.remedy)}[/]", soft_wrap=True)
    faults = sum(result.level is Level.FAULT for result in results)
    warnings = sum(result.level is Level.WARNING for result in results)
    verdict = f"[red]{count(faults, 'fault')}[/]" if faults else "[green]no fault[/]"
    out.print(f"\n{verdict}, {count(warnings, 'warning')}, {count(len(results), 'check')}")
