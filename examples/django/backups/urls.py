"""Where the views are."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("<slug:job_id>/", views.detail, name="detail"),
    path("<slug:job_id>/events", views.follow, name="follow"),
    path("<slug:job_id>/cancel", views.cancel, name="cancel"),
]
