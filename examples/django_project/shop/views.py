"""The pages of the shop."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from shop.tasks import send_receipt


@csrf_exempt
def order(_request: HttpRequest, customer: str) -> JsonResponse:
    with transaction.atomic():
        receipt = send_receipt.using(priority=5).enqueue(customer)
    return JsonResponse({"receipt": receipt.id}, status=202)


def receipt(_request: HttpRequest, result_id: str) -> JsonResponse:
    result = send_receipt.get_result(result_id)
    text = result.return_value if result.status == "SUCCESSFUL" else None
    return JsonResponse({"status": result.status, "text": text})
