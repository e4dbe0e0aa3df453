# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP on the engine's port: three routes, everything else 404 and the connection closed.

``GET`` with Upgrade is the WebSocket, ``POST /jsonrpc`` a call; ``GET`` and ``PUT`` with a storage header transfer
OVF data (wire.md 6), which is refused in the form that its clients read until it is built.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
from aiohttp import web

from vdsm.rpc.dispatcher import Caller
from vdsm.rpc.http import Web, flow_id

TRANSFER_HEADER = "Storage-Pool-Id"
NOT_BUILT = {"status": {"code": 100, "message": "This host does not transfer OVF data yet"}}


class EngineSite:
    def __init__(self, site: Web) -> None:
        self._site = site

    async def serve(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        response = await self._route(request, caller)
        if response is None:
            response = web.Response(status=404)
            response.force_close()
        return response

    async def _route(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse | None:
        if "Origin" in request.headers:
            return None
        if request.method == "GET" and "upgrade" in request.headers.get("Connection", "").lower():
            return await self._site.connections.serve(request, caller)
        if request.method == "POST" and request.path == "/jsonrpc":
            return await self._site.post(request, replace(caller, flow_id=flow_id(request)))
        if request.method in ("GET", "PUT") and TRANSFER_HEADER in request.headers:
            refused = web.Response(
                status=500, body=msgspec.json.encode(NOT_BUILT), headers={"Content-Type": "application/json"}
            )
            refused.force_close()
            return refused
        return None
