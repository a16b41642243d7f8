"""Two addresses: one enqueues, one tells what came of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from shop.tasks import total

if TYPE_CHECKING:
    from django.http import HttpRequest


@csrf_exempt
@require_POST
def order(request: HttpRequest) -> JsonResponse:
    """Enqueue the sum of a JSON array of prices; the answer has the id to ask with."""
    result = total.enqueue(json.loads(request.body))
    return JsonResponse({"id": result.id}, status=202)


def show(_request: HttpRequest, result_id: str) -> JsonResponse:
    """Tell what came of a sum."""
    result = total.get_result(result_id)
    return JsonResponse({"status": result.status, "total": result.return_value if result.is_finished else None})


urlpatterns = [path("orders", order), path("orders/<path:result_id>", show)]
