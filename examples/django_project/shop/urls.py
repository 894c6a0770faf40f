"""Where the pages are."""

from django.urls import path

from shop.views import order, receipt

urlpatterns = [
    path("orders/<str:customer>", order),
    path("receipts/<str:result_id>", receipt),
]
